"""Predictions of a network in batches, and what they say about it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from capsjax import checks
from capsjax.analysis.statistics import wilson_interval
from capsjax.data import Arrays, augment, check_arrays, recipes
from capsjax.training import parallel
from capsjax.training.metrics import confusion_matrix
from capsjax.training.step import split

BATCH_SIZE = 100


class Prediction(NamedTuple):
    """What a network says of images.

    Attributes:
        labels: int32 ``[N]``, the class of the most active capsule; ``[N, k]`` where k classes were
            asked for, the most active first.
        activations: float32 ``[N, classes]``, the class capsules' activations.
        reconstructions: float32 ``[N, H, W, C]``, or None if not asked for or without a decoder;
            ``[N, k, H, W, C]`` of k classes, in the order of the labels.
    """

    labels: np.ndarray
    activations: np.ndarray
    reconstructions: np.ndarray | None


@dataclass(frozen=True)
class Evaluation:
    """Error of a network on a data set.

    Attributes:
        error: share of wrong predictions. Where every image shows k classes a prediction is right
            if the k most active are these.
        interval: its 95 % Wilson interval.
        errors: number of wrong predictions.
        total: number of examples.
        shown: int ``[classes]``, how many images show each class.
        missed: int ``[classes]``, in how many of them it was not predicted.
        confusion: int ``[classes, classes]``, true class by predicted class; None where an image
            shows several.
        prediction: what was predicted.
    """

    error: float
    interval: tuple[float, float]
    errors: int
    total: int
    shown: np.ndarray
    missed: np.ndarray
    confusion: np.ndarray | None
    prediction: Prediction

    @property
    def class_errors(self) -> list[float | None]:
        """Error of each class; None where it has no examples."""
        pairs = zip(self.missed, self.shown, strict=True)
        return [float(missed / shown) if shown else None for missed, shown in pairs]

    @property
    def digit_error(self) -> float:
        """Share of all labels, k of each image, that were not predicted."""
        return float(self.missed.sum() / self.shown.sum())


Precision = Literal["default", "high", "highest"]


@checks.arguments(empty=True)
def predict(
    network: nnx.Module,
    images: np.ndarray,
    *,
    classes_per_image: int = 1,
    reconstruct: bool = False,
    precision: Precision = "default",
    recipe: str | None = None,
    mesh: Mesh | None = None,
) -> Prediction:
    """Classify images.

    Args:
        network: takes images ``[batch, H, W, C]`` in [0, 1], or what the recipe makes of them;
            returns an ``Output``.
        images: uint8 ``[N, H, W, C]``, from 0 to 255.
        classes_per_image: how many classes to name.
        reconstruct: also return the reconstructions, one for each class named.
        precision: of matrix products, as in the training config.
        recipe: as in the training config; its form for testing is used.
        mesh: this host's devices that share the work; None is one.

    Returns:
        Labels, activations, reconstructions.

    Raises:
        ValueError: images of another dtype or shape than the network or the recipe takes, or more
            classes to name than there are.

    Example:
        >>> from capsjax import data, load_pretrained
        >>> network = load_pretrained("efficient_capsnet_mnist").model
        >>> found = predict(network, data.load("mnist", "test")["image"][:5])
        >>> found.labels.tolist(), found.activations.shape
        ([7, 2, 1, 0, 4], (5, 10))
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"images are {images.dtype} {images.shape}, expected uint8 [N, height, width, channels]"
            " from 0 to 255, N at least 1"
        )
    height, width, channels = images.shape[1:]
    if recipe is not None:
        recipes.shape_after(recipe, (height, width, channels))
    longest = classes_per_image if reconstruct else 0
    with jax.default_matmul_precision(precision):
        forward = _make_forward(network, longest, recipe, mesh)
        parts = [
            forward(images[start : start + BATCH_SIZE])
            for start in range(0, len(images), BATCH_SIZE)
        ]
    activations = np.concatenate([activations for activations, _ in parts])
    reconstructions = (
        None if parts[0][1] is None else np.concatenate([r for _, r in parts if r is not None])
    )
    return Prediction(_labels(activations, classes_per_image), activations, reconstructions)


def _labels(activations: np.ndarray, count: int) -> np.ndarray:
    classes = activations.shape[1]
    if not 1 <= count <= classes:
        raise ValueError(
            f"classes_per_image is {count}, expected 1 to {classes}, the network's classes"
        )
    order = np.argsort(-activations, axis=1, kind="stable").astype(np.int32)
    return order[:, 0] if count == 1 else order[:, :count]


