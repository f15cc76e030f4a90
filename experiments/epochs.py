"""Networks compared where they are equally good: every epoch is kept, and held-out images match.

Networks that differ in how well they do what they were trained for say little about how they do
something else. So each is taken from the epoch whose held-out error is nearest to one that all of
them reach. No test image has a part in that.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import nnx

from capsjax import data, weights
from capsjax.training.run import Run
from capsjax.training.settings import Settings
from experiments import training


class Match(NamedTuple):
    """Where networks are equally good.

    Attributes:
        error: on held-out images, that all of them reach.
        epochs: of each network, from 1.
    """

    error: float
    epochs: dict[str, int]


def match(errors: Mapping[str, Sequence[float]], *, least: float = 0.0, first: int = 1) -> Match:
    """The epoch of each network whose held-out error is nearest to one that all reach.

    That is the least error of the network whose least error is largest. Of epochs that are equally
    near the first is taken: of two networks that are as good, the one that was trained less.

    Args:
        errors: of every network, the held-out error after each epoch.
        least: match at this error where all of them reach a lower one.
        first: of the epochs from this one on; all of them if a network has fewer. The running
            statistics of normalisation are far from what they describe in the first few.

    Returns:
        The error and the epochs.

    Raises:
        ValueError: there is no network, or one without an epoch.

    Example:
        >>> match({"quick": [0.5, 0.22, 0.1], "slow": [0.6, 0.4, 0.25]})
        Match(error=0.25, epochs={'quick': 2, 'slow': 3})
        >>> match({"quick": [0.5, 0.22, 0.1], "slow": [0.6, 0.4, 0.25]}, least=0.45)
        Match(error=0.45, epochs={'quick': 1, 'slow': 2})
        >>> match({"quick": [0.5, 0.22, 0.1], "slow": [0.6, 0.4, 0.25]}, first=3)
        Match(error=0.25, epochs={'quick': 3, 'slow': 3})
    """
    if not errors or not all(map(len, errors.values())):
        raise ValueError(f"errors are {dict(errors)}, expected some of every network")
    before = min(first, *map(len, errors.values())) - 1
    late = {name: values[before:] for name, values in errors.items()}
    reached = max(least, *map(min, late.values()))
    nearest = {
        name: 1 + before + int(np.argmin(np.abs(np.subtract(values, reached))))
        for name, values in late.items()
    }
    return Match(float(reached), nearest)


def train(chosen: Settings, dataset: data.Dataset, folder: Path) -> training.Trained:
    """Train in a run directory as ``training.train``, and keep the weights of every epoch there.

    Args:
        chosen: what to train.
        dataset: on what.
        folder: the run directory.

    Returns:
        The network with its best parameters, and what a result says of its training.
    """

    def keep(epoch: int, network: nnx.Module) -> None:
        path = _path(folder, epoch)
        path.parent.mkdir(exist_ok=True)
        weights.save(path, network, name=chosen.model)

    return training.train(chosen, dataset, folder, each_epoch=keep)


def after(epoch: int, chosen: Settings, folder: Path) -> Run:
    """A network as it was after an epoch.

    Args:
        epoch: which, from 1.
        chosen: what was trained.
        folder: the run directory.

    Returns:
        The network, and its settings.

    Raises:
        ValueError: its weights are not there.
    """
    path = _path(folder, epoch)
    if not path.exists():
        raise ValueError(
            f"{path} is missing, though the training's result is there: give the --workdir that it "
            f"was trained in, or remove the result and {folder} to train again"
        )
    return Run(weights.load(path), chosen)


def _path(folder: Path, epoch: int) -> Path:
    return folder / "epochs" / f"{epoch}.safetensors"
