"""JSON files that are there whole or not at all, and that tell whether they have changed."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from capsjax.serial import parse

CHECKSUM = "sha256"


def write_json(path: Path, values: Any) -> None:
    """Write a file beside its place, then put it there: a reader never sees half of it.

    Args:
        path: of the file; one that is there is replaced.
        values: what JSON can hold.

    Raises:
        OSError: the folder is not there or cannot be written.
    """
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(values, indent=2) + "\n")
    temporary.replace(path)


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Write an object as ``write_json`` does, with its own checksum.

    Args:
        path: of the file.
        values: what JSON can hold.

    Raises:
        OSError: as ``write_json``.
    """
    write_json(path, {**values, CHECKSUM: _checksum(values)})


def read_sealed(path: Path, *, mend: str) -> dict[str, Any]:
    """Read what ``write_sealed`` wrote; an object without a checksum, of before, is read as it is.

    Args:
        path: of the file.
        mend: what to do about a damaged one, for the message.

    Returns:
        The object, without its checksum.

    Raises:
        ValueError: it is no object in JSON, or has changed since it was written.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    try:
        values = parse(content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged, it is no JSON ({error}): {mend}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is damaged, it holds no object: {mend}")
    stated = values.pop(CHECKSUM, None)
    # A checksum under another name is one whose name was hit.
    hit = any(
        isinstance(each, str) and re.fullmatch("[0-9a-f]{64}", each) for each in values.values()
    )
    if hit or (stated is not None and stated != _checksum(values)):
        raise ValueError(f"{path} is damaged, it is not what was written there: {mend}")
    return values


def _checksum(values: dict[str, Any]) -> str:
    as_read = json.loads(json.dumps(values))
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()