def _make_forward(
    network: nnx.Module, longest: int, recipe: str | None, mesh: Mesh | None
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]:
    """A function from at most ``BATCH_SIZE`` uint8 images to activations and reconstructions.

    A short batch is filled up with zeros, so that everything runs in one compiled shape, which the
    devices share evenly.
    """
    graph, params, rest = split(network)
    prepare = prepare_with(recipe)
    rows = BATCH_SIZE
    if mesh is not None:
        params, rest = parallel.replicate((params, rest), mesh)
        rows = -(-BATCH_SIZE // mesh.size) * mesh.size
    run = partial(_run, graph, longest, prepare, mesh, params, rest)

    def forward(images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        count = len(images)
        filled = np.zeros((rows, *images.shape[1:]), np.uint8)
        filled[:count] = images
        activations, reconstructions = run(filled)
        return (
            np.asarray(activations)[:count],
            None if reconstructions is None else np.asarray(reconstructions)[:count],
        )

    return forward


@checks.arguments(empty=True)
def prepare_with(recipe: str | None) -> Callable[[Array], Array]:
    """What a network that was trained with a recipe, or without, is shown of an image in testing.

    Args:
        recipe: its name; None is none.

    Returns:
        From a uint8 image ``[H, W, C]`` to a float one.

    Raises:
        ValueError: no such recipe.
    """
    return augment.to_unit_interval if recipe is None else recipes.find(recipe).test


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(
    graph: Any,
    longest: int,
    prepare: Callable[[Array], Array],
    mesh: Mesh | None,
    params: Any,
    rest: Any,
    images: Array,
) -> tuple[Array, Array | None]:
    def forward(state: Any, images: Array) -> tuple[Array, Array | None]:
        network: Any = nnx.merge(graph, *state, copy=True)
        if hasattr(network, "eval"):
            network.eval()
        options = {"longest": longest} if longest > 1 else {}
        output = network(jax.vmap(prepare)(images), **options)
        return output.activations, output.reconstruction if longest else None

    return parallel.by_example(forward, mesh)((params, rest), images)


@checks.arguments(empty=True)
def evaluate(
    network: nnx.Module,
    data: Arrays,
    *,
    reconstruct: bool = False,
    precision: Precision = "default",
    recipe: str | None = None,
    mesh: Mesh | None = None,
) -> Evaluation:
    """Error of a network on labelled images.

    Args:
        network: as for ``predict``.
        data: ``image`` uint8 ``[N, H, W, C]`` and ``label`` integer ``[N]``, or ``[N, k]`` where
            every image shows k classes.
        reconstruct: also keep the reconstructions.
        precision: of matrix products, as in the training config.
        recipe: as for ``predict``.
        mesh: as for ``predict``.

    Returns:
        The error with its interval, the confusion matrix, the predictions.

    Raises:
        ValueError: malformed data, or labels that the network has no class for.

    Example:
        >>> from capsjax import data, load_pretrained
        >>> network = load_pretrained("efficient_capsnet_mnist").model
        >>> digits = {key: values[:5] for key, values in data.load("mnist", "test").items()}
        >>> found = evaluate(network, digits)
        >>> found.errors, found.total, [round(end, 3) for end in found.interval]
        (0, 5, [0.0, 0.434])
    """
    data = check_arrays(data, where="data", several=True)
    labels = data["label"]
    prediction = predict(
        network,
        data["image"],
        classes_per_image=1 if labels.ndim == 1 else labels.shape[1],
        reconstruct=reconstruct,
        precision=precision,
        recipe=recipe,
        mesh=mesh,
    )
    num_classes = prediction.activations.shape[1]
    check_labels(labels, num_classes)
    rows = len(labels)
    said = prediction.labels.reshape(rows, 1, -1)
    missed = (labels.reshape(rows, -1, 1) != said).all(2)
    errors = int(missed.any(1).sum())
    confusion = (
        np.asarray(
            confusion_matrix(jnp.asarray(prediction.labels), jnp.asarray(labels), num_classes)
        )
        if labels.ndim == 1
        else None
    )
    return Evaluation(
        error=errors / rows,
        interval=wilson_interval(errors, rows),
        errors=errors,
        total=rows,
        shown=np.bincount(labels.ravel(), minlength=num_classes),
        missed=np.bincount(labels.ravel()[missed.ravel()], minlength=num_classes),
        confusion=confusion,
        prediction=prediction,
    )


def check_labels(labels: np.ndarray, num_classes: int) -> None:
    """Refuse labels outside ``range(num_classes)`` with a ValueError."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels out of range: they go from {labels.min()} to {labels.max()}, the network has "
            f"{num_classes} classes and expects 0 to {num_classes - 1}"
        )
