"""One process at a time writes into a run directory.

The kernel holds the lock and gives it back when the process ends, however it ends: a run that was
killed leaves a file behind, but no lock.
"""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from capsjax.training import hosts

try:
    import fcntl
except ImportError:  # not on Windows, where runs are not locked
    fcntl = None  # type: ignore[assignment]

NAME = ".capsjax.lock"
# Folders that this thread has locked: who trains inside ``run.train`` asks again.
_mine = threading.local()


@contextmanager
def alone_in(workdir: Path | None) -> Iterator[None]:
    """Within it, no other process trains in a directory; of several hosts the first one locks it.

    Args:
        workdir: the run directory, made if missing; None locks nothing.

    Raises:
        ValueError: another process trains there, or the directory cannot be written.
    """
    with ExitStack() as held:
        with hosts.first_goes_ahead():
            if workdir is not None and hosts.is_first():
                held.enter_context(_locked(workdir))
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    locked: set[Path] = _mine.__dict__.setdefault("folders", set())
    place = folder.resolve()
    if place in locked:
        yield
        return
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        file = _take(folder)
    except OSError as error:
        raise ValueError(
            f"the work directory {folder} cannot be written ({error.strerror}): give another "
            "one, or free it"
        ) from error
    locked.add(place)
    try:
        yield
    finally:
        locked.discard(place)
        if file is not None:
            with suppress(OSError):  # what ended the training counts, not a name that stays behind
                (place / NAME).unlink()  # while it is ours
            os.close(file)
        if new:
            with suppress(OSError):
                place.rmdir()  # nothing was begun: it is empty


def _take(folder: Path) -> int | None:
    """The locked file; None where the system or the file system knows no locks."""
    if fcntl is None:
        return None
    path = folder / NAME
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(file)
            raise ValueError(
                f"another process trains in {folder}: wait for its end, or give another work "
                "directory"
            ) from error
        except OSError:
            os.close(file)
            return None
        if _is(path, file):
            return file
        os.close(file)


def _is(path: Path, file: int) -> bool:
    """Whether the file has its name still: who had it may have removed it since it was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
