"""Pictures of what a network draws of two digits in one image."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike

from capsjax import checks
from capsjax.figures._style import ORANGE, RED, SKY, Figure, checked, checked_names, draw_image

# As the paper's red and green, for all eyes.
_COLORS = (ORANGE, SKY)
_DIM = 0.35


@checks.arguments(empty=True, nan=True)
def separated(
    images: np.ndarray,
    reconstructions: ArrayLike,
    labels: Sequence[str],
    predictions: Sequence[str],
) -> Figure:
    """Each reconstruction in a colour of its own over the image, and by itself.

    Args:
        images: uint8 ``[N, H, W, 1]``.
        reconstructions: ``[N, 2, H, W, 1]`` from 0 to 1, of the classes that were named.
        labels: what is there, a text for each image.
        predictions: what was named; where it is another text the title is red.

    Returns:
        A figure of four rows of N axes: image, both colours over it, and each reconstruction.

    Raises:
        ValueError: arrays of other shapes, or another number of texts.

    Source: Sabour, Frosst and Hinton 2017, figure 5.

    Example:
        >>> images = np.zeros((1, 8, 8, 1), np.uint8)
        >>> figure = separated(images, np.zeros((1, 2, 8, 8, 1)), ["3 8"], ["3 8"])
        >>> [axis.get_ylabel() for axis in figure.axes]
        ['image', 'both', 'first', 'second']
    """
    shown = checked("images", images, "images", "height", "width", 1) / 255
    count, height, width, _ = shown.shape
    drawn = checked("reconstructions", reconstructions, count, 2, height, width, 1)
    truths, said = checked_names("image", labels, count), checked_names("image", predictions, count)
    colored = np.clip(drawn, 0, 1) * np.array([to_rgb(color) for color in _COLORS])[:, None, None]
    over = np.clip(_DIM * shown + colored.sum(1), 0, 1)
    figure = Figure(figsize=(1.05 * count + 0.5, 4.7), layout="constrained")
    axes = figure.subplots(4, count, squeeze=False)
    for column in range(count):
        rows = (shown[column], over[column], colored[column, 0], colored[column, 1])
        for axis, image in zip(axes[:, column], rows, strict=True):
            draw_image(axis, image)
        wrong = truths[column] != said[column]
        title = f"{truths[column]} as\n{said[column]}" if wrong else truths[column]
        axes[0, column].set_title(title, fontsize=8, color=RED if wrong else "black")
    for axis, name in zip(axes[:, 0], ("image", "both", "first", "second"), strict=True):
        axis.set_ylabel(name, fontsize=8)
    return figure
