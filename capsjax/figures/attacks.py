"""Pictures of images that were made to mislead."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from capsjax import checks
from capsjax.figures._style import RED, Figure, checked, checked_names, draw_image


@checks.arguments(empty=True, nan=True)
def adversarial(
    images: np.ndarray,
    changed: ArrayLike,
    before: Sequence[str],
    after: Sequence[str],
    *,
    epsilon: float,
) -> Figure:
    """Images, what was added to them, and what came out, each with what the network says of it.

    Args:
        images: uint8 ``[N, H, W, C]``.
        changed: ``[N, H, W, C]`` from 0 to 1.
        before: what is said of the images.
        after: what is said of the changed ones; where it is another, the title is red.
        epsilon: the largest change of a pixel; what was added is drawn from -epsilon (black) to
            epsilon (white).

    Returns:
        A figure of three rows of N axes.

    Raises:
        ValueError: arrays of other shapes, another number of texts, or an epsilon that is not
            positive.

    Example:
        >>> images = np.full((1, 8, 8, 1), 51, np.uint8)
        >>> figure = adversarial(images, images / 255 + 0.1, ["7"], ["9"], epsilon=0.1)
        >>> [axis.get_title() for axis in figure.axes]
        ['7', '', '9']
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon is {epsilon}, expected a positive number")
    shown = checked("images", images, "images", "height", "width", "channels") / 255
    moved = checked("changed", changed, *shown.shape)
    count = len(shown)
    said, then = checked_names("image", before, count), checked_names("image", after, count)
    added = np.clip((moved - shown) / (2 * epsilon) + 0.5, 0, 1)
    figure = Figure(figsize=(1.05 * count + 0.5, 3.7), layout="constrained")
    axes = figure.subplots(3, count, squeeze=False)
    for column in range(count):
        rows = (shown[column], added[column], moved[column])
        for axis, image in zip(axes[:, column], rows, strict=True):
            draw_image(axis, image)
        axes[0, column].set_title(said[column], fontsize=8)
        misled = said[column] != then[column]
        axes[2, column].set_title(then[column], fontsize=8, color=RED if misled else "black")
    for axis, name in zip(axes[:, 0], ("image", f"added, up to {epsilon:g}", "sum"), strict=True):
        axis.set_ylabel(name, fontsize=8)
    return figure
