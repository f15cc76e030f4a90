"""Capsule networks in JAX and Flax: routing as pure functions, thin modules, real data."""

import importlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capsjax.training.run import Run
    from capsjax.types import Capsules, Output, Routed, Trace

__version__ = metadata.version("capsjax")
__all__ = ["Capsules", "Output", "Routed", "Trace", "__version__", "load", "load_pretrained"]


def __getattr__(name: str) -> Any:
    # JAX loads for seconds. Loaded here it would come before the command line's own first line, and
    # an interrupt in it would be a traceback.
    if name == "types":
        return importlib.import_module("capsjax.types")
    if name in __all__:
        return getattr(importlib.import_module("capsjax.types"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(workdir: str | Path) -> "Run":
    """The trained network of a run directory; see ``capsjax.training.run.load``.

    Args:
        workdir: as made by ``capsjax train``.

    Returns:
        A network with its best parameters, with ``predict(images)`` and ``evaluate(arrays)``.

    Raises:
        ValueError: it is no run directory, or holds no checkpoint.

    Example:
        >>> from capsjax import data
        >>> run = load("runs/mnist")  # doctest: +SKIP
        >>> evaluation = run.evaluate(data.load("mnist", "test"))  # doctest: +SKIP
    """
    from capsjax.training import run  # checkpoints and optimizers load only where needed

    return run.load(workdir)


def load_pretrained(name: str | Path) -> "Run":
    """A trained network that comes with the package; see ``capsjax.pretrained.load``.

    Args:
        name: as listed by ``capsjax pretrained``, or the path of a file that ``capsjax export``
            made.

    Returns:
        The network, with ``predict(images)`` and ``evaluate(arrays)``.

    Raises:
        ValueError: no such name or file, or a file that cannot be used.

    Example:
        >>> load_pretrained("efficient_capsnet_mnist").settings.dataset
        'mnist'
    """
    from capsjax import pretrained

    return pretrained.load(name)
