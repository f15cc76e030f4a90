"""Checksums of a folder's files, kept in it: what a disk changes afterwards is found."""

import json
from pathlib import Path

from capsjax.data.readers import sha256
from capsjax.training.json_file import write_json

NAME = "sha256.json"
# Itself, and what a kill leaves of writing it.
_OWN = {NAME, "sha256.partial"}


def seal(folder: Path) -> None:
    """Write the checksums of all files of a folder into it.

    Args:
        folder: complete; nothing in it changes any more.

    Raises:
        OSError: it cannot be read or written.
    """
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    checksums = {name: sha256(files[name]) for name in sorted(files.keys() - _OWN)}
    write_json(folder / NAME, checksums)


def damage(folder: Path) -> str | None:
    """What has changed in a folder since it was sealed, or None; None, too, if it never was.

    Args:
        folder: as ``seal`` took it.

    Raises:
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "file")
        ...     _ = file.write_text("abc")
        ...     seal(Path(folder))
        ...     before = damage(Path(folder))
        ...     _ = file.write_text("abd")
        ...     before, damage(Path(folder))
        (None, 'file has changed')
    """
    if not (folder / NAME).exists():
        return None
    try:
        checksums = dict(json.loads((folder / NAME).read_bytes()))
    except (ValueError, TypeError):
        return f"{NAME} has changed"
    for name, checksum in checksums.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        try:
            if sha256(path) != checksum:
                return f"{name} has changed"
        except FileNotFoundError:
            return f"{name} is missing"
    return None
