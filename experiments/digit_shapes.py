"""What a picture of a digit looks like, in numbers: thickness, width, height, skew, shift.

From moments and edges of grey images, without a threshold between digit and paper but that what is
fainter than ``FAINT`` is paper.
"""

from collections.abc import Callable

import numpy as np

PROPERTIES = ("thickness", "width", "height", "skew", "shift_x", "shift_y")
# A decoder leaves a veil on the paper, which would weigh in the moments by its distance.
FAINT = 0.1


def shapes(images: np.ndarray) -> np.ndarray:
    """Properties of digits.

    Args:
        images: float ``[N, H, W]`` from 0 to 1, bright digits on dark paper.

    Returns:
        float64 ``[N, 6]`` in the order of ``PROPERTIES``; NaN where there is no digit. Thickness of
        the strokes in pixels: twice the ink over the length of its edge, which is the sum of the
        gradient's lengths. Width and height: standard deviation of the ink across and down, in
        pixels, the width with the skew taken out. Skew: pixels to the right for every pixel down.
        Shift: pixels of the ink's centre to the right, and down.
    """
    ink = np.where(images < FAINT, 0, images).astype(float)
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in ink.shape[1:])
    down, across = ink.sum(2), ink.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mass = down.sum(1)
        y, x = down @ rows / mass, across @ columns / mass
        yy = down @ rows**2 / mass - y**2
        xx = across @ columns**2 / mass - x**2
        xy = np.einsum("nhw,h,w->n", ink, rows, columns, optimize=True) / mass - x * y
        skew = xy / yy
        width = np.sqrt(np.maximum(xx - skew * xy, 0))
        thickness = 2 * mass / _edge(ink)
    return np.stack([thickness, width, np.sqrt(yy), skew, x, y], axis=1)


def _edge(ink: np.ndarray) -> np.ndarray:
    padded = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
    down = np.diff(padded, axis=1)[:, :, 1:]
    across = np.diff(padded, axis=2)[:, 1:]
    return np.sqrt(down**2 + across**2).sum((1, 2))


def spread(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How much each property varies between digits of the same class.

    Args:
        values: ``[N, 6]`` of ``shapes``.
        labels: ``[N]``.

    Returns:
        ``[6]`` standard deviations about the means of the classes.
    """
    centred = values.astype(float)
    for label in np.unique(labels):
        centred[labels == label] -= np.nanmean(values[labels == label], axis=0)
    return np.sqrt(np.nanmean(centred**2, axis=0))


def effects(
    decode: Callable[[np.ndarray, np.ndarray], np.ndarray],
    poses: np.ndarray,
    labels: np.ndarray,
    offsets: np.ndarray,
    directions: np.ndarray,
    *,
    at_once: int = 25,
) -> np.ndarray:
    """By how much each direction of a capsule's pose changes each property of the decoded digit.

    Args:
        decode: from poses ``[M, dim]`` and labels ``[M]`` to images ``[M, H, W]``.
        poses: ``[N, dim]``, the class capsules of N digits.
        labels: ``[N]``, their classes.
        offsets: ``[K]`` steps along a direction, evenly about 0.
        directions: ``[D, dim]``; the identity takes the dimensions one by one.
        at_once: so many digits' pictures exist at a time.

    Returns:
        ``[N, D, 6]``: the slope of each property along each direction, times the length from the
        first offset to the last; NaN where a digit vanished.
    """
    steps = offsets[:, None] * directions[:, None, :]
    slope = offsets / (offsets**2).sum() * (offsets[-1] - offsets[0])
    found = []
    for start in range(0, len(poses), at_once):
        here = poses[start : start + at_once]
        moved = here[:, None, None, :] + steps[None]
        shape = moved.shape[:3]
        flat = moved.reshape(-1, moved.shape[-1])
        images = decode(flat, np.repeat(labels[start : start + at_once], shape[1] * shape[2]))
        found.append(np.einsum("ndkp,k->ndp", shapes(images).reshape(*shape, -1), slope))
    return np.concatenate(found)


def by_class(values: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Means of every class: ``[classes, ...]``; NaN where there is no image of it."""
    found = np.full((classes, *values.shape[1:]), np.nan)
    for label in np.unique(labels):
        here = values[labels == label]
        there = ~np.isnan(here)
        count = there.sum(0)
        sums = np.where(there, here, 0).sum(0)
        found[label] = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    return found


def names(effects: np.ndarray, threshold: float) -> list[list[str]]:
    """The strongest property of every dimension of every class, or "none".

    Args:
        effects: ``[classes, dims, 6]`` in units of the properties' spreads.
        threshold: below it a dimension has no name.

    Returns:
        For each class a name for each dimension.
    """
    size = np.nan_to_num(np.abs(effects))
    best = size.argmax(-1)
    return [
        [
            PROPERTIES[which] if row[dim, which] >= threshold else "none"
            for dim, which in enumerate(chosen)
        ]
        for row, chosen in zip(size, best, strict=True)
    ]


def purity(effects: np.ndarray) -> float:
    """Share of the strongest property in a direction's effects on all, on average.

    1 if every direction changes one property alone; 1/6 if it changes all alike.
    """
    size = np.nan_to_num(np.abs(effects)).reshape(-1, effects.shape[-1])
    total = size.sum(1)
    return float((size.max(1)[total > 0] / total[total > 0]).mean()) if total.any() else 0.0
