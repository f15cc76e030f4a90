"""Accuracy by what was done to a digit: the parameters of ``affine_mnist``, a factor at a time."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from capsjax import figures
from capsjax.analysis.statistics import wilson_interval

# Of one network by factor: "images" and "errors", a number for each bin.
Counts = Mapping[str, Mapping[str, list[int]]]


class Factor(NamedTuple):
    """One way in which digits differ.

    Attributes:
        of: its values ``[N]``, of parameters ``[N, 6]``.
        ends: of the bins.
        label: of an axis.
    """

    of: Callable[[np.ndarray], np.ndarray]
    ends: np.ndarray
    label: str


# By affine_mnist's ranges. Scales of height and width are drawn separately: their geometric mean
# says how large a digit is. How far one can be shifted depends on its size.
FACTORS: Mapping[str, Factor] = {
    "rotation": Factor(lambda p: p[:, 0], np.linspace(-20, 20, 9), "rotation (degrees)"),
    "shear": Factor(lambda p: p[:, 1], np.linspace(-0.2, 0.2, 9), "shear"),
    "scale": Factor(lambda p: np.sqrt(p[:, 2] * p[:, 3]), np.linspace(0.8, 1.2, 9), "scale"),
    "shift": Factor(
        lambda p: np.abs(p[:, 4:]).max(1), np.linspace(0, 16, 9), "larger of both shifts (pixels)"
    ),
}


def count(parameters: np.ndarray, wrong: np.ndarray) -> dict[str, dict[str, list[int]]]:
    """How many images are in each bin of each factor, and how many of them are wrong.

    Args:
        parameters: float ``[N, 6]``, in the order of ``affine_mnist.PARAMETERS``.
        wrong: bool ``[N]``.

    Returns:
        ``Counts``; what is beyond the outermost ends is in the outermost bins.
    """
    found = {}
    for name, factor in FACTORS.items():
        bins = np.searchsorted(factor.ends[1:-1], factor.of(parameters), side="right")
        found[name] = {
            "images": np.bincount(bins, minlength=len(factor.ends) - 1).tolist(),
            "errors": np.bincount(bins[wrong], minlength=len(factor.ends) - 1).tolist(),
        }
    return found


def accuracy(counts: Mapping[str, list[int]]) -> np.ndarray:
    """Of every bin in percent, then both ends of its Wilson interval: ``[bins, 3]``.

    NaN where there are no images.
    """
    rows = np.full((len(counts["images"]), 3), np.nan)
    for row, images, errors in zip(rows, counts["images"], counts["errors"], strict=True):
        if images:
            low, high = wilson_interval(errors, images)
            row[:] = 100 * (1 - np.array([errors / images, high, low]))
    return rows


def curves(networks: Mapping[str, Counts], *, ylabel: str) -> dict[str, Figure]:
    """A figure by factor: every network's accuracy over its bins.

    Args:
        networks: what was counted of each.
        ylabel: of the accuracies.
    """
    pictures: dict[str, Figure] = {}
    for name, factor in FACTORS.items():
        rows: dict[str, Any] = {each: accuracy(by[name]) for each, by in networks.items()}
        pictures[name] = figures.curves(
            (factor.ends[1:] + factor.ends[:-1]) / 2,
            {each: row[:, 0] for each, row in rows.items()},
            spreads={each: row[:, 1:] for each, row in rows.items()},
            xlabel=factor.label,
            ylabel=ylabel,
        )
    return pictures


def ends(counts: Counts, least: int = 50) -> str:
    """In words, by factor: the most and the least accurate bin of at least so many images.

    Args:
        counts: of one network.
        least: images of a bin that counts; with fewer, chance has the say.
    """
    told = []
    for name, factor in FACTORS.items():
        of = accuracy(counts[name])[:, 0]
        of[np.array(counts[name]["images"]) < least] = np.nan
        if np.isnan(of).all():
            continue
        best, worst = int(np.nanargmax(of)), int(np.nanargmin(of))
        told.append(
            f"{name} {of[best]:.1f} % ({factor.ends[best]:.3g} to {factor.ends[best + 1]:.3g}) to "
            f"{of[worst]:.1f} % ({factor.ends[worst]:.3g} to {factor.ends[worst + 1]:.3g})"
        )
    return ", ".join(told)
