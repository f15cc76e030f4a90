"""Pictures of a routing: its coefficients, its votes and parents in a plane.

Iterations are counted from 1, as the papers do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from capsjax import checks
from capsjax.figures._style import (
    GREY,
    SHARES,
    Figure,
    checked,
    checked_names,
    chosen,
    color_and_marker,
    known,
    line_style,
    quieten,
)

# Beyond so many children, lines between them would be all that one sees.
_MOST_SEPARATED = 80


@checks.arguments(empty=True, nan=True)
def coefficients(
    coefficients: ArrayLike,
    *,
    iterations: Sequence[int] | None = None,
    parents: Sequence[str] | None = None,
) -> Figure:
    """Coupling coefficients by iteration: parents by children, from 0 (white) to 1 (dark).

    The panels lie one under the other, so that a child stays in its column. Where an algorithm's
    coefficients are no shares, what is below 0 or above 1 is drawn as 0 or 1.

    Args:
        coefficients: float ``[iterations, parents, children]``, as in ``trace.coefficients``.
        iterations: which to show, from 1; None is at most five, the first and the last included.
        parents: names of the parents; None numbers them.

    Returns:
        A figure of one axis per iteration shown, and a colour bar.

    Raises:
        ValueError: another shape, an iteration that there is not, or a wrong number of names.

    Example:
        >>> shares = np.full((3, 2, 4), 0.5)  # of three iterations, 2 parents, 4 children
        >>> figure = coefficients(shares, iterations=[1, 3])
        >>> [axis.get_title(loc="left") for axis in figure.axes[:2]]
        ['iteration 1', 'iteration 3']
    """
    shares = checked("coefficients", coefficients, "iterations", "parents", "children")
    numbers = chosen(iterations, len(shares), most=5)
    named = parents is not None
    names = checked_names("parent", parents, shares.shape[1])
    rows, columns = shares.shape[1:]
    height = float(np.clip(0.28 * rows, 0.6, 3.0)) + 0.35
    width = float(np.clip(0.25 * columns, 3.0, 7.0)) + 1.8
    figure = Figure(figsize=(width, height * len(numbers) + 0.5), layout="constrained")
    axes = figure.subplots(len(numbers), 1, sharex=True, squeeze=False)[:, 0]
    for axis, number in zip(axes, numbers, strict=True):
        image = axis.imshow(
            shares[number - 1], cmap=SHARES, vmin=0, vmax=1, aspect="auto", interpolation="nearest"
        )
        axis.set_title(f"iteration {number}", fontsize=10, loc="left")
        if named:
            axis.set_yticks(range(rows), names)
        else:
            axis.set_ylabel("parent")
            axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=min(rows, 6)))
        if columns <= _MOST_SEPARATED:
            axis.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
            axis.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
            axis.grid(which="minor", color="#DDDDDD", lw=0.6)
            axis.tick_params(which="minor", length=0)
    axes[-1].set_xlabel("child")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=list(axes), label="coupling coefficient", aspect=12 * len(numbers))
    return figure


@checks.arguments(empty=True, nan=True)
def curves_by_iteration(
    curves: Mapping[str, ArrayLike],
    *,
    ylabel: str,
    title: str = "",
    log: bool = False,
) -> Figure:
    """One quantity of several routings by iteration: entropy, polarisation, agreement, change.

    Colour, dashes and marker all depend on a curve's place among the curves: figures of the same
    routings in the same order can be read side by side.

    Args:
        curves: a name and float ``[iterations]`` for each routing; their lengths may differ, and
            what is not finite leaves a gap.
        ylabel: the quantity, with its unit.
        title: of the figure.
        log: a logarithmic scale; values of 0 and below leave a gap.

    Returns:
        A figure of one axis, with its legend at the right.

    Raises:
        ValueError: no curve, or one of another shape.

    Example:
        >>> found = {"dynamic": [0.69, 0.52, 0.31], "em": [0.69, 0.44]}
        >>> figure = curves_by_iteration(found, ylabel="entropy (nats)")
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['dynamic', 'em']
    """
    if not curves:
        raise ValueError("curves are empty, expected a name and [iterations] for each routing")
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    for index, (name, values) in enumerate(curves.items()):
        heights = checked(f"curves[{name!r}]", values, "iterations")
        shown = np.isfinite(heights) & ((heights > 0) | (not log))
        axis.plot(
            np.arange(1, len(heights) + 1),
            np.where(shown, heights, np.nan),
            label=name,
            markersize=5.5,
            markerfacecolor="white",
            markeredgewidth=1.3,
            linewidth=1.6,
            **line_style(index),
        )
    axis.set(xlabel="routing iteration", ylabel=ylabel, title=title)
    axis.set_yscale("log" if log else "linear")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    quieten(axis)
    # Dashes need room to be told apart.
    figure.legend(loc="outside right upper", frameon=False, handlelength=3.5)
    return figure


@checks.arguments(empty=True, nan=True)
def routing_in_2d(
    votes: ArrayLike,
    poses: ArrayLike,
    coefficients: ArrayLike,
    *,
    iterations: Sequence[int] | None = None,
    parents: Sequence[str] | None = None,
) -> Figure:
    """Routing in a plane: votes grow with their coefficient while the parents' poses move.

    A panel per iteration, a colour and marker per parent. The marker of a vote grows and darkens
    with its coupling coefficient; a line from the origin to a star is a parent's pose, with a
    trail where it was before. The circle has radius 1, the length that no squashed pose reaches.

    Args:
        votes: float ``[parents, 2, children]``.
        poses: float ``[iterations, parents, 2]``, as in ``trace.poses``.
        coefficients: float ``[iterations, parents, children]``, as in ``trace.coefficients``.
        iterations: which to show, from 1; None is at most four, the first and the last included.
        parents: names of the parents; None numbers them.

    Returns:
        A figure of one axis per iteration shown.

    Raises:
        ValueError: another shape, an iteration that there is not, or a wrong number of names.

    Example:
        >>> votes = np.ones((3, 2, 4))  # for 3 parents, of two numbers, by 4 children
        >>> shares, poses = np.full((2, 3, 4), 1 / 3), np.full((2, 3, 2), 0.5)
        >>> figure = routing_in_2d(votes, poses, shares)
        >>> [axis.get_title() for axis in figure.axes]
        ['iteration 1', 'iteration 2']
    """
    points = known("votes", checked("votes", votes, "parents", 2, "children"))
    shares = checked("coefficients", coefficients, "iterations", points.shape[0], points.shape[2])
    known("coefficients", shares)
    tips = known("poses", checked("poses", poses, len(shares), points.shape[0], 2))
    numbers = chosen(iterations, len(shares), most=4)
    names = checked_names("parent", parents, len(points))
    reach = 1.08 * max(1.0, np.abs(points).max(), np.abs(tips).max())
    width = max(2.7 * len(numbers), 5.4)
    figure = Figure(figsize=(width, 3.3), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.05))
    axes = figure.subplots(1, len(numbers), squeeze=False)[0]
    for axis, number in zip(axes, numbers, strict=True):
        axis.add_patch(Circle((0, 0), 1, facecolor="#F7F7F7", edgecolor="#BBBBBB", lw=0.8))
        for parent in range(len(points)):
            _draw_votes(axis, parent, points[parent], shares[number - 1, parent])
        for parent in range(len(points)):
            _draw_pose(axis, parent, tips[:number, parent])
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
        axis.set_title(f"iteration {number}", fontsize=11)
        axis.spines[:].set_visible(False)
    _draw_legend(figure, names)
    return figure


def _draw_votes(axis: Any, parent: int, points: np.ndarray, shares: np.ndarray) -> None:
    color, marker = color_and_marker(parent)
    shares = np.clip(shares, 0, 1)
    axis.scatter(
        points[0],
        points[1],
        s=_area(shares),
        alpha=0.15 + 0.75 * shares,
        color=color,
        marker=marker,
        edgecolors="white",
        linewidths=0.5,
        zorder=2,
    )


def _draw_pose(axis: Any, parent: int, tips: np.ndarray) -> None:
    """The last of the tips [iterations so far, 2] as a star, the others as its trail."""
    color, _ = color_and_marker(parent)
    x, y = tips[-1]
    axis.plot([0, x], [0, y], color=color, lw=2, solid_capstyle="round", zorder=3)
    axis.plot(tips[:, 0], tips[:, 1], color=color, lw=1, ls=":", zorder=3)
    axis.plot(x, y, "*", color=color, ms=15, mec="white", mew=1.1, zorder=4)


def _area(share: Any) -> Any:
    """A marker's area in points squared, by coupling coefficient."""
    return 6 + 110 * share


def _draw_legend(figure: Figure, names: Sequence[str]) -> None:
    votes = [_key(*color_and_marker(i), 8, f"votes for {name}") for i, name in enumerate(names)]
    sizes = [
        _key(GREY, "o", _area(share) ** 0.5, label)
        for share, label in ((0.1, "coefficient 0.1"), (0.5, "0.5"), (1, "1"))
    ]
    handles = [*votes, _key(GREY, "*", 12, "pose"), *sizes]
    # An entry's width in inches, from that of a letter at this size of type.
    entry = 0.4 + 0.075 * max(len(str(handle.get_label())) for handle in handles)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, int(figure.get_figwidth() / entry)),
        fontsize=9,
        frameon=False,
        columnspacing=1.4,
        handletextpad=0.2,
    )


def _key(color: str, marker: str, size: float, label: str) -> Line2D:
    return Line2D([], [], ls="", marker=marker, color=color, ms=size, mec="white", label=label)
