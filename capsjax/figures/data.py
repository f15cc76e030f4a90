"""Pictures of data sets."""

import textwrap
from collections.abc import Iterator, Sequence

import numpy as np

from capsjax import checks
from capsjax.figures._style import Figure, checked, draw_image

_COLUMNS = 10
_LETTERS = 18  # that fit above an image


@checks.arguments(empty=True, nan=True)
def contact_sheet(images: np.ndarray, captions: Sequence[str], *, title: str = "") -> Figure:
    """Images in rows of ten, each under its caption.

    Args:
        images: uint8 ``[N, H, W, C]``; with two channels the pair stands side by side.
        captions: one for each, of one or more lines; long ones are broken.
        title: above all of them.

    Returns:
        A figure.

    Raises:
        ValueError: no images, or another number of captions.

    Example:
        >>> figure = contact_sheet(np.zeros((2, 8, 8, 1), np.uint8), ["cat", "dog"], title="pets")
        >>> [axis.get_title() for axis in figure.axes]
        ['cat', 'dog']
    """
    if len(images) == 0 or len(images) != len(captions):
        raise ValueError(
            f"there are {len(images)} images and {len(captions)} captions, expected as many of "
            "each, and at least one"
        )
    images = checked("images", images, "images", "height", "width", "channels")
    pair = images.shape[-1] == 2
    columns = min(_COLUMNS // (2 if pair else 1), len(images))
    rows = -(-len(images) // columns)
    captions = ["\n".join(_wrapped(caption, _LETTERS * (2 if pair else 1))) for caption in captions]
    lines = max(caption.count("\n") + 1 for caption in captions)
    width = 2.2 if pair else 1.1
    height = width / (2 if pair else 1) * images.shape[1] / images.shape[2] + 0.16 * lines + 0.1
    figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, image, caption in zip(axes, images, captions, strict=False):
        draw_image(axis, image / 255)
        axis.set_title(caption, fontsize=7, pad=2)
    return figure


def _wrapped(caption: str, letters: int) -> Iterator[str]:
    for line in caption.splitlines():
        yield from textwrap.wrap(line, letters)
