"""A bug, and how it gets into a copy of the repository and out of it again."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bug:
    """One mistake that somebody has made.

    Attributes:
        name: what it is called by.
        pitfall: what it stands for, of all that goes wrong in capsule networks.
        story: what goes wrong, and who has met it.
        file: where it is, below ``capsjax/``.
        right: the text that is there, once.
        wrong: what takes its place.
        tests: files or tests that should catch it, below ``tests/``; with ``[...]`` one of a test's
            cases.
    """

    name: str
    pitfall: str
    story: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


def with_bug(text: str, bug: Bug) -> str:
    """The text of the bug's file with the bug in it; a ValueError where it has no place there."""
    count = text.count(bug.right)
    if count != 1:
        raise ValueError(
            f"{bug.name}: its text is {count} times in capsjax/{bug.file}, expected once: look "
            "where the code has gone and change the bug's text"
        )
    return text.replace(bug.right, bug.wrong)


@contextlib.contextmanager
def introduced(bug: Bug, root: Path) -> Iterator[None]:
    """The bug in a copy of the repository, for as long as the context lasts."""
    path = root / "capsjax" / bug.file
    text = path.read_text()
    path.write_text(with_bug(text, bug))
    try:
        yield
    finally:
        path.write_text(text)
