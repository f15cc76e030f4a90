"""``metrics.jsonl``: one JSON object a line, with step, split and values."""

import json
import logging
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from capsjax.serial import parse
from capsjax.training.events import Events

_logger = logging.getLogger("capsjax")


class History(Sequence[dict[str, Any]]):
    """Objects of a metrics file, in a tenth of the memory that a list of them takes.

    Their numbers lie in one array, and names are kept once: a run may have millions of steps.

    Args:
        entries: the first ones, each with ``step``, ``split`` and numbers.

    Example:
        >>> history = History([{"step": 1, "split": "train", "loss": 0.5}])
        >>> history.append({"step": 1, "split": "validation", "error": 0.25})
        >>> len(history), history[-1]
        (2, {'step': 1, 'split': 'validation', 'error': 0.25})
    """

    def __init__(self, entries: Iterable[dict[str, Any]] = ()):
        self._kinds: list[tuple[str, ...]] = []  # split, then the numbers' names
        self._kind, self._step, self._start = array("L"), array("q"), array("Q")
        self._numbers = array("d")
        for entry in entries:
            self.append(entry)

    def append(self, entry: dict[str, Any]) -> None:
        """Add one."""
        numbers = {name: entry[name] for name in entry if name not in ("step", "split")}
        kind = (entry["split"], *numbers)
        if kind not in self._kinds:
            self._kinds.append(kind)
        self._kind.append(self._kinds.index(kind))
        self._step.append(entry["step"])
        self._start.append(len(self._numbers))
        self._numbers.extend(numbers.values())

    def __len__(self) -> int:
        return len(self._kind)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        split, *names = self._kinds[self._kind[index]]
        start = self._start[index]
        numbers = self._numbers[start : start + len(names)]
        return {
            "step": self._step[index],
            "split": split,
            **dict(zip(names, numbers, strict=True)),
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"History({list(self)!r})"


class MetricLog:
    """Metrics of a run, in memory and, with a path, on disk.

    Args:
        path: the file; None keeps nothing on disk.
        events: also told of what reaches the disk.
    """

    def __init__(self, path: Path | None, events: Events | None = None):
        self.path, self.events = path, events
        self.history = History()
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
        entries = [entry for entry in there if entry["step"] <= step]
        self.history = History(entries)
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
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
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
    step = entry.get("step")
    if type(step) is not int or not 0 <= step < 2**63 or not isinstance(entry.get("split"), str):
        raise ValueError("it has no step and split")
    for name in entry.keys() - {"step", "split"}:
        number = entry[name]
        if type(number) is not float and (type(number) is not int or number.bit_length() > 1000):
            raise ValueError(f"{name} is no number that 64 bits hold")
    return entry
