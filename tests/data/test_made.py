"""Data sets made from MNIST, by their names."""

import numpy as np
import pytest

from capsjax import data
from capsjax.data import made, mnist, multi_mnist, translated_mnist

MADE = {"multi_mnist": 36, "affine_mnist": 40, "translated_mnist": 40, "rotated_mnist": 28}


@pytest.mark.parametrize("name", MADE)
def test_a_test_set_is_one_picture_of_every_test_digit_and_always_the_same(name: str) -> None:
    dataset = data.find(name)
    first, again = dataset.load("test"), data.load(name, "test")
    side = MADE[name]
    assert dataset.image_shape == (side, side, 1)
    assert dataset.origin == "made from mnist"
    assert first["image"].shape == (10_000, side, side, 1)
    digits = mnist.read("test")["label"]
    own = first["label"][:, 0] if name == "multi_mnist" else first["label"]
    np.testing.assert_array_equal(own, digits)
    for key, array in first.items():
        np.testing.assert_array_equal(array, again[key])


def test_training_and_test_pictures_come_from_draws_of_their_own() -> None:
    train, test = (
        data.load("translated_mnist", split)["shift"][:10_000] for split in ("train", "test")
    )
    assert (train != test).any(axis=1).mean() > 0.9


def test_partners_never_cross_from_one_split_into_another() -> None:
    digits = {split: made.base_of(split)["image"] for split in ("train", "validation", "test")}
    known = {split: {d.tobytes() for d in images} for split, images in digits.items()}
    assert [len(images) for images in digits.values()] == [55_000, 5_000, 10_000]
    still = made.multi(multi_mnist.Config(shift=0, pad=0))
    for split, own in known.items():
        if split != "train":
            shown = still.load(split)["sources"].reshape(-1, 28, 28, 1)
            assert {source.tobytes() for source in shown} <= own


def test_a_run_s_draws_are_its_own() -> None:
    how = made.translated().made
    assert how is not None
    seeds = [made.for_training(how, seed).seed for seed in (0, 1, 2**32 - 4)]
    assert len({*seeds, how.seed, made.for_validation(how).seed}) == 5


def test_partners_are_of_the_same_part_and_of_another_class() -> None:
    base = {key: value[:30] for key, value in mnist.read("train").items()}
    how = made.multi(multi_mnist.Config(shift=0)).made
    assert how is not None
    pictures = made.sample(how, base, variant=3)
    framed = np.pad(base["image"], ((0, 0), (4, 4), (4, 4), (0, 0)))
    for index in range(30):
        np.testing.assert_array_equal(pictures["sources"][index, 0], framed[index])
        same = (framed == pictures["sources"][index, 1]).all(axis=(1, 2, 3))
        [partner] = np.flatnonzero(same)
        assert pictures["label"][index].tolist() == [
            base["label"][index],
            base["label"][partner],
        ]
        assert base["label"][partner] != base["label"][index]


def test_another_config_is_another_data_set() -> None:
    assert made.translated(translated_mnist.Config(pad=10)).image_shape == (48, 48, 1)
