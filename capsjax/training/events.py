"""``tensorboard/``: a run's metrics as event files for TensorBoard, written by tensorboardX."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Events:
    """Event files of a run, a curve for every metric of every split.

    Args:
        folder: where they are kept; made with the first of them.

    Raises:
        ValueError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ValueError(
                "event files for TensorBoard need tensorboardX: install it with "
                "pip install 'capsjax[tensorboard]'"
            ) from error
        self._open, self._folder = SummaryWriter, folder
        self._writer: Any = None

    def resume(self, step: int) -> None:
        """Go on after a step: TensorBoard drops what earlier files say of later ones."""
        self._writer = self._open(str(self._folder), purge_step=step + 1 if step else None)

    def write(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add objects of the metric log."""
        for entry in entries:
            for name, value in entry.items():
                if name not in ("step", "split"):
                    self._writer.add_scalar(f"{entry['split']}/{name}", value, entry["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the newest file."""
        if self._writer is not None:
            self._writer.close()
