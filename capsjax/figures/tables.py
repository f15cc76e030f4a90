"""Tables as pictures: numbers on colours, and rows and columns of images."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import ArrayLike

from capsjax import checks
from capsjax.figures._style import BLUE, RED, SHARES, Figure, checked, checked_names

# From one sign to the other through white; both ends are as dark.
_SIGNED = LinearSegmentedColormap.from_list("signed", [RED, "#FFFFFF", BLUE])
_FRAME = 0.35


@checks.arguments(empty=True, nan=True)
def table(
    values: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    largest: float,
    label: str,
    texts: Sequence[Sequence[str]] | None = None,
    title: str = "",
) -> Figure:
    """Numbers in rows and columns on colours: from white to dark, or through white if signed.

    Args:
        values: ``[rows, columns]``; NaN leaves a place empty.
        rows: their names.
        columns: their names.
        largest: where the darkest colour begins; what is beyond has it too.
        label: of the colours.
        texts: what to write in place of the numbers.
        title: above the table.

    Returns:
        A figure of one axis and a colour bar.

    Raises:
        ValueError: arrays of other shapes, another number of names or texts, or a ``largest`` that
            is not positive.

    Example:
        >>> values, rows = [[0.98, 0.91], [0.97, 0.62]], ["capsnet", "cnn"]
        >>> figure = table(values, rows, ["MNIST", "affNIST"], largest=1, label="accuracy")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['0.98', '0.91', '0.97', '0.62']
    """
    shown = checked("values", values, "rows", "columns")
    row_names = checked_names("row", rows, shown.shape[0])
    column_names = checked_names("column", columns, shown.shape[1])
    if not largest > 0:
        raise ValueError(f"largest is {largest}, expected a positive number")
    if texts is not None and [len(row) for row in texts] != [shown.shape[1]] * len(shown):
        raise ValueError(f"texts are not {shown.shape[0]} rows of {shown.shape[1]}, as the values")
    signed = bool((shown[~np.isnan(shown)] < 0).any())
    width = 2.2 + 0.11 * max(map(len, row_names)) + 0.85 * len(column_names)
    figure = Figure(figsize=(width, 1.3 + 0.3 * len(row_names)), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(
        shown,
        cmap=_SIGNED if signed else SHARES,
        vmin=-largest if signed else 0,
        vmax=largest,
        aspect="auto",
    )
    for (row, column), value in np.ndenumerate(shown):
        if np.isnan(value):
            continue
        axis.text(
            column,
            row,
            texts[row][column] if texts is not None else f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if abs(value) > 0.6 * largest else "black",
        )
    axis.set_xticks(range(len(column_names)), column_names)
    axis.set_yticks(range(len(row_names)), row_names)
    axis.set_title(title, fontsize=10)
    figure.colorbar(picture, ax=axis, label=label)
    return figure


@checks.arguments(empty=True, nan=True)
def image_grid(
    images: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, title: str = ""
) -> Figure:
    """Grey images in named rows and columns.

    Args:
        images: ``[rows, columns, H, W]`` from 0 to 1.
        rows: their names.
        columns: their names.
        title: above all.

    Returns:
        A figure of one axis.

    Raises:
        ValueError: another shape, or another number of names.

    Example:
        >>> figure = image_grid(np.zeros((1, 2, 8, 8)), ["image"], ["before", "after"])
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['before', 'after']
    """
    shown = checked("images", images, "rows", "columns", "height", "width")
    row_names = checked_names("row", rows, shown.shape[0])
    column_names = checked_names("column", columns, shown.shape[1])
    # One picture, of images with a line between them: an axis each would take seconds to draw.
    framed = np.pad(shown, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=_FRAME)
    height, width = framed.shape[2:]
    whole = framed.swapaxes(1, 2).reshape(len(row_names) * height, -1)
    size = (0.3 + 0.09 * max(map(len, row_names)) + 0.55 * len(column_names), 0.55 * len(row_names))
    figure = Figure(figsize=(max(size[0], 3), size[1] + 0.6), layout="constrained")
    axis = figure.subplots()
    axis.imshow(whole, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_xticks(width * (np.arange(len(column_names)) + 0.5) - 0.5, column_names, fontsize=8)
    axis.set_yticks(height * (np.arange(len(row_names)) + 0.5) - 0.5, row_names, fontsize=8)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    figure.suptitle(title, fontsize=10)
    return figure
