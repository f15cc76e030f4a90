"""The official archives of data sets: where they come from, and that they are the right ones."""

import errno
import os
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from capsjax.data.readers import check_sha256

MANUAL = "CAPSJAX_MANUAL_DIR"
PREPARED = "CAPSJAX_DATA_DIR"

_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO}


class Archive(NamedTuple):
    """A file as its makers publish it.

    Attributes:
        url: where it is; its last part is the file's name.
        size: bytes, None where nobody published it.
        sha256: in hexadecimal, the one that TFDS checks; None where nobody published it.
    """

    url: str
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1]


def data_dir() -> Path:
    """Where prepared data sets live: ``CAPSJAX_DATA_DIR``, else where TFDS keeps its own."""
    return Path(os.environ.get(PREPARED) or "~/tensorflow_datasets").expanduser()


def manual_dir() -> Path | None:
    """Where archives were put by hand: ``CAPSJAX_MANUAL_DIR``, or None."""
    place = os.environ.get(MANUAL)
    return Path(place).expanduser() if place else None


def collect(
    dataset: str,
    archives: Mapping[str, Archive],
    download: Callable[[str], Any],
    *,
    unverified: bool = False,
) -> dict[str, Path]:
    """Paths of a data set's archives: those put by hand if there are any, else downloaded ones.

    Args:
        dataset: its name, which is also the name of the folder in ``CAPSJAX_MANUAL_DIR`` that is
            looked into first, before that folder itself.
        archives: which, each under a key.
        download: gives the path of a URL's file, checked.
        unverified: take files put by hand whatever their checksum.

    Returns:
        A path for each key.

    Raises:
        ValueError: an archive is wrong, or neither there nor to be had; all that are wanted are
            listed with their sizes and checksums.
    """
    found = {key: _by_hand(dataset, archive) for key, archive in archives.items()}
    if any(found.values()):
        missing = [archives[key] for key, path in found.items() if path is None]
        if missing:
            raise ValueError(
                f"{manual_dir()} lacks {len(missing)} files. {_wanted(dataset, missing)}"
            )
    else:
        found = {
            key: _downloaded(dataset, archive, download, archives)
            for key, archive in archives.items()
        }
    paths = {key: path for key, path in found.items() if path is not None}
    for key, path in paths.items():
        checksum = archives[key].sha256
        if checksum is None or unverified:
            continue
        try:
            check_sha256(path, checksum)
        except ValueError as error:
            raise ValueError(
                f"{error}. If it is a part of the official archive, or one of your own making in "
                "its format, add --unverified (in Python, unverified=True)"
            ) from error
    return paths


def _by_hand(dataset: str, archive: Archive) -> Path | None:
    place = manual_dir()
    if place is None:
        return None
    if not place.is_dir():
        raise ValueError(f"{MANUAL} is {place}, expected a folder with archives")
    candidates = [place / dataset / archive.name, place / archive.name]
    return next((path for path in candidates if path.is_file()), None)


def _downloaded(
    dataset: str, archive: Archive, download: Callable[[str], Any], all_: Mapping[str, Archive]
) -> Path:
    try:
        # TFDS goes on trying for minutes where there is no network.
        with urllib.request.urlopen(urllib.request.Request(archive.url, method="HEAD"), timeout=20):
            pass
        return Path(download(archive.url))
    except Exception as error:  # of the network, of TFDS, of the disk
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{archive.url} could not be downloaded ({reason[:200]}). "
            f"{_wanted(dataset, list(all_.values()))}"
        ) from error


def _wanted(dataset: str, archives: Sequence[Archive]) -> str:
    files = "; ".join(
        f"{archive.name}"
        + (f", {archive.size:,} bytes" if archive.size is not None else "")
        + (f", SHA-256 {archive.sha256}" if archive.sha256 is not None else "")
        + f", from {archive.url}"
        for archive in archives
    )
    return (
        f"Put these files into a folder {dataset} and name the folder above it in {MANUAL}: {files}"
    )
