"""Pictures of what a network says as an image is turned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from capsjax import checks
from capsjax.figures._style import BLUE, GREY, Figure, checked, draw_image, line_style, quieten


@checks.arguments(empty=True, nan=True)
def by_angle(
    angles: ArrayLike,
    series: Mapping[str, ArrayLike],
    *,
    ylabel: str,
    images: np.ndarray | None = None,
) -> Figure:
    """One quantity of several networks by the angle of the image, with images above.

    Args:
        angles: ``[angles]`` degrees, rising.
        series: ``[angles]`` by a network's name.
        ylabel: the quantity, with its unit.
        images: uint8 ``[angles, H, W, C]``, what one image looks like at each angle; None draws
            none.

    Returns:
        A figure: one axis for the curves, and one for the images where there are any.

    Raises:
        ValueError: no series, or arrays of other shapes.

    Example:
        >>> said = {"capsnet": [0.4, 0.9, 0.5], "cnn": [0.2, 0.9, 0.3]}
        >>> figure = by_angle([-30, 0, 30], said, ylabel="confidence")
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['capsnet', 'cnn']
    """
    if not series:
        raise ValueError("series is empty, expected at least one network")
    at = checked("angles", angles, "angles")
    strip = images is not None
    figure = Figure(figsize=(7, 3.9 if strip else 3.3), layout="constrained")
    heights = {"height_ratios": [1, 5]} if strip else {}
    axes = figure.subplots(1 + strip, 1, squeeze=False, sharex=True, gridspec_kw=heights)[:, 0]
    axis = axes[-1]
    for number, (name, values) in enumerate(series.items()):
        axis.plot(at, checked(name, values, len(at)), label=name, ms=4, **line_style(number))
    if images is not None:
        shown = checked("images", images, len(at), "height", "width", "channels")
        _draw_strip(axes[0], at, shown)
    axis.set(xlabel="angle (degrees, counter-clockwise)", ylabel=ylabel)
    quieten(axis)
    axis.legend(frameon=False)
    return figure


def _draw_strip(axis: Any, at: np.ndarray, images: np.ndarray) -> None:
    """At most 13 of the images, each above its angle."""
    few = np.unique(np.linspace(0, len(at) - 1, min(13, len(at))).round().astype(int))
    step = (at[-1] - at[0]) / max(1, len(few) - 1) if len(at) > 1 else 1.0
    for index in few:
        place = (at[index] - 0.45 * step, 0, 0.9 * step, 1)
        inset = axis.inset_axes(place, transform=axis.transData)
        draw_image(inset, images[index] / 255)
        inset.axis("off")
    axis.set_ylim(0, 1)
    axis.axis("off")


@checks.arguments(empty=True, nan=True)
def equivariance(angles: ArrayLike, poses: ArrayLike, *, title: str = "") -> Figure:
    """Every dimension of a pose against the true angle: a line an image, and their mean.

    Args:
        angles: ``[angles]`` degrees, rising.
        poses: ``[angles, images, dim]`` of the true class's capsule.
        title: above all.

    Returns:
        A figure of an axis per dimension, all of one height. A dimension that is equivariant moves
        steadily with the angle; one that is flat does not know of it.

    Raises:
        ValueError: arrays of other shapes.

    Example:
        >>> angles, poses = np.array([-30, 0, 30]), np.zeros((3, 5, 2))  # of 5 images
        >>> figure = equivariance(angles, poses)
        >>> [axis.get_title() for axis in figure.axes]
        ['dimension 0', 'dimension 1']
    """
    at = checked("angles", angles, "angles")
    values = checked("poses", poses, len(at), "images", "dim")
    dims = values.shape[-1]
    columns = min(4, dims)
    rows = -(-dims // columns)
    figure = Figure(figsize=(1.9 * columns, 1.25 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for number, axis in enumerate(axes.ravel()):
        if number >= dims:
            axis.axis("off")
            continue
        axis.plot(at, values[:, :, number], color=GREY, lw=0.5, alpha=0.3)
        axis.plot(at, values[:, :, number].mean(1), color=BLUE, lw=2)
        axis.set_title(f"dimension {number}", fontsize=8, pad=2)
        axis.tick_params(labelsize=7)
        quieten(axis)
    figure.supxlabel("angle (degrees, counter-clockwise)", fontsize=9)
    figure.supylabel("pose", fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure
