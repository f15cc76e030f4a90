"""Trained networks in the package, and files like them of one's own.

A file ``NAME.safetensors`` beside this one is a pretrained network: what can be said of it is in
the file alone, as ``card`` describes. ``export`` makes such a file from a run directory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from capsjax import checks, weights
from capsjax.pretrained.card import ELSEWHERE, Card, Tested, here, read
from capsjax.pretrained.exporting import export
from capsjax.training import run

__all__ = [
    "ELSEWHERE",
    "Card",
    "Opened",
    "Tested",
    "describe",
    "export",
    "find",
    "here",
    "load",
    "name_of",
    "names",
]

_ENDING = ".safetensors"


class Opened(NamedTuple):
    """A trained network, wherever it was.

    Attributes:
        run: the network with its settings.
        card: what its file says of it; None for a run directory.
    """

    run: run.Run
    card: Card | None


def names() -> list[str]:
    """Names of the networks in the package, sorted.

    Example:
        >>> "efficient_capsnet_mnist" in names()
        True
    """
    files = (item.name for item in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(_ENDING) for name in files if name.endswith(_ENDING))


@checks.arguments
def load(name: str | Path) -> run.Run:
    """A pretrained network, ready to predict; its parameters are float32 however they are stored.

    Args:
        name: one of ``names()``, whatever lies in the working directory; or the path of a file that
            ``capsjax export`` made.

    Returns:
        The network with its settings, as ``capsjax.load`` gives those of a run directory.

    Raises:
        ValueError: no such name or file, or a file that is damaged, not of capsjax, or without what
            ``export`` puts in.

    Example:
        >>> from capsjax import data
        >>> digits = data.load("mnist", "test")["image"][:5]
        >>> load("efficient_capsnet_mnist").predict(digits).labels
        array([7, 2, 1, 0, 4], dtype=int32)
    """
    with _file(name) as path:
        return _open(path).run


@checks.arguments
def describe(name: str | Path) -> Card:
    """What a pretrained network's file says of it; the network is not made.

    Args:
        name: as for ``load``.

    Returns:
        Settings, command, provenance, test error, size.

    Raises:
        ValueError: as for ``load``.

    Example:
        >>> describe("efficient_capsnet_mnist").tested.images
        10000
    """
    with _file(name) as path:
        return read(path)


@checks.arguments
def find(where: str | Path) -> Opened:
    """A trained network by whatever a command is given.

    A path that is there comes first: a folder in the working directory hides the pretrained network
    of its name, as it would hide any other word.

    Args:
        where: a run directory, a file of ``capsjax export``, or one of ``names()``.

    Returns:
        The network, and what its file says of it.

    Raises:
        ValueError: none of the three, or one that cannot be used.

    Example:
        >>> opened = find("efficient_capsnet_mnist")
        >>> opened.run.settings.dataset, opened.card.tested.images
        ('mnist', 10000)
    """
    path = Path(where)
    if checks.exists(path) and path.is_dir():
        if str(where) in names() and not (path / "config.json").exists():
            raise ValueError(
                f"the folder {where} is not a run directory (it has no config.json), and it hides "
                "the pretrained network of that name: rename it, or go to another folder"
            )
        return Opened(run.load(path), None)
    if checks.exists(path):
        return _open(path)
    if str(where) not in names():
        raise ValueError(
            f"{where} is neither a run directory (there is no {path / 'config.json'}) nor a file "
            "nor a pretrained network: give a folder that capsjax train made with --workdir, a "
            f"file of capsjax export, or one of: {', '.join(names())}"
        )
    with _file(where) as inside:
        return _open(inside)


@checks.arguments
def name_of(where: str | Path) -> str:
    """What a trained network is called, by whatever ``find`` finds it.

    Args:
        where: as for ``find``.

    Returns:
        The folder's own name, the file's without its ending, or the name that was given.

    Example:
        >>> name_of("runs/rate_0.01.safetensors"), name_of("efficient_capsnet_mnist")
        ('rate_0.01', 'efficient_capsnet_mnist')
    """
    path = Path(where)
    return path.resolve().name if path.is_dir() else path.name.removesuffix(_ENDING)


def _open(path: Path) -> Opened:
    card = read(path)
    model: Any = weights.load(path)
    model.eval()
    return Opened(run.Run(model, card.settings), card)


@contextmanager
def _file(name: str | Path) -> Iterator[Path]:
    if str(name) in names():
        with resources.as_file(resources.files(__name__) / f"{name}{_ENDING}") as path:
            yield path
    elif checks.exists(name) and Path(name).is_file():
        yield Path(name)
    else:
        raise ValueError(
            f"unknown pretrained network {str(name)!r}, expected one of: {', '.join(names())}, or "
            "the path of a file that capsjax export made"
        )
