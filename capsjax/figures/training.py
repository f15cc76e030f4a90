"""Pictures of a training run: its curves, and what the trained network makes of images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from capsjax import checks
from capsjax.figures._style import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    Figure,
    checked,
    checked_names,
    draw_image,
)


@checks.arguments(empty=True, nan=True)
def learning_curves(history: Sequence[dict[str, Any]]) -> Figure:
    """Training loss by step, and the error in training and validation.

    Args:
        history: objects of ``metrics.jsonl``: ``step``, ``split`` ("train" or "validation"), and
            ``loss``, ``classification_loss``, ``reconstruction_loss``, ``accuracy`` or
            ``error``.

    Returns:
        A figure of two axes.

    Raises:
        ValueError: no training step among them, or one without its numbers.

    Example:
        >>> losses = {"classification_loss": 0.4, "reconstruction_loss": 0.1}
        >>> history = [{"step": n, "split": "train", "accuracy": 0.5, **losses} for n in (1, 2)]
        >>> figure = learning_curves([*history, {"step": 2, "split": "validation", "error": 0.4}])
        >>> [axis.get_title() for axis in figure.axes]
        ['Loss on training batches', 'Error']
    """
    train = _entries(history, "train")
    validation = _entries(history, "validation")
    if not train:
        raise ValueError("history holds no entry with split 'train', expected at least one")
    steps = np.array([entry["step"] for entry in train])
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label, color in (
        ("classification_loss", "classification loss", BLUE),
        ("reconstruction_loss", "reconstruction loss", ORANGE),
    ):
        left.plot(steps, [entry[name] for entry in train], color=color, alpha=0.2, lw=0.8)
        left.plot(steps, _smooth([entry[name] for entry in train]), color=color, label=label)
    left.set(xlabel="step", ylabel="loss", yscale="log", title="Loss on training batches")
    left.legend()
    errors = 100 * (1 - np.array([entry["accuracy"] for entry in train]))
    right.plot(steps, _smooth(errors), color=BLUE, label="training batches (moving average)")
    if validation:
        right.plot(
            [entry["step"] for entry in validation],
            [100 * entry["error"] for entry in validation],
            "o",
            color=RED,
            label="validation images",
        )
    top = max([np.percentile(errors, 90), *(120 * entry["error"] for entry in validation), 5])
    right.set(xlabel="step", ylabel="error (%)", ylim=(0, top), title="Error")
    right.legend()
    return figure


# What is drawn of an entry.
_NUMBERS = {
    "train": ("step", "classification_loss", "reconstruction_loss", "accuracy"),
    "validation": ("step", "error"),
}


def _entries(history: Sequence[dict[str, Any]], split: str) -> list[dict[str, Any]]:
    found = [entry for entry in history if entry.get("split") == split]
    for name in _NUMBERS[split] if found else ():
        column = [entry.get(name, "nothing") for entry in found]
        checked(f"{name} of history's {split}", column, len(found))
    return found


def _smooth(values: Any) -> np.ndarray:
    """Mean over a window of a twentieth of the run, shortened at both ends."""
    array = np.asarray(values, float)
    half = max(1, len(array) // 40)
    sums = np.concatenate([[0.0], np.cumsum(array)])
    low = np.maximum(np.arange(len(array)) - half, 0)
    high = np.minimum(np.arange(len(array)) + half + 1, len(array))
    return (sums[high] - sums[low]) / (high - low)


@checks.arguments(empty=True, nan=True)
def reconstructions(
    images: np.ndarray,
    reconstructed: np.ndarray,
    labels: Sequence[str],
    predictions: Sequence[str],
) -> Figure:
    """Images in the upper row, their reconstructions below.

    Args:
        images: uint8 ``[N, H, W, C]`` from 0 to 255.
        reconstructed: float ``[N, H, W, C]`` from 0 to 1, or ``[N, k, H, W, C]``, k of each image,
            one below the other.
        labels: names of the true classes.
        predictions: names of the predicted classes; a wrong one is red.

    Returns:
        A figure of two rows of N axes, or of 1 + k.

    Example:
        >>> images = np.zeros((2, 8, 8, 1), np.uint8)
        >>> figure = reconstructions(images, images / 255, ["7", "2"], ["7", "1"])
        >>> [axis.get_title() for axis in figure.axes[:2]]
        ['7', '2 as 1']
    """
    shape = checked("images", images, "images", "height", "width", "channels").shape
    count = len(images)
    each = reconstructed[:, None] if reconstructed.ndim == 4 else reconstructed
    each = checked("reconstructed", each, count, "classes", *shape[1:])
    labels = checked_names("image", labels, count)
    predictions = checked_names("image", predictions, count)
    rows = 1 + each.shape[1]
    figure = Figure(figsize=(0.95 * count, 1.1 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, count, squeeze=False)
    for column in range(count):
        wrong = labels[column] != predictions[column]
        title = f"{labels[column]} as {predictions[column]}" if wrong else labels[column]
        draw_image(axes[0, column], images[column] / 255)
        for row in range(1, rows):
            draw_image(axes[row, column], each[column, row - 1])
        axes[0, column].set_title(title, fontsize=9, color=RED if wrong else "black")
    axes[0, 0].set_ylabel("image")
    for row in range(1, rows):
        axes[row, 0].set_ylabel("reconstruction")
    return figure


@checks.arguments(empty=True, nan=True)
def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    activations: np.ndarray,
    names: Sequence[str],
    *,
    most: int = 24,
) -> Figure:
    """The wrong predictions that the network was surest of, surest first.

    Args:
        images: uint8 ``[N, H, W, C]``.
        labels: integer ``[N]``, true classes, or ``[N, k]``, k of each image.
        activations: float ``[N, classes]``; the largest is the prediction, or the k largest are.
        names: of the classes.
        most: show at most so many.

    Returns:
        A figure; one that says so if there is no mistake.

    Example:
        >>> images = np.zeros((2, 8, 8, 1), np.uint8)
        >>> activations = np.array([[0.9, 0.1], [0.8, 0.3]])
        >>> figure = mistakes(images, np.array([0, 1]), activations, ["cat", "dog"])
        >>> print(figure.axes[0].get_title())
        dog as cat
        0.30, 0.80
    """
    checked("images", images, "images", "height", "width", "channels")
    activations = checked("activations", activations, len(images), len(names))
    labels = np.asarray(labels)
    if len(labels) != len(images) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels are {labels.dtype} {labels.shape}, expected integers of {len(images)} images"
        )
    if labels.min() < 0 or labels.max() >= len(names) or most < 1:
        raise ValueError(
            f"labels are {labels.min()} to {labels.max()} and most is {most}, expected 0 to "
            f"{len(names) - 1} and at least 1"
        )
    several = np.sort(labels.reshape(len(labels), -1))
    order = np.argsort(-activations, axis=1, kind="stable")
    predictions = np.sort(order[:, : several.shape[1]])
    wrong = np.flatnonzero((predictions != several).any(1))
    sureness = np.take_along_axis(activations, predictions, axis=1).mean(1)
    wrong = wrong[np.argsort(-sureness[wrong], kind="stable")][:most]
    columns = 8
    rows = max(1, -(-len(wrong) // columns))
    figure = Figure(figsize=(1.3 * columns, 1.75 * rows + 0.4), layout="constrained")
    figure.suptitle("Most confident mistakes: true class, predicted class, activations of both")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, index in zip(axes, wrong, strict=False):
        draw_image(axis, images[index] / 255)
        said = [[names[n] for n in which[index]] for which in (several, predictions)]
        # Of several classes in an image, their mean.
        both = [activations[index, which[index]].mean() for which in (several, predictions)]
        axis.set_title(
            f"{' '.join(said[0])} as {' '.join(said[1])}\n{both[0]:.2f}, {both[1]:.2f}", fontsize=9
        )
    if not len(wrong):
        axes[0].text(0, 0.5, "no mistakes", fontsize=12)
    return figure


@checks.arguments(empty=True, nan=True)
def confusion(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """Confusion matrix, with the diagonal left pale so that mistakes stand out.

    Args:
        matrix: int ``[classes, classes]``, true class by predicted class.
        names: of the classes.

    Returns:
        A figure of one axis.

    Raises:
        ValueError: a matrix that is not square, or has another side than there are names.

    Example:
        >>> figure = confusion(np.array([[9, 1], [0, 10]]), ["cat", "dog"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['9', '1', '10']
    """
    classes = len(names)
    if classes < 1:
        raise ValueError("there are no names, expected one for each class")
    checked("matrix", matrix, classes, classes)
    side = max(4.0, 0.45 * classes + 1.2)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    wrong = np.where(np.eye(classes, dtype=bool), 0, matrix)
    axis.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(1, wrong.max()))
    for row in range(classes):
        for column in range(classes):
            if matrix[row, column]:
                shade = "white" if wrong[row, column] > 0.6 * wrong.max() else "black"
                color = GREY if row == column else shade
                axis.text(
                    column, row, matrix[row, column], ha="center", va="center", fontsize=8,
                    color=color,
                )  # fmt: skip
    axis.set(
        xticks=range(classes),
        yticks=range(classes),
        xticklabels=names,
        yticklabels=names,
        xlabel="predicted class",
        ylabel="true class",
    )
    return figure
