"""Networks compared where they are equally good on familiar images: the epochs at which they are.

How a network does on images unlike those that it was trained on says little about it where it is
the better one on familiar images too. So every epoch's weights are kept with their error on
held-out training images, and of each network the epoch is tested whose error is nearest to one that
all have reached. Test images take no part in the choice.

    trained = {name: matching.train(settings, dataset, folder) for each network}
    wanted = matching.lowest_of_all(each["validation_errors"] for each in trained.values())
    epoch = matching.nearest(trained[name]["validation_errors"], wanted)
    matching.load(folder, epoch, settings).evaluate(arrays)
"""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from capsjax import data, weights
from capsjax.models import count_parameters
from capsjax.training import config, loop, run
from capsjax.training.settings import Settings
from capsjax.training.step import split


def train(
    settings: Settings, dataset: data.Dataset, folder: Path, *, until: float | None = None
) -> dict[str, Any]:
    """Train epoch by epoch, or go on, and keep the weights of each.

    Args:
        settings: what to train; its epochs are the most that there will be.
        dataset: on what.
        folder: the run directory, with every epoch's weights in ``epochs/``.
        until: stop after the first epoch with at most this validation error; None does all.

    Returns:
        What a result says of the training, "seconds" and "validation_errors" of the epochs 1, 2,
        ... among it.

    Raises:
        ValueError: what a step does depends on how many will follow, so that an epoch of a longer
            training is not the end of a shorter one.
    """
    _check_steady(settings.training)
    errors: list[float] = []
    for epoch in range(1, settings.training.epochs + 1):
        path = weights_of(folder, epoch)
        if not path.exists():
            _train_to(epoch, settings, dataset, folder)
        told = weights.read_metadata(path)["metadata"]
        errors.append(told["validation_error"])
        if until is not None and errors[-1] <= until:
            break
    return {**told, "epochs": len(errors), "validation_errors": errors}


def _check_steady(training: config.Config) -> None:
    """Refuse choices that depend on the number of all steps (ValueError)."""
    loss = training.loss
    if training.schedule != "recipe":
        raise ValueError(
            f"schedule is {training.schedule!r}, whose end depends on the number of epochs: to "
            "match networks epoch by epoch take 'recipe'"
        )
    if loss.kind == "spread" and loss.spread_schedule == "linear" and loss.margin_steps is None:
        raise ValueError(
            "margin_steps is None, half of all steps of training: to match networks epoch by epoch "
            "give their number"
        )


def _train_to(epoch: int, settings: Settings, dataset: data.Dataset, folder: Path) -> None:
    """Train to the end of an epoch, from wherever the run directory is, and keep the weights."""
    training = dataclasses.replace(settings.training, epochs=epoch)
    chosen = dataclasses.replace(settings, training=training)
    result = run.fit(chosen, dataset, folder, progress=sys.stderr.isatty())
    told = {
        "parameters": count_parameters(result.model),
        "steps": result.steps,
        "images_per_second": round(result.images_per_second, 1),
        "seconds": round(result.seconds, 1),
        "validation_error": _last_validation(result),
    }
    # Not result.model, which is the best one so far.
    last = nnx.merge(split(result.model)[0], result.state.params, result.state.rest)
    path = weights_of(folder, epoch)
    path.parent.mkdir(exist_ok=True)
    weights.save(path, last, name=settings.model, metadata=told)


def _last_validation(result: loop.Result) -> float:
    return [entry["error"] for entry in result.history if entry["split"] == "validation"][-1]


def weights_of(folder: Path, epoch: int) -> Path:
    """The file with a network's weights after an epoch, which are counted from 1."""
    return folder / "epochs" / f"{epoch:04}.safetensors"


def lowest_of_all(errors: Iterable[Sequence[float]]) -> float:
    """The lowest error that every network reaches in some epoch.

    Args:
        errors: of every network, by epoch.

    Example:
        >>> lowest_of_all([[0.05, 0.02, 0.01], [0.04, 0.03]])
        0.03
    """
    return max(min(each) for each in errors)


def nearest(errors: Sequence[float], wanted: float) -> int:
    """The epoch, counted from 1, whose error is nearest to the wanted one; the first of equals.

    Args:
        errors: of one network, by epoch.
        wanted: such as ``lowest_of_all``.

    Example:
        >>> nearest([0.05, 0.02, 0.01], 0.03)
        2
    """
    return 1 + int(np.abs(np.asarray(errors) - wanted).argmin())


def load(folder: Path, epoch: int, settings: Settings) -> run.Run:
    """A network as it was after an epoch.

    Args:
        folder: the run directory.
        epoch: counted from 1.
        settings: that it was trained with.
    """
    return run.Run(weights.load(weights_of(folder, epoch)), settings)
