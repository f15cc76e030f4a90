r"""What poses know of a transformation, and what a transformation does to them.

NumPy and float64, called once on what a trained network says of images whose factors are known.
Features are one vector an image, ``[N, D]``: a class capsule's pose, all poses flattened, the
hidden layer of a network without capsules, activations.

Three questions, each answered by one number that no scale of the features changes:

- invariance error: how far does a transformation move the features, against how far apart those of
  different images are? 0 is invariant; at 1 an image's own features are no nearer than another's.
- equivariance error: how much of the features after a transformation does an affine map of those
  before it leave unexplained? 0 is equivariant by a linear map; 1 is no better than the mean.
- linear probe: how much of the true factor does an affine map of the features explain (R2)?

The maps are fitted on one half of the images and judged on the other. They are ridge regressions
whose strength leave-one-out chooses within the first half, so that wide features are neither
punished for their width nor overfitted. ``groups`` asks for a map of each class by itself: what a
dimension of a class capsule means is the class's own.

Source: Lenc and Vedaldi 2015, "Understanding image representations by measuring their equivariance
and equivalence", section 2 (an affine map of the features, learned, for each transformation);
Lenssen, Fey and Libuschewski 2018, "Group equivariant capsule networks" (equivariant poses,
invariant activations), where the map is known by construction, as it is not in other networks. The
spread as the unit of error is ours.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from capsjax import checks
from capsjax.analysis import ridge


@checks.arguments
def invariance_error(
    before: ArrayLike, after: ArrayLike, *, groups: ArrayLike | None = None
) -> float:
    r"""How far a transformation moves features, relative to the distance of different images.

    .. math:: E_i |a_i - b_i|^2 \;/\; E_{i \ne j} |a_i - b_j|^2

    where b are the features before and a those after. It may exceed 1.

    Args:
        before: float ``[N, D]``, one vector an image.
        after: float ``[N, D]``, of the same images transformed, in the same order.
        groups: integer ``[N]``, such as the class: only images of one group are compared. None is
            one group.

    Returns:
        At least 0.

    Raises:
        ValueError: other shapes, a group of fewer than two images, a value that is not finite, or
            features that are the same for all images of every group.

    Example:
        >>> before = np.array([[0.0], [1.0], [2.0]])
        >>> invariance_error(before, before), round(invariance_error(before, before + 1), 3)
        (0.0, 0.333)
    """
    first, second = _matrix("before", before), _matrix("after", after)
    if first.shape != second.shape:
        raise ValueError(
            f"before has shape {first.shape} and after {second.shape}, expected the same [N, D]"
        )
    labels = _labels(groups, len(first))
    moved = between = 0.0
    for group in np.unique(labels):
        b, a = first[labels == group], second[labels == group]
        if len(b) < 2:
            raise ValueError(f"group {group} has {len(b)} image, expected at least 2 to compare")
        own = ((a - b) ** 2).sum()
        centre = (a.mean(0) + b.mean(0)) / 2
        a, b = a - centre, b - centre
        # All pairs at once, less those of an image with itself.
        pairs = len(b) * ((a**2).sum() + (b**2).sum()) - 2 * a.sum(0) @ b.sum(0)
        moved += own
        between += (pairs - own) / (len(b) - 1)
    if not between > 0:
        raise ValueError("the features are the same for all images: they have no spread")
    return float(moved / between)


@checks.arguments
def equivariance_error(
    before: ArrayLike,
    after: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    fit: ArrayLike | None = None,
) -> float:
    r"""What an affine map of the features before a transformation leaves unexplained after it.

    .. math:: \min_{M, m} \; E |a - M b - m|^2 \;/\; E |a - E a|^2

    with M and m from one half of the images, the means over the other. It exceeds 1 where the map
    does worse than the mean.

    Args:
        before: float ``[N, D]``, one vector an image.
        after: float ``[N, E]``, of the same images after one and the same transformation.
        groups: integer ``[N]``, such as the class; each has a map and a mean of its own. None is
            one group.
        fit: bool ``[N]``, which images the maps are fitted on; None draws ``halves``. Give it where
            images belong together, lest near copies be in both halves.

    Returns:
        At least 0.

    Raises:
        ValueError: other shapes, a value that is not finite, a group with fewer than two images in
            one of the halves, or features that do not vary after the transformation.

    Source: Lenc and Vedaldi 2015, section 2 and 3.1.

    Example:
        >>> before = np.random.default_rng(0).normal(size=(100, 2))
        >>> turned = before @ np.array([[0.0, 1.0], [-1.0, 0.0]])
        >>> equivariance_error(before, turned) < 1e-9, equivariance_error(before, before**2) > 0.9
        (True, True)
    """
    return _unexplained(before, {"after": after}, groups, fit)["after"]


@checks.arguments
def linear_probes(
    features: ArrayLike,
    factors: Mapping[str, ArrayLike],
    *,
    groups: ArrayLike | None = None,
    fit: ArrayLike | None = None,
) -> dict[str, float]:
    r"""How well affine maps of the features tell the true factors: R2 on images not fitted on.

    .. math:: 1 - E |y - W x - w|^2 \;/\; E |y - E y|^2

    Several columns of a factor are taken together, so that one which hardly varies counts little.

    Args:
        features: float ``[N, D]``, one vector an image.
        factors: by name ``[N]`` or ``[N, K]``; ``circular`` makes one of angles, and categories
            come as 0 and 1 in as many columns.
        groups: as for ``equivariance_error``.
        fit: as for ``equivariance_error``.

    Returns:
        At most 1 for each factor; 0 is the mean's, and it is negative where a map does worse.

    Raises:
        ValueError: as ``equivariance_error``, a factor that does not vary, or none at all.

    Source: Alain and Bengio 2016, "Understanding intermediate layers using linear classifier
    probes", here with regression.

    Example:
        >>> angle = np.arange(0, 360, 5)
        >>> poses = circular(angle) @ np.array([[2.0, 1.0], [0.0, 1.0]])
        >>> found = linear_probes(poses, {"azimuth": circular(angle), "other": angle % 7})
        >>> round(found["azimuth"], 4), found["other"] < 0.2
        (1.0, True)
    """
    if not factors:
        raise ValueError("factors is empty, expected at least one factor by its name")
    errors = _unexplained(features, factors, groups, fit)
    return {name: 1 - error for name, error in errors.items()}


@checks.arguments
def circular(degrees: ArrayLike) -> Float[np.ndarray, "N 2"]:
    """Sine and cosine of angles, in which 359 degrees are next to 0.

    Args:
        degrees: ``[N]``.

    Returns:
        float64 ``[N, 2]``.

    Raises:
        ValueError: one is infinite.

    Example:
        >>> circular([0, 90]).round(6).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    angles = np.deg2rad(checks.floats("degrees", degrees))
    if np.isinf(angles).any():
        raise ValueError("degrees hold one that is infinite, expected finite angles")
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1)


