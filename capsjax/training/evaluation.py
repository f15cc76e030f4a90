"""Predictions of a network in batches, and what they say about it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from capsjax.data import Arrays, augment, check_arrays
from capsjax.training.metrics import confusion_matrix, wilson_interval
from capsjax.training.step import split

BATCH_SIZE = 100


class Prediction(NamedTuple):
    """What a network says of images.

    Attributes:
        labels: int32 ``[N]``, the class of the most active capsule.
        activations: float32 ``[N, classes]``, the class capsules' activations.
        reconstructions: float32 ``[N, H, W, C]`` in [0, 1], or None if not asked for or without a
            decoder.
    """

    labels: np.ndarray
    activations: np.ndarray
    reconstructions: np.ndarray | None


@dataclass(frozen=True)
class Evaluation:
    """Error of a network on a data set.

    Attributes:
        error: share of wrong predictions.
        interval: its 95 % Wilson interval.
        errors: number of wrong predictions.
        total: number of examples.
        confusion: int ``[classes, classes]``, true class by predicted class.
        prediction: what was predicted.
    """

    error: float
    interval: tuple[float, float]
    errors: int
    total: int
    confusion: np.ndarray
    prediction: Prediction

    @property
    def class_errors(self) -> list[float | None]:
        """Error of each class; None where it has no examples."""
        counts = self.confusion.sum(1)
        wrong = counts - self.confusion.diagonal()
        return [float(w / n) if n else None for w, n in zip(wrong, counts, strict=True)]


def predict(
    network: nnx.Module,
    images: np.ndarray,
    *,
    reconstruct: bool = False,
    precision: str = "default",
) -> Prediction:
    """Classify images.

    Args:
        network: takes images ``[batch, H, W, C]`` in [0, 1], returns an ``Output``.
        images: uint8 ``[N, H, W, C]``, from 0 to 255.
        reconstruct: also return the reconstructions.
        precision: of matrix products, as in the training config.

    Returns:
        Labels, activations, reconstructions.

    Raises:
        ValueError: images of another dtype or shape than the network takes.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"images are {images.dtype} {images.shape}, expected uint8 [N, height, width, channels]"
            " from 0 to 255, N at least 1"
        )
    with jax.default_matmul_precision(precision):
        forward = make_forward(network, reconstruct=reconstruct)
        parts = [
            forward(images[start : start + BATCH_SIZE])
            for start in range(0, len(images), BATCH_SIZE)
        ]
    activations = np.concatenate([activations for activations, _ in parts])
    reconstructions = (
        None if parts[0][1] is None else np.concatenate([r for _, r in parts if r is not None])
    )
    return Prediction(activations.argmax(1).astype(np.int32), activations, reconstructions)


def make_forward(
    network: nnx.Module, *, reconstruct: bool = False
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]:
    """A function from at most ``BATCH_SIZE`` uint8 images to activations and reconstructions.

    A short batch is filled up with zeros, so that everything runs in one compiled shape.
    """
    graph, params, rest = split(network)
    run = partial(_run, graph, reconstruct, params, rest)

    def forward(images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        count = len(images)
        filled = np.zeros((BATCH_SIZE, *images.shape[1:]), np.uint8)
        filled[:count] = images
        activations, reconstructions = run(filled)
        return (
            np.asarray(activations)[:count],
            None if reconstructions is None else np.asarray(reconstructions)[:count],
        )

    return forward


@partial(jax.jit, static_argnums=(0, 1))
def _run(
    graph: Any, reconstruct: bool, params: Any, rest: Any, images: Array
) -> tuple[Array, Array | None]:
    network: Any = nnx.merge(graph, params, rest, copy=True)
    if hasattr(network, "eval"):
        network.eval()
    output = network(augment.to_unit_interval(images))
    return output.activations, output.reconstruction if reconstruct else None


def evaluate(
    network: nnx.Module,
    data: Arrays,
    *,
    reconstruct: bool = False,
    precision: str = "default",
) -> Evaluation:
    """Error of a network on labelled images.

    Args:
        network: as for ``predict``.
        data: ``image`` uint8 ``[N, H, W, C]`` and ``label`` integer ``[N]``.
        reconstruct: also keep the reconstructions.
        precision: of matrix products, as in the training config.

    Returns:
        The error with its interval, the confusion matrix, the predictions.

    Raises:
        ValueError: malformed data, or labels that the network has no class for.
    """
    data = check_arrays(data, where="data")
    prediction = predict(network, data["image"], reconstruct=reconstruct, precision=precision)
    num_classes = prediction.activations.shape[1]
    check_labels(data["label"], num_classes)
    errors = int((prediction.labels != data["label"]).sum())
    confusion = confusion_matrix(
        jnp.asarray(prediction.labels), jnp.asarray(data["label"]), num_classes
    )
    return Evaluation(
        error=errors / len(data["label"]),
        interval=wilson_interval(errors, len(data["label"])),
        errors=errors,
        total=len(data["label"]),
        confusion=np.asarray(confusion),
        prediction=prediction,
    )


def check_labels(labels: np.ndarray, num_classes: int) -> None:
    """Refuse labels outside ``range(num_classes)`` with a ValueError."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels out of range: they go from {labels.min()} to {labels.max()}, the network has "
            f"{num_classes} classes and expects 0 to {num_classes - 1}"
        )
