"""Coupling coefficients as a picture from part to whole."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from numpy.typing import ArrayLike

from capsjax import checks
from capsjax.figures._style import COLORS, GREY, Figure, checked, checked_names, chosen, known


@checks.arguments(empty=True, nan=True)
def flow(
    coefficients: ArrayLike,
    *,
    iterations: Sequence[int] | None = None,
    parents: Sequence[str] | None = None,
    children: Sequence[str] | None = None,
) -> Figure:
    """Lines from every child to every parent, as thick and dark as their coupling, by iteration.

    Args:
        coefficients: float ``[iterations, parents, children]``, as in ``trace.coefficients``; of
            more than some 50 children choose those to be shown.
        iterations: which to show, from 1; None is at most four, the first and the last included.
        parents: names of the parents; None numbers them.
        children: names of the children; None leaves them without.

    Returns:
        A figure of one axis per iteration shown.

    Raises:
        ValueError: another shape, an iteration that there is not, or a wrong number of names.

    Example:
        >>> shares = np.full((3, 2, 4), 0.5)  # of three iterations
        >>> figure = flow(shares, parents=["face", "house"])
        >>> [axis.get_title() for axis in figure.axes]
        ['iteration 1', 'iteration 2', 'iteration 3']
    """
    shares = checked("coefficients", coefficients, "iterations", "parents", "children")
    known("coefficients", shares)
    numbers = chosen(iterations, len(shares), most=4)
    wholes = checked_names("parent", parents, shares.shape[1])
    parts = None if children is None else checked_names("child", children, shares.shape[2])
    height = float(np.clip(0.13 * shares.shape[2], 2.6, 6.0))
    figure = Figure(figsize=(2.3 * len(numbers) + 0.8, height + 0.5), layout="constrained")
    axes = figure.subplots(1, len(numbers), squeeze=False, sharey=True)[0]
    for axis, number in zip(axes, numbers, strict=True):
        draw_flow(axis, shares[number - 1], wholes, parts if axis is axes[0] else None)
        axis.set_title(f"iteration {number}", fontsize=10)
    return figure


def draw_flow(
    axis: Any, shares: np.ndarray, parents: Sequence[str], children: Sequence[str] | None
) -> None:
    """One panel of ``flow``.

    Args:
        axis: to draw on.
        shares: ``[parents, children]``.
        parents: their names.
        children: their names, or None.
    """
    count, parts = shares.shape
    low, high = _places(parts), _places(count)
    shares = np.clip(shares, 0, 1)
    for parent in range(count):
        color = COLORS[parent % len(COLORS)]
        lines = [[(0, low[child]), (1, high[parent])] for child in range(parts)]
        axis.add_collection(
            LineCollection(
                lines, colors=color, linewidths=0.2 + 3 * shares[parent], alpha=shares[parent]
            )
        )
        axis.plot(1, high[parent], "o", color=color, ms=7, clip_on=False)
        axis.text(1.06, high[parent], parents[parent], va="center", fontsize=8)
    axis.plot(np.zeros(parts), low, "o", color=GREY, ms=3, clip_on=False)
    if children is not None:
        for child, name in enumerate(children):
            axis.text(-0.05, low[child], name, va="center", ha="right", fontsize=6)
    axis.set(xlim=(-0.05, 1.25), ylim=(-0.03, 1.03))
    axis.axis("off")


def _places(count: int) -> np.ndarray:
    """From the top down, in the middle of equal parts."""
    return 1 - (np.arange(count) + 0.5) / count
