"""The commands, from ``capsjax train`` to ``capsjax datasets``."""

import difflib
import logging
import sys
from collections.abc import Callable, Sequence

import capsjax
from capsjax.cli import datasets, drawing, explore, listings, networks, published, train, trained
from capsjax.training import hosts

_USAGE = """usage: capsjax COMMAND [OPTIONS]

Capsule networks in JAX and Flax.

commands:
  train      train a network on a data set, or go on where it was stopped
  evaluate   error of a trained network, with interval, classes and confusion matrix
  predict    class of image files
  figures    draw a trained network: its layers, what it says, what happens inside
  explore    look into a trained network in the browser
  export     write the network of a run to one file, with its test error
  pretrained list the trained networks that come with the package
  models     list the networks, the layers of one, the routings that each can take
  routings   list the routing algorithms
  datasets   list, prepare, verify and show data sets

capsjax COMMAND --help shows a command's options."""


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
        "figures": drawing.figures_command,
        "explore": explore.explore_command,
        "export": published.export_command,
        "pretrained": published.pretrained_command,
        "models": networks.models_command,
        "routings": listings.routings_command,
        "datasets": datasets.datasets,
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
        print(f"capsjax: {_reason(error)}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"capsjax: {error}", file=sys.stderr)
        return 1
    except hosts.Lost as error:
        print(f"capsjax: {error}", file=sys.stderr)
        hosts.leave(1)
    except KeyboardInterrupt:
        return _stopped(130, name)
    except SystemExit as stop:
        return _stopped(143, name) if stop.code == 143 else int(stop.code or 0)
    return 0


def _reason(error: ValueError | OSError) -> str:
    """In one line; a file's without its error's number."""
    if isinstance(error, OSError) and error.strerror:
        name = "" if error.filename is None else f"{str(error.filename)!r}: "
        return f"{name}{error.strerror}"
    return " ".join(str(error).split())


def _stopped(status: int, name: str) -> int:
    goes_on = "; the same command goes on from the last save" if name == "train" else ""
    print(f"\ncapsjax: stopped{goes_on}", file=sys.stderr)
    return status


def _suggestion(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
