"""Pictures of what lies inside a network: maps, capsules where they look, capsules that sleep."""

import itertools
import math

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from capsjax import checks
from capsjax.figures._style import BLUE, ORANGE, RED, SKY, Figure, checked, draw_image, quieten
from capsjax.figures.tables import image_grid

_COLUMNS = 8
_DASHES = ("solid", "dashed", "dashdot", "dotted")
_WITHIN = 0.3  # pixels


@checks.arguments(empty=True, nan=True)
def perturbations(
    images: ArrayLike, offsets: ArrayLike, *, title: str = "", names: list[str] | None = None
) -> Figure:
    """What is drawn of a capsule when one of its dimensions is changed: a row a dimension.

    Args:
        images: ``[dim, steps, H, W, C]`` from 0 to 1, as ``inspection.perturbed`` gives them; of
            several channels the mean is shown.
        offsets: ``[steps]``, what is added.
        title: above all.
        names: of the dimensions; None numbers them.

    Returns:
        A figure of one axis.

    Raises:
        ValueError: arrays of other shapes, or another number of names.

    Source: Sabour, Frosst and Hinton 2017, figure 4.

    Example:
        >>> figure = perturbations(np.zeros((2, 3, 8, 8, 1)), [-0.25, 0, 0.25])
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['-0.25', '+0.00', '+0.25']
    """
    drawn = checked("images", images, "dim", "steps", "height", "width", "channels").mean(-1)
    steps = checked("offsets", offsets, drawn.shape[1])
    rows = [f"dimension {number}" for number in range(len(drawn))] if names is None else names
    return image_grid(drawn, rows, [f"{step:+.2f}" for step in steps], title=title)


@checks.arguments(empty=True, nan=True)
def feature_maps(maps: ArrayLike, *, most: int = 32, title: str = "") -> Figure:
    """Feature maps in rows of eight, each from 0 (black) to its own largest value (white).

    Args:
        maps: ``[H, W, C]``; what is below 0 is black.
        most: show the first so many.
        title: above all.

    Returns:
        A figure of one axis; a map that is 0 everywhere stays black.

    Raises:
        ValueError: another shape.

    Example:
        >>> figure = feature_maps(np.ones((4, 4, 10)))  # two rows, of eight and of two
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['from 0', 'from 8']
    """
    if most < 1:
        raise ValueError(f"most is {most}, expected at least 1")
    shown = np.clip(checked("maps", maps, "height", "width", "channels"), 0, None)[..., :most]
    shown = np.moveaxis(shown, -1, 0)
    largest = shown.max((1, 2), keepdims=True)
    shown = shown / np.where(largest > 0, largest, 1)
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    filled = np.zeros((rows * columns, *shown.shape[1:]))
    filled[: len(shown)] = shown
    return image_grid(
        filled.reshape(rows, columns, *shown.shape[1:]),
        [f"from {columns * row}" for row in range(rows)],
        [f"+{column}" for column in range(columns)],
        title=title,
    )


@checks.arguments(empty=True, nan=True)
def primary_capsules(
    image: np.ndarray, fields: ArrayLike, activations: ArrayLike, *, boxes: int = 4
) -> Figure:
    """Where capsules look and which are active: dots by place, and the fields of the most active.

    Args:
        image: uint8 ``[H, W, C]``.
        fields: ``[rows, columns, 4]``, as ``inspection.fields`` gives them.
        activations: ``[rows, columns, types]`` in [0, 1].
        boxes: so many of the most active capsules have their fields drawn.

    Returns:
        A figure of two axes: at each place a dot that grows with the most active type's activation;
        fields with their capsule's type and activation.

    Raises:
        ValueError: arrays of other shapes.

    Example:
        >>> image, fields = np.zeros((19, 19, 1), np.uint8), [[[0, 0, 17, 17], [0, 2, 17, 19]]]
        >>> activations = [[[0.2, 0.9], [0.4, 0.1]]]  # of two types at each of two places
        >>> figure = primary_capsules(image, fields, activations, boxes=2)
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['type 1: 0.90', 'type 0: 0.40']
    """
    active = checked("activations", activations, "rows", "columns", "types")
    areas = checked("fields", fields, *active.shape[:2], 4)
    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis in (left, right):
        draw_image(axis, image / 255)
    # Pixels' centres are at whole numbers; a field ends before its last number.
    y = (areas[..., 0] + areas[..., 2] - 1) / 2
    x = (areas[..., 1] + areas[..., 3] - 1) / 2
    strongest = active.max(-1)
    left.scatter(
        x.ravel(),
        y.ravel(),
        s=4 + 110 * np.clip(strongest.ravel(), 0, 1),
        color=ORANGE,
        edgecolors="black",
        linewidths=0.5,
        alpha=0.85,
    )
    left.set_title("at each place the most active capsule", fontsize=9)
    order = np.argsort(-active, axis=None, kind="stable")[:boxes]
    styles = zip(
        order, itertools.cycle((ORANGE, SKY, RED, BLUE)), itertools.cycle(_DASHES), strict=False
    )
    for number, (flat, color, dashes) in enumerate(styles):
        row, column, kind = np.unravel_index(flat, active.shape)
        top, start, bottom, end = areas[row, column]
        # Capsules of one place have one field: each lies a little within the one before.
        within = 0.5 - _WITHIN * number
        right.add_patch(
            Rectangle(
                (start - within, top - within),
                end - start - 1 + 2 * within,
                bottom - top - 1 + 2 * within,
                fill=False,
                ec=color,
                lw=2,
                ls=dashes,
                label=f"type {kind}: {active[row, column, kind]:.2f}",
            )
        )
    right.set_title("most active", fontsize=9)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


@checks.arguments(empty=True, nan=True)
def dead_capsules(
    activations: ArrayLike, *, threshold: float = 0.01, title: str = "", name: str = "capsule"
) -> Figure:
    """How active every capsule is on average, most active first, and how many are dead.

    Args:
        activations: ``[images, capsules]`` in [0, 1].
        threshold: a capsule whose mean is below it is dead.
        title: above the count.
        name: of one capsule, on the axis.

    Returns:
        A figure of one axis, logarithmic upwards.

    Raises:
        ValueError: another shape.

    Source: Mitterreiter, Koch, Giesen and Laue 2023, section 4 (the threshold is ours).

    Example:
        >>> figure = dead_capsules([[0.9, 0.0, 0.5], [0.7, 0.001, 0.4]], title="hidden")
        >>> figure.axes[0].get_title()
        'hidden: 1 of 3 dead'
    """
    means = np.sort(checked("activations", activations, "images", "capsules").mean(0))[::-1]
    dead = int((means < threshold).sum())
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axis = figure.subplots()
    numbers = np.arange(1, len(means) + 1)
    alive = means >= threshold
    floor = min(threshold / 10, max(1e-6, float(means[means > 0].min(initial=threshold))))
    shown = np.maximum(means, floor)
    for which, color, marker, said in (
        (alive, BLUE, "o", "alive"),
        (~alive, RED, "x", "dead"),
    ):
        if which.any():
            axis.plot(numbers[which], shown[which], marker, color=color, ms=4, label=said)
    axis.axhline(threshold, color="black", lw=0.8, ls="--", label=f"threshold {threshold:g}")
    axis.set(
        yscale="log",
        xlabel=f"{name}, most active first",
        ylabel=f"mean activation over {len(np.asarray(activations)):,} images",
    )
    counted = f"{dead:,} of {len(means):,} dead"
    axis.set_title(f"{title}: {counted}" if title else counted, fontsize=10)
    quieten(axis)
    axis.legend(frameon=False)
    return figure
