"""Few-shot subsets and smallNORB's viewpoints."""

import itertools

import numpy as np
import pytest

from capsjax.data import subsets
from tests.conftest import bare

AZIMUTHS, ELEVATIONS = range(0, 360, 20), range(30, 75, 5)


def norb(instances: tuple[int, ...]) -> dict[str, np.ndarray]:
    """smallNORB's labels and factors with one lighting; the image is the example's number."""
    rows = itertools.product(range(5), instances, AZIMUTHS, ELEVATIONS, [3])
    names = ("label", "instance", "azimuth", "elevation", "lighting")
    columns = np.array([*rows], np.int32).T
    image = np.arange(columns.shape[1]).reshape(-1, 1, 1, 1)
    return {"image": image, **dict(zip(names, columns, strict=True))}


TRAIN, TEST = norb((4, 6, 7, 8, 9)), norb((0, 1, 2, 3, 5))


def numbers(arrays: dict[str, np.ndarray]) -> set[int]:
    return set(arrays["image"].ravel().tolist())


@pytest.mark.core
def test_few_shot_keeps_rows_together_and_in_order(random: np.random.Generator) -> None:
    labels = random.integers(0, 10, 500).astype(np.int32)
    arrays = {"image": np.arange(500).reshape(500, 1, 1, 1), "label": labels, "azimuth": labels * 2}
    found = subsets.few_shot(arrays, per_class=7, seed=0)
    assert np.array_equal(np.bincount(found["label"]), [7] * 10)
    chosen = found["image"].ravel()
    assert np.all(np.diff(chosen) > 0)
    assert np.array_equal(found["label"], labels[chosen])
    assert np.array_equal(found["azimuth"], labels[chosen] * 2)


@pytest.mark.core
def test_few_shot_follows_its_seed() -> None:
    arrays = {"image": np.arange(100), "label": np.arange(100) % 3}
    first, again, other = (subsets.few_shot(arrays, 5, seed) for seed in (0, 0, 1))
    assert np.array_equal(first["image"], again["image"])
    assert not np.array_equal(first["image"], other["image"])


def test_few_shot_of_all_is_all() -> None:
    arrays = {"label": np.array([0, 1, 1, 0])}
    assert np.array_equal(subsets.few_shot(arrays, 2, 0)["label"], arrays["label"])


@pytest.mark.parametrize("per_class", [0, 3])
def test_few_shot_of_more_than_there_are_is_refused(per_class: int) -> None:
    with pytest.raises(ValueError, match=rf"per_class is {per_class}, .*\{{0: 4, 7: 2\}}"):
        bare(subsets.few_shot)({"label": np.array([0, 0, 7, 0, 7, 0])}, per_class, 0)


@pytest.mark.core
def test_by_instance_takes_those_of_every_category() -> None:
    found = subsets.by_instance(TRAIN, (6, 9))
    assert np.array_equal(np.unique(found["instance"]), [6, 9])
    assert np.array_equal(np.bincount(found["label"]), [2 * 18 * 9] * 5)
    assert np.array_equal(found["azimuth"], TRAIN["azimuth"][found["image"].ravel()])


@pytest.mark.parametrize("instances", [(), (4, 5)])
def test_instances_that_do_not_occur_are_refused(instances: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected some of \[4, 6, 7, 8, 9\]"):
        bare(subsets.by_instance)(TRAIN, instances)


def test_hold_out_parts_one_instance_from_the_rest() -> None:
    rest, held = subsets.hold_out(TRAIN, 7)
    assert np.array_equal(np.unique(held["instance"]), [7])
    assert np.array_equal(np.unique(rest["instance"]), [4, 6, 8, 9])
    assert numbers(rest) | numbers(held) == numbers(TRAIN)


@pytest.mark.parametrize(
    ("instance", "message"), [(5, "none of category 0"), (4, "all of category 0")]
)
def test_an_instance_that_cannot_be_held_out_is_refused(instance: int, message: str) -> None:
    arrays = {"instance": np.array([4, 4, 4, 6]), "label": np.array([0, 0, 1, 1])}
    with pytest.raises(ValueError, match=message):
        bare(subsets.hold_out)(arrays, instance)


@pytest.mark.core
@pytest.mark.parametrize(
    ("factor", "familiar"),
    [("azimuth", {300, 320, 340, 0, 20, 40}), ("elevation", {30, 35, 40})],
)
def test_a_third_of_the_viewpoints_is_familiar(factor: str, familiar: set[int]) -> None:
    arrays = norb((0, 1))
    known, novel = subsets.viewpoint(arrays, factor)  # type: ignore[arg-type]
    assert set(known[factor].tolist()) == familiar
    assert set(novel[factor].tolist()) == set(arrays[factor].tolist()) - familiar
    assert len(novel["image"]) == 2 * len(known["image"])
    assert numbers(known) | numbers(novel) == numbers(arrays)


def test_finer_azimuths_are_split_on_the_same_arc() -> None:
    arrays = {"azimuth": np.arange(0, 360, 5), "label": np.zeros(72, int)}  # as coil20's
    known, novel = subsets.viewpoint(arrays, "azimuth")
    assert set(known["azimuth"].tolist()) == {*range(300, 360, 5), *range(0, 45, 5)}
    assert len(known["label"]) + len(novel["label"]) == 72


@pytest.mark.core
@pytest.mark.parametrize("factor", ["azimuth", "elevation"])
def test_novel_viewpoints_keep_instances_and_viewpoints_apart(factor: str) -> None:
    parts = subsets.novel_viewpoints(TRAIN, TEST, factor, instance=6)  # type: ignore[arg-type]
    assert {*parts} == {"train", "validation", "familiar", "novel"}
    third = 5 * 5 * 18 * 9 // 3
    sizes = {name: len(part["label"]) for name, part in parts.items()}
    assert sizes == {
        "train": third * 4 // 5,
        "validation": third // 5,
        "familiar": third,
        "novel": 2 * third,
    }
    assert set(parts["train"]["instance"].tolist()) == {4, 7, 8, 9}
    assert set(parts["validation"]["instance"].tolist()) == {6}
    # smallNORB has six lightings of each of these.
    assert {name: 6 * size for name, size in sizes.items()} == {
        name: subsets.PARTS[f"{factor}_{name}"] for name in sizes
    }
    views = {name: set(part[factor].tolist()) for name, part in parts.items()}
    assert views["train"] == views["validation"] == views["familiar"]
    assert not views["novel"] & views["train"]


@pytest.mark.parametrize(
    ("arrays", "factor", "message"),
    [
        ({"azimuth": np.array([0, 20])}, "azimuth", r"values \[0, 20\], expected degrees on both"),
        ({"elevation": np.array([50])}, "elevation", r"values \[50\], expected degrees on both"),
        ({"azimuth": np.array([], np.int32)}, "azimuth", r"values \[\], expected degrees on both"),
        ({"label": np.array([0])}, "azimuth", "the arrays are label, expected azimuth among them"),
        ({"label": np.array([0])}, "lighting", "expected 'azimuth' or 'elevation'"),
    ],
)
def test_viewpoints_that_cannot_be_split_are_refused(
    arrays: dict, factor: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bare(subsets.viewpoint)(arrays, factor)
