"""The commands: ``capsjax train | evaluate | predict | models | datasets``."""

import difflib
import logging
import os
import sys
from collections.abc import Callable, Sequence

import capsjax
from capsjax.cli import listings, train, trained

_USAGE = """usage: capsjax COMMAND [OPTIONS]

Capsule networks in JAX and Flax.

commands:
  train      train a network on a data set, or go on where it was stopped
  evaluate   error of a trained network, with interval, classes and confusion matrix
  predict    class of image files
  models     list the networks
  datasets   list the data sets

capsjax COMMAND --help shows a command's options."""

_HUGE_PAGES = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:2] in (["train"], ["evaluate"], ["predict"]):
        use_huge_pages()
    sys.exit(dispatch(sys.argv[1:]))


def use_huge_pages() -> None:
    """Start this process anew with huge pages for large buffers, on Linux and unless already set.

    XLA's CPU back end allocates its large temporary buffers anew in every step; with huge pages
    the kernel hands them out in far fewer page faults. Measured for CapsNet's training step on two
    cores: 1.16 to 1.19 times the speed. glibc reads the setting when a process starts.
    """
    name, value = _HUGE_PAGES
    if sys.platform == "linux" and name not in os.environ:
        os.environ[name] = value
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def dispatch(arguments: Sequence[str]) -> int:
    """Run a command.

    Args:
        arguments: what follows ``capsjax`` on the command line.

    Returns:
        Exit status: 0, 1 for a run that broke down, 2 for bad input, 130 and 143 for one that was
        stopped by SIGINT and SIGTERM.
    """
    # Orbax and TFDS warn through absl about what is no concern of the user's.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    commands: dict[str, Callable[[Sequence[str]], None]] = {
        "train": train.train,
        "evaluate": trained.evaluate,
        "predict": trained.predict,
        "models": listings.models_command,
        "datasets": listings.datasets_command,
    }
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(_USAGE)
        return 0
    if name == "--version":
        print(f"capsjax {capsjax.__version__}")
        return 0
    try:
        if name not in commands:
            raise ValueError(
                f"unknown command {name!r}, expected one of: {', '.join(commands)}"
                f"{_suggestion(name, list(commands))}"
            )
        commands[name](rest)
    except (ValueError, OSError) as error:
        print(f"capsjax: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"capsjax: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _stopped(130)
    except SystemExit as stop:
        return _stopped(143) if stop.code == 143 else int(stop.code or 0)
    return 0


def _stopped(status: int) -> int:
    print("\ncapsjax: stopped; the same command goes on from the last save", file=sys.stderr)
    return status


def _suggestion(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
