"""Parts of a data set: few examples per class, and the viewpoints of smallNORB.

All functions take and return arrays on the host, ``{"image": [N, ...], "label": int32 [N], ...}``,
of which every one keeps the same examples in the same order.
"""

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np

from capsjax import checks
from capsjax.data.dataset import Arrays

# Degrees of what networks are trained on: an arc about the front, and the lowest elevations.
_FIRST, _ARC, _HIGHEST = 300, 100, 40
# Of the training half's instances, the one for validation.
HELD_OUT = 4
# Sizes of all that ``novel_viewpoints`` makes of smallNORB's halves of 24,300.
PARTS = {
    f"{factor}_{part}": size
    for factor in ("azimuth", "elevation")
    for part, size in (
        ("train", 6480),
        ("validation", 1620),
        ("familiar", 8100),
        ("novel", 16_200),
    )
}


@checks.arguments(empty=True)
def few_shot(arrays: Mapping[str, np.ndarray], per_class: int, seed: int) -> Arrays:
    """The same number of examples of every class, drawn without replacement.

    Args:
        arrays: with ``label``.
        per_class: how many of each.
        seed: of the draw.

    Returns:
        The chosen examples, in their old order.

    Raises:
        ValueError: a class has fewer, or ``per_class`` is not positive.

    Example:
        >>> labels = np.array([0, 1, 0, 1, 0])
        >>> few_shot({"label": labels}, per_class=2, seed=0)["label"].tolist().count(0)
        2
    """
    checks.seed(seed)
    labels = _factor(arrays, "label")
    classes, counts = np.unique(labels, return_counts=True)
    if not 1 <= per_class <= counts.min(initial=len(labels)):
        raise ValueError(
            f"per_class is {per_class}, expected at least 1 and no more than every class has: "
            f"{dict(zip(classes.tolist(), counts.tolist(), strict=True))}"
        )
    random = np.random.default_rng(seed)
    chosen = [random.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in classes]
    return _take(arrays, np.sort(np.concatenate(chosen)))


@checks.arguments(empty=True)
def by_instance(arrays: Mapping[str, np.ndarray], instances: Collection[int]) -> Arrays:
    """The examples that show some of the instances of every category.

    Args:
        arrays: with ``instance``.
        instances: their numbers.

    Returns:
        The chosen examples, in their old order.

    Raises:
        ValueError: there is no ``instance``, or one of the numbers does not occur.
    """
    found = _factor(arrays, "instance")
    if not all(isinstance(number, int | np.integer) for number in instances):
        raise TypeError(f"instances are {instances!r}, expected whole numbers")
    missing = set(instances) - set(found.tolist())
    if missing or not len(instances):
        raise ValueError(
            f"instances are {sorted(instances)}, expected some of {np.unique(found).tolist()}"
        )
    return _take(arrays, np.isin(found, list(instances)))


@checks.arguments(empty=True)
def hold_out(arrays: Mapping[str, np.ndarray], instance: int) -> tuple[Arrays, Arrays]:
    """Set aside one instance of every category, for validation.

    Args:
        arrays: with ``instance`` and ``label``.
        instance: its number.

    Returns:
        The rest, and the examples that show the instance.

    Raises:
        ValueError: there is no ``instance``, or a category lacks this one or has no other.
    """
    chosen = _factor(arrays, "instance") == instance
    labels = _factor(arrays, "label")
    for category in np.unique(labels):
        share = chosen[labels == category]
        if share.all() or not share.any():
            raise ValueError(
                f"instance {instance} is {'all' if share.all() else 'none'} of category {category},"
                " expected one of several"
            )
    return _take(arrays, ~chosen), _take(arrays, chosen)


@checks.arguments(empty=True)
def viewpoint(
    arrays: Mapping[str, np.ndarray], factor: Literal["azimuth", "elevation"]
) -> tuple[Arrays, Arrays]:
    """Split examples into familiar viewpoints, which a network is trained on, and novel ones.

    Familiar are azimuths from 300 degrees through 0 to 40, and elevations up to 40 degrees: a third
    of smallNORB's each. Novel are the others.

    Args:
        arrays: with the factor, in degrees.
        factor: "azimuth" or "elevation".

    Returns:
        The familiar and the novel examples, each in their old order.

    Raises:
        ValueError: another factor, no such array, or none of its values on one of the two sides.

    Source: Hinton, Sabour and Frosst 2018, section 5.1.
    """
    if factor not in ("azimuth", "elevation"):
        raise ValueError(f"factor is {factor!r}, expected 'azimuth' or 'elevation'")
    values = _factor(arrays, factor)
    if factor == "azimuth":
        familiar = (values - _FIRST) % 360 <= _ARC
    else:
        familiar = values <= _HIGHEST
    if familiar.all() or not familiar.any():
        raise ValueError(
            f"{factor} has the values {np.unique(values).tolist()}, expected degrees on both "
            f"sides: azimuths from {_FIRST} to {_FIRST + _ARC - 360} and others, elevations up to "
            f"{_HIGHEST} and others"
        )
    return _take(arrays, familiar), _take(arrays, ~familiar)


@checks.arguments(empty=True)
def novel_viewpoints(
    train: Mapping[str, np.ndarray],
    test: Mapping[str, np.ndarray],
    factor: Literal["azimuth", "elevation"],
    *,
    instance: int = HELD_OUT,
) -> dict[str, Arrays]:
    """The experiment on novel viewpoints, with examples for validation.

    Args:
        train: smallNORB's training half.
        test: its test half, which shows other instances.
        factor: "azimuth" or "elevation".
        instance: of the training half's, the one set aside in each category.

    Returns:
        ``train`` and ``validation``: familiar viewpoints of the training half, without and with
        that instance; ``familiar`` and ``novel``: the viewpoints of the test half.

    Raises:
        ValueError: as ``viewpoint`` and ``hold_out``.

    Source: Hinton, Sabour and Frosst 2018, section 5.1; the paper holds nothing out.
    """
    rest, held = hold_out(viewpoint(train, factor)[0], instance)
    familiar, novel = viewpoint(test, factor)
    return {"train": rest, "validation": held, "familiar": familiar, "novel": novel}


def _factor(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise ValueError(f"the arrays are {', '.join(arrays)}, expected {name} among them")
    factor, lengths = arrays[name], {key: array.shape[:1] for key, array in arrays.items()}
    if factor.shape not in lengths.values() or len(set(lengths.values())) > 1:
        raise ValueError(
            f"{name} has shape {factor.shape} and the arrays {lengths}, expected [N] and N of each"
        )
    if factor.dtype.kind not in "iufb":
        raise ValueError(f"{name} is {factor.dtype}, expected numbers")
    return factor


def _take(arrays: Mapping[str, np.ndarray], chosen: np.ndarray) -> Arrays:
    return {name: array[chosen] for name, array in arrays.items()}
