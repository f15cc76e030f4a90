"""JSON files that are there whole or not at all."""

import json
from pathlib import Path
from typing import Any


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
