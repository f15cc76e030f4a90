"""smallNORB's viewpoints: what is shown in training, and errors by where a toy is seen from."""

from dataclasses import replace
from functools import cache
from typing import Any, Literal, cast

import numpy as np

from capsjax import data
from capsjax.data import prepared, subsets, toy_norb
from capsjax.training.run import Run
from experiments import training

# What novel viewpoints are novel in; on the data set's own split none is.
FACTORS, OWN = ("azimuth", "elevation"), "own"
_SAMPLES = 10_000


def find(name: str) -> data.Dataset:
    """A data set of smallNORB's layout, each half read once; toy_norb is rendered where it is not.

    Args:
        name: "toy_norb" or "smallnorb".

    Returns:
        The data set.
    """
    dataset = data.find(name)

    @cache
    def read(split: str) -> data.Arrays:
        if name == "toy_norb":
            prepared.prepare(name)
        return dataset.read(split)

    return replace(dataset, read=read)


def few() -> data.Dataset:
    """toy_norb of one or two toys of each category from six sides, rendered in a second."""
    return replace(data.find("toy_norb"), read=_few)


@cache
def _few(split: str) -> data.Arrays:
    instances = [subsets.HELD_OUT, 6] if split == "train" else [0]
    # Azimuths of 0, 40 and 180 degrees, elevations of 30 and 50, one lamp.
    factors = np.meshgrid(range(5), instances, [0, 2, 9], [0, 4], [0], indexing="ij")
    return toy_norb.render(np.ravel_multi_index(factors, toy_norb.SHAPE).ravel())


def shown(dataset: data.Dataset, split: str) -> data.Dataset:
    """What is trained on: a factor's familiar viewpoints, or, of the own split, everything."""
    if split == OWN:
        return dataset
    return replace(dataset, read=lambda part: _viewpoint(dataset.load(part), split)[0])


def measure(network: Run, test: data.Arrays, split: str) -> dict[str, Any]:
    """Test a network once, on all views of the test half.

    Args:
        network: what to test.
        test: the images, with their factors.
        split: whose familiar viewpoints it was trained on.

    Returns:
        For a result: each part of the test half, ``familiar`` and ``novel`` or, of the own split,
        ``all``, with its error, interval and wrong images; under ``by`` errors by azimuth and
        elevation; under ``toys`` the errors of each toy in the last part.
    """
    wrong = network.predict(test["image"]).labels != test["label"]
    count = len(wrong)
    parts = {"all": np.arange(count)}
    if split != OWN:
        known = {split: test[split], "place": np.arange(count)}
        familiar, novel = _viewpoint(known, split)
        parts = {"familiar": familiar["place"], "novel": novel["place"]}
    last = list(parts.values())[-1]
    toys = 100 * test["label"] + test["instance"]
    return {
        **{part: training.of_wrong(wrong[rows]) for part, rows in parts.items()},
        "by": {factor: _by(test[factor], wrong) for factor in FACTORS},
        "toys": _by(toys[last], wrong[last]),
    }


def ratio_interval(first: dict[str, Any], second: dict[str, Any]) -> tuple[float, float, float]:
    """How many errors one network makes for each of another's, and where that lies over toys.

    Images of one toy are much alike: what is drawn anew for the 95 % interval is toys.

    Args:
        first: ``toys`` of a measurement.
        second: that of the network to compare with.

    Returns:
        The ratio, the interval's lower and its upper end.
    """
    one, other = (np.array(each["errors"], float) for each in (first, second))
    drawn = np.random.default_rng(0).integers(len(one), size=(_SAMPLES, len(one)))
    # Where the other makes no errors, as on few images, the ratio is to one.
    ratios = one[drawn].sum(1) / np.maximum(1, other[drawn].sum(1))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(one.sum() / max(1, other.sum())), float(low), float(high)


def _viewpoint(arrays: data.Arrays, factor: str) -> tuple[data.Arrays, data.Arrays]:
    return subsets.viewpoint(arrays, cast(Literal["azimuth", "elevation"], factor))


def _by(values: np.ndarray, wrong: np.ndarray) -> dict[str, list[int]]:
    """Errors and images of each value."""
    known, place = np.unique(values, return_inverse=True)
    return {
        "values": known.tolist(),
        "errors": np.bincount(place, wrong).astype(int).tolist(),
        "images": np.bincount(place).tolist(),
    }
