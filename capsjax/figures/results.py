"""Pictures of results: errors of several networks, what they depend on, and calibration."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from capsjax import checks
from capsjax.analysis.statistics import Calibration
from capsjax.figures._style import (
    BLACK,
    BLUE,
    GREY,
    LINES,
    Figure,
    checked,
    checked_names,
    line_style,
    quieten,
)


@checks.arguments(empty=True, nan=True)
def errors(
    values: ArrayLike,
    intervals: ArrayLike,
    names: Sequence[str],
    *,
    references: Mapping[str, float] | None = None,
    label: str = "test error (%)",
) -> Figure:
    """Errors as dots with their intervals, one row each, beside published ones as lines.

    Args:
        values: ``[N]`` shares in [0, 1].
        intervals: ``[N, 2]`` lower and upper ends.
        names: of the rows.
        references: further shares by their names, drawn as vertical lines.
        label: of the axis.

    Returns:
        A figure of one axis, in percent.

    Raises:
        ValueError: arrays of other shapes, or another number of names.

    Example:
        >>> intervals, names = [[0.01, 0.03], [0.02, 0.04]], ["capsnet", "cnn"]
        >>> figure = errors([0.02, 0.03], intervals, names, references={"paper": 0.0025})
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['capsnet', 'cnn']
    """
    middle = 100 * checked("values", values, "N")
    ends = 100 * checked("intervals", intervals, len(middle), 2)
    rows = checked_names("row", names, len(middle))
    references = references or {}
    figure = Figure(figsize=(7, 1.3 + 0.32 * (len(rows) + len(references))), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(rows))
    spread = np.clip(np.stack([middle - ends[:, 0], ends[:, 1] - middle]), 0, None)
    axis.errorbar(middle, places, xerr=spread, fmt="o", color=BLUE, capsize=3)
    for number, (name, value) in enumerate(references.items()):
        style = LINES[number % len(LINES)]
        axis.axvline(100 * value, color=BLACK, linestyle=style, linewidth=1, label=name)
    axis.set_yticks(places, rows)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(left=0)
    axis.set_xlabel(label)
    if references:
        figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


@checks.arguments(empty=True, nan=True)
def curves(
    at: ArrayLike,
    series: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    spreads: Mapping[str, ArrayLike] | None = None,
    logarithmic: bool = False,
) -> Figure:
    """Named curves over one axis, each with a band where its spread is known.

    Args:
        at: ``[N]`` places on the horizontal axis.
        series: ``[N]`` values by name; NaN leaves a gap.
        xlabel: of the horizontal axis.
        ylabel: of the vertical one.
        spreads: ``[N, 2]`` lower and upper ends by name.
        logarithmic: both axes.

    Returns:
        A figure of one axis.

    Raises:
        ValueError: no series, or arrays of other shapes.

    Example:
        >>> found = {"capsnet": [0.05, 0.02, 0.01], "cnn": [0.06, 0.03, 0.02]}
        >>> figure = curves([1, 2, 3], found, xlabel="epoch", ylabel="error")
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['capsnet', 'cnn']
    """
    if not series:
        raise ValueError("series is empty, expected at least one curve")
    places = checked("at", at, "N")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for number, (name, values) in enumerate(series.items()):
        style = line_style(number)
        axis.plot(places, checked(name, values, len(places)), label=name, markersize=4, **style)
        if spreads and name in spreads:
            ends = checked(f"spreads of {name}", spreads[name], len(places), 2)
            axis.fill_between(places, ends[:, 0], ends[:, 1], color=style["color"], alpha=0.15)
    if logarithmic:
        axis.set(xscale="log", yscale="log")
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend(frameon=False)
    return figure


@checks.arguments(empty=True, nan=True)
def calibration(series: Mapping[str, Calibration], *, fewest: int = 1) -> Figure:
    """How much of what was said with each confidence is right: a reliability diagram.

    Args:
        series: by a network's name what ``analysis.statistics.expected_calibration_error`` gives.
        fewest: bins of fewer predictions are left out.

    Returns:
        A figure of two axes: the share that is right by mean confidence, on the diagonal for a
        network that is as right as it is sure; and how many predictions each bin has.

    Raises:
        ValueError: no series.

    Example:
        >>> from capsjax.analysis.statistics import expected_calibration_error
        >>> found = expected_calibration_error([0.9, 0.9, 0.3], [True, False, False], bins=2)
        >>> figure = calibration({"capsnet": found})
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['capsnet (calibration error 0.367)']
    """
    if not series:
        raise ValueError("series is empty, expected at least one network")
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    upper.axline((0, 0), (1, 1), color=GREY, linewidth=1)
    for number, (name, found) in enumerate(series.items()):
        for part in ("confidence", "accuracy"):
            checked(f"{name}'s {part}", getattr(found, part), len(found.counts))
        checked(f"{name}'s error", found.error)
        enough = found.counts >= max(1, fewest)
        style = line_style(number)
        said = f"{name} (calibration error {found.error:.3f})"
        upper.plot(found.confidence[enough], found.accuracy[enough], label=said, ms=4, **style)
        edges = np.linspace(0, 1, len(found.counts) + 1)
        lower.stairs(found.counts, edges, color=style["color"], ls=style["linestyle"])
    few = f" (bins of {fewest} and more)" if fewest > 1 else ""
    upper.set(ylabel=f"share that is right{few}", xlim=(0, 1), ylim=(0, 1.02))
    lower.set(xlabel="confidence: largest activation", ylabel="predictions", yscale="symlog")
    for axis in (upper, lower):
        quieten(axis)
    # Above: curves may be anywhere within.
    upper.legend(
        frameon=False,
        fontsize=8,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncols=min(2, len(series)),
    )
    return figure
