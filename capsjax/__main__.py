"""The console script, ``capsjax`` or ``python -m capsjax``: sets up the process and dispatches."""

import os
import signal
import sys
from types import FrameType

_HUGE_PAGES = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


def main() -> None:
    """Entry point of the console script."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a shell's background processes ignore it
        signal.signal(signal.SIGINT, _leave)
    if sys.argv[1:2] in (["train"], ["evaluate"], ["predict"], ["figures"], ["export"]):
        use_huge_pages()
    sys.path.append(os.getcwd())  # where a user's own routing may be
    from capsjax import cli  # imports take seconds: not before the process may start anew

    try:
        signal.signal(signal.SIGINT, before)
        status = cli.dispatch(sys.argv[1:])
    except KeyboardInterrupt:  # a second one, while the first was answered
        status = 130
    if status == 130:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends already
    sys.exit(status)


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: nothing was begun, and an exception would pass through others' imports."""
    del number, frame
    os._exit(130)


def use_huge_pages() -> None:
    """Start this process anew with huge pages for large buffers, on Linux and unless already set.

    XLA's CPU back end allocates its large temporary buffers anew in every step; with huge pages
    the kernel hands them out in far fewer page faults. glibc reads the setting when a process
    starts. ``python -m experiments.benchmarks.speed`` measures the gain.
    """
    name, value = _HUGE_PAGES
    if sys.platform == "linux" and name not in os.environ:
        os.environ[name] = value
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    main()
