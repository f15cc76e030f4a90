"""Training and testing as most experiments do it."""

import base64
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from capsjax import data, models
from capsjax.analysis.statistics import wilson_interval
from capsjax.models import count_parameters
from capsjax.serial import to_json
from capsjax.training import loop, losses, run
from capsjax.training.config import Config
from capsjax.training.evaluation import Evaluation
from capsjax.training.settings import Settings, settings_for


class Trained(NamedTuple):
    """A network that was trained, and how that went.

    Attributes:
        run: the network with its best parameters by validation error, and its settings.
        history: every logged object, as in ``metrics.jsonl``.
        metrics: what a result says of the training.
    """

    run: run.Run
    history: Sequence[dict[str, Any]]
    metrics: dict[str, Any]


def settings(
    dataset: data.Dataset,
    model: str,
    *,
    model_config: Any = None,
    loss: dict[str, Any] | None = None,
    **training: Any,
) -> Settings:
    """What to train: a network's own choices, and those that differ here.

    Args:
        dataset: what to train it on.
        model: name of the network.
        model_config: the network's choices; None is the published ones.
        loss: choices of the loss that differ from the network's own.
        training: choices of training that differ from the network's own.

    Returns:
        Settings of a run directory.
    """
    known = models.find(model)
    own = {**known.training, **training}
    chosen = losses.Config(**{**own.pop("loss", {}), **(loss or {})})
    return settings_for(
        dataset,
        name=dataset.name,
        model=model,
        model_config=known.config if model_config is None else model_config,
        training=Config(**own, loss=chosen),
    )


def train(
    settings: Settings,
    dataset: data.Dataset,
    folder: Path,
    *,
    each_epoch: loop.EachEpoch | None = None,
) -> Trained:
    """Train in a run directory, or go on there; held-out training images choose the parameters.

    Args:
        settings: what to train.
        dataset: on what.
        folder: the run directory.
        each_epoch: as for ``loop.fit``.

    Returns:
        The network, and what a result says of its training.
    """
    progress = sys.stderr.isatty()
    result = run.fit(settings, dataset, folder, progress=progress, each_epoch=each_epoch)
    metrics = {
        "parameters": count_parameters(result.model),
        "epochs": settings.training.epochs,
        "steps": result.steps,
        "images_per_second": round(result.images_per_second, 1),
        "training_seconds": round(result.seconds, 1),
        "validation_error": result.validation_error,
        "validation_errors": [e["error"] for e in result.history if e["split"] == "validation"],
    }
    return Trained(run.Run(result.model, settings), result.history, metrics)


def test(
    trained: run.Run,
    arrays: data.Arrays,
    *,
    reconstruct: bool = False,  # noqa: PT028 - no test of pytest
) -> tuple[dict[str, Any], Evaluation]:
    """Test a network once.

    Args:
        trained: the network.
        arrays: the test images, each of one class or of several.
        reconstruct: also keep the reconstructions.

    Returns:
        What a result says of it, and the evaluation: error, its 95 % Wilson interval, and which
        images were wrong, so that another network can be compared on the same ones.
    """
    evaluation = trained.evaluate(arrays, reconstruct=reconstruct)
    # Which classes an image shows has no order.
    said, true = (
        np.sort(labels.reshape(evaluation.total, -1))
        for labels in (evaluation.prediction.labels, arrays["label"])
    )
    return of_wrong((said != true).any(1)), evaluation


def of_wrong(wrong: np.ndarray) -> dict[str, Any]:
    """What a result says of the test images that are wrong, bool ``[N]``."""
    errors = int(wrong.sum())
    return {
        "test_error": errors / len(wrong),
        "test_error_interval_95": wilson_interval(errors, len(wrong)),
        "test_errors": errors,
        "test_images": len(wrong),
        "wrong": packed(wrong),
    }


def train_and_test(
    chosen: Settings, dataset: data.Dataset, folder: Path, *, limit: int | None = None
) -> tuple[dict[str, Any], Trained, Evaluation]:
    """Train a network and test it once, for a result.

    Args:
        chosen: what to train.
        dataset: on what.
        folder: the run directory.
        limit: test on the first so many images; None is all.

    Returns:
        The metrics, with the seconds of both; the trained network; its evaluation.
    """
    trained = train(chosen, dataset, folder)
    start = time.monotonic()
    tested, evaluation = test(trained.run, first(dataset.load("test"), limit))
    seconds = trained.metrics["training_seconds"] + time.monotonic() - start
    return {**trained.metrics, **tested, "seconds": seconds}, trained, evaluation


def choices(chosen: Settings, tested: int | None = None) -> dict[str, Any]:
    """For a result: all settings, and on how many images they were tested if not on all."""
    return {**to_json(chosen), **({} if tested is None else {"tested": tested})}


def first(arrays: data.Arrays, count: int | None) -> data.Arrays:
    """The first so many examples; None is all."""
    return {name: array[:count] for name, array in arrays.items()}


def encoder_parameters(network: Any) -> int:
    """Number of trainable parameters of a network without its decoder."""
    decoder = network.decoder
    return count_parameters(network) - (0 if decoder is None else count_parameters(decoder))


def packed(wrong: np.ndarray) -> str:
    """Which images are wrong, bool ``[N]``, as a short text; ``wrong_images`` reads it."""
    return base64.b64encode(zlib.compress(np.packbits(wrong).tobytes())).decode()


def wrong_images(metrics: dict[str, Any]) -> np.ndarray:
    """Which test images a result has wrong, bool ``[N]``."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(metrics["wrong"])), np.uint8)
    return np.unpackbits(bits, count=metrics["test_images"]).astype(bool)
