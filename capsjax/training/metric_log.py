"""``metrics.jsonl``: one JSON object a line, with step, split and values."""

import json
import logging
from pathlib import Path
from typing import Any

from capsjax.serial import parse
from capsjax.training.events import Events

_logger = logging.getLogger("capsjax")


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
        """Start after a step: later lines, of work that no checkpoint holds, are dropped.

        Raises:
            ValueError: a line is broken; a broken last one, or lines that are missing, are no more
                than a warning.
        """
        if self.events is not None:
            self.events.resume(step)
        if self.path is None or not self.path.exists():
            return
        there = read(self.path)
        self.history = [entry for entry in there if entry["step"] <= step]
        # What follows on a step, as a validation does, is missed where the step itself has no line,
        # also beyond the last step: a false number there would pass for later work.
        trained = {entry["step"] for entry in there if entry["split"] == "train"}
        lost = {*range(1, step + 1), *(entry["step"] for entry in there)} - trained
        if lost:
            _logger.warning(
                "%s has lost the metrics of %d steps, the first of them %d; the network has not",
                *(self.path, len(lost), min(lost)),
            )
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
            out with a warning.

    Returns:
        The objects in order.

    Raises:
        ValueError: another line is broken.
        OSError: the file cannot be read.
    """
    entries = []
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(_entry(line))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(
                    f"{path}, line {number}, is not a line of metrics ({error}): mend or remove it"
                ) from error
            _logger.warning("%s: the last line, %d, is broken and was left out", path, number)
    return entries


def _entry(line: bytes) -> dict[str, Any]:
    entry = parse(line)
    if not isinstance(entry, dict):
        raise ValueError("it is no object")
    if type(entry.get("step")) is not int or not isinstance(entry.get("split"), str):
        raise ValueError("it has no step and split")
    for name in entry.keys() - {"step", "split"}:
        if type(entry[name]) not in (int, float):
            raise ValueError(f"{name} is no number")
    return entry