@checks.arguments
def halves(
    count: int, *, groups: ArrayLike | None = None, seed: int = 0
) -> Bool[np.ndarray, " count"]:
    """Half of the images, drawn at random, of each group by itself.

    Args:
        count: of images.
        groups: integer ``[count]``; None is one group.
        seed: of the draw.

    Returns:
        bool ``[count]``, true for half of each group; of an odd group the smaller half.

    Raises:
        ValueError: another number of groups.

    Example:
        >>> chosen = halves(6, groups=[0, 0, 1, 1, 1, 1])
        >>> int(chosen[:2].sum()), int(chosen[2:].sum())
        (1, 2)
    """
    checks.sizes(count=count, most=2**30)
    checks.seed(seed)
    labels = _labels(groups, count)
    random = np.random.default_rng(seed)
    chosen = np.zeros(count, bool)
    for group in np.unique(labels):
        (members,) = np.nonzero(labels == group)
        chosen[random.permutation(members)[: len(members) // 2]] = True
    return chosen


@checks.arguments
def principal_components(
    features: ArrayLike,
    count: int,
    *,
    groups: ArrayLike | None = None,
    fit: ArrayLike | None = None,
) -> Float[np.ndarray, "N count"]:
    """The features along the directions in which they vary most: as many numbers as a pose has.

    Args:
        features: float ``[N, D]``.
        count: of directions.
        groups: as for ``equivariance_error``; each has directions and a mean of its own.
        fit: bool ``[N]``, which images the directions are found on; None draws ``halves``.

    Returns:
        float64 ``[N, count]``, the first along the widest direction.

    Raises:
        ValueError: other shapes, or more directions than there are features, or than a group has
            images in the half.

    Example:
        >>> features = np.random.default_rng(0).normal(size=(100, 3)) * [5, 1, 0.1]
        >>> found = principal_components(features, 1)
        >>> found.shape, bool(abs(np.corrcoef(found[:, 0], features[:, 0])[0, 1]) > 0.9)
        ((100, 1), True)
    """
    matrix = _matrix("features", features)
    labels = _labels(groups, len(matrix))
    chosen = _mask(fit, labels)
    found = np.empty((len(matrix), count))
    for group in np.unique(labels):
        inside = labels == group
        rows = matrix[inside & chosen]
        if not 1 <= count <= min(rows.shape):
            raise ValueError(
                f"count is {count}, expected 1 to {min(rows.shape)}: group {group} has {len(rows)} "
                f"images to find them on, with {matrix.shape[1]} features each"
            )
        mean = rows.mean(0)
        _, _, directions = np.linalg.svd(rows - mean, full_matrices=False)
        found[inside] = (matrix[inside] - mean) @ directions[:count].T
    return found


def _unexplained(
    features: ArrayLike,
    targets: Mapping[str, ArrayLike],
    groups: ArrayLike | None,
    fit: ArrayLike | None,
) -> dict[str, float]:
    """Of each target the share of its spread, in the second half, that the maps miss."""
    matrix = _matrix("features", features)
    wanted = {name: _target(name, target, len(matrix)) for name, target in targets.items()}
    labels = _labels(groups, len(matrix))
    chosen = _mask(fit, labels)
    missed, spread = dict.fromkeys(wanted, 0.0), dict.fromkeys(wanted, 0.0)
    for group in np.unique(labels):
        here, there = (labels == group) & chosen, (labels == group) & ~chosen
        if min(here.sum(), there.sum()) < 2:
            raise ValueError(
                f"group {group} has {here.sum()} images to fit on and {there.sum()} to judge by, "
                "expected at least 2 of each"
            )
        half = ridge.taken_apart(matrix[here])
        for name, target in wanted.items():
            predicted = ridge.predicted(half, target[here], matrix[there])
            missed[name] += ((target[there] - predicted) ** 2).sum()
            spread[name] += ((target[there] - target[there].mean(0)) ** 2).sum()
    for name, value in spread.items():
        if not value > 0:
            raise ValueError(f"{name} is the same for all images: there is no spread to explain")
    return {name: float(missed[name] / spread[name]) for name in wanted}


def _matrix(name: str, values: ArrayLike) -> np.ndarray:
    array = checks.floats(name, values)
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"{name} has shape {array.shape}, expected [N, D]: flatten what an image has"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a value that is NaN or infinite, expected finite ones")
    return array


def _target(name: str, values: ArrayLike, count: int) -> np.ndarray:
    array = checks.floats(name, values)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or len(array) != count or not np.isfinite(array).all():
        raise ValueError(
            f"{name} has shape {array.shape} for {count} images, expected [N] or [N, K] of finite "
            "numbers"
        )
    return array


def _labels(groups: ArrayLike | None, count: int) -> np.ndarray:
    labels = np.zeros(count, int) if groups is None else np.asarray(groups)
    if labels.shape != (count,):
        raise ValueError(f"groups have shape {labels.shape}, expected [{count}], one an image")
    return labels


def _mask(fit: ArrayLike | None, labels: np.ndarray) -> np.ndarray:
    if fit is None:
        return halves(len(labels), groups=labels)
    chosen = np.asarray(fit)
    if chosen.shape != labels.shape or chosen.dtype != bool:
        raise ValueError(
            f"fit is {chosen.dtype} of shape {chosen.shape}, expected bool [{len(labels)}]"
        )
    return chosen
