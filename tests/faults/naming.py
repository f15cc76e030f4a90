"""Whether a message tells which file it is about."""

import re
from pathlib import Path


def names(said: str, path: Path, folder: Path) -> bool:
    """Whether a message names a file, or a folder above it that is ``folder`` or lies in it.

    A path that goes on, to another file, is not named.
    """
    above = [place for place in path.parents if place.is_relative_to(folder)]
    return any(
        re.search(rf"(?<![\w/]){re.escape(str(place))}(?![\w/-]|\.\w)", said)
        for place in (path, *above)
    )
