"""``metrics.jsonl``: one JSON object a line, with step, split and values."""

import json
from pathlib import Path
from typing import Any

from capsjax.training.events import Events


class MetricLog:
    """Metrics of a run, in memory and, with a path, on disk.

    Args:
        path: the file; None keeps nothing on disk.
        events: also told of what reaches the disk.
    """

    def __init__(self, path: Path | None, events: Events | None = None):
        self.path, self.events = path, events
        self.history: list[dict[str, Any]] = []
        self._unwritten: list[dict[str, Any]] = []

    def resume(self, step: int) -> None:
        """Start after a step: later lines, of work that no checkpoint holds, are dropped."""
        if self.events is not None:
            self.events.resume(step)
        if self.path is None or not self.path.exists():
            return
        self.history = [entry for entry in read(self.path) if entry["step"] <= step]
        temporary = self.path.with_suffix(".partial")
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in self.history))
        temporary.replace(self.path)

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Add one object; it reaches the disk with ``flush``."""
        entry = {"step": step, "split": split, **values}
        self.history.append(entry)
        self._unwritten.append(entry)

    def flush(self) -> None:
        """Append what is new to the file."""
        if self.path is not None and self._unwritten:
            with self.path.open("a") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in self._unwritten)
        if self.events is not None:
            self.events.write(self._unwritten)
        self._unwritten = []

    def close(self) -> None:
        """Flush for the last time."""
        self.flush()
        if self.events is not None:
            self.events.close()


def read(path: Path) -> list[dict[str, Any]]:
    """All objects of a metrics file.

    Args:
        path: ``metrics.jsonl``. A broken last line, from a process killed while writing, is left
            out.

    Returns:
        The objects in order.

    Raises:
        ValueError: another line is broken.
        OSError: the file cannot be read.
    """
    entries = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}, is not JSON ({error})") from error
    return entries
