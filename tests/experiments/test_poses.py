"""Images whose poses are known, what networks say of them, and pictures that results keep."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import data, models
from capsjax.data import toy_norb
from experiments import digit_shapes, pose_features, pose_images, pose_measures
from experiments.capsule_dimensions import PRESETS

SMOKE = PRESETS["smoke"]


def test_a_plain_digit_is_in_the_middle_of_a_larger_frame():
    test, which = data.load("mnist", "test"), pose_images.drawn(3, 1)
    images = test["image"][which]
    path, labels = pose_images.digit_path(3, 1, "shift_x", np.array([0.0, 2.0]))
    np.testing.assert_array_equal(labels, test["label"][which])
    padded = np.pad(images, ((0, 0), (6, 6), (6, 6), (0, 0)))
    np.testing.assert_array_equal(path[0], padded)
    np.testing.assert_array_equal(path[1], np.roll(padded, 2, axis=2))


def test_digits_are_drawn_from_the_whole_test_set():
    which = pose_images.drawn(1000, 0)
    assert len(set(which)) == 1000
    assert 400 < (which >= 5000).sum() < 600


def test_a_pair_differs_by_its_change_alone():
    pairs = pose_images.digit_pairs(30, seed=0)
    assert set(pairs.after) == set(pose_images.DIGIT_CHANGES)
    before = digit_shapes.shapes(pairs.before[..., 0] / 255)
    moved = digit_shapes.shapes(pairs.after["shift_x"][..., 0] / 255) - before
    # In the order of PROPERTIES; the fifth is the shift to the right.
    np.testing.assert_allclose(moved, np.tile([0, 0, 0, 0, 2, 0], (30, 1)), atol=0.1)
    taller = digit_shapes.shapes(pairs.after["scale_y"][..., 0] / 255)[:, 2] / before[:, 2]
    # From between 0.9 and 1.1 by 0.1, for digits that are turned by up to 10 degrees.
    assert 1.06 < taller.mean() < 1.12
    assert len(np.unique(pairs.before, axis=0)) == 30


def test_toys_are_the_benchmarks_own():
    dataset = pose_images.toys(1, 2, seed=3)
    train, test = dataset.load("train"), dataset.load("test")
    assert (len(train["label"]), len(test["label"])) == (25, 50)
    assert set(train["instance"]) == set(toy_norb.TRAIN_INSTANCES)
    assert set(test["instance"]) == set(toy_norb.TEST_INSTANCES)
    views = zip(*(test[name] for name in toy_norb.FACTORS[:4]), strict=True)
    assert len(set(views)) == 50  # no view under two lightings
    assert dataset.divide is not None
    rest, held = dataset.divide(train)
    assert (len(rest["label"]), len(held["label"])) == (20, 5)


def test_toys_differ_by_their_change_alone():
    pairs = pose_images.toy_pairs(1, seed=0)
    assert pairs.before.shape == (25, 48, 48, 2)
    assert np.bincount(pairs.labels).tolist() == [5] * 5
    for images in pairs.after.values():
        assert ((images != pairs.before).mean((1, 2, 3)) > 0.01).all()
    # In a corner there is nothing but ground, which another lamp alone makes darker or lighter.
    corner = {name: images[:, :2, :2].astype(int) for name, images in pairs.after.items()}
    assert np.abs(corner["azimuth"] - pairs.before[:, :2, :2]).mean() < 0.5
    assert np.abs(corner["lighting"] - pairs.before[:, :2, :2]).mean() > 1


@pytest.fixture(scope="module")
def capsules() -> Any:
    return models.create("efficient_capsnet", config=SMOKE.mnist)


def test_what_a_network_says_is_complete_and_in_order(capsules):
    images = data.load("mnist", "test")["image"][:130]
    said = pose_features.listen(capsules, images)
    capsules.eval()
    expected = capsules(jnp.asarray(images[95:130] / np.float32(255)))
    np.testing.assert_allclose(said.activations[95:], expected.activations, atol=1e-5)
    np.testing.assert_allclose(said.poses[95:], expected.poses, atol=1e-5)
    labels = np.arange(130) % 10
    np.testing.assert_array_equal(said.of(labels)[17], said.poses[17, 7])
    assert said.hidden is None


def test_pictures_of_poses_are_the_networks_reconstructions(capsules):
    images = data.load("mnist", "test")["image"][:7]
    said, labels = pose_features.listen(capsules, images), np.array([3, 1, 4, 1, 5, 9, 2])
    capsules.eval()
    output = capsules(jnp.asarray(images / np.float32(255)), jnp.eye(10)[labels])
    drawn = pose_measures.grey_decoder(capsules)(said.of(labels), labels)
    np.testing.assert_allclose(drawn, output.reconstruction[..., 0], atol=1e-5)


def test_a_network_without_capsules_says_its_hidden_layer():
    network: Any = models.create("efficient_cnn", config=SMOKE.affine_cnn)
    images = data.load("mnist", "test")["image"][:5]
    said = pose_features.listen(network, images)
    assert said.poses is None
    network.eval()
    logits = network(jnp.asarray(images / np.float32(255))).logits
    kernel, bias = (
        np.asarray(each[...]) for each in (network.classes.kernel, network.classes.bias)
    )
    np.testing.assert_allclose(said.hidden @ kernel + bias, logits, atol=1e-4)


def test_kept_pictures_come_back_in_8_greys():
    images = np.random.default_rng(0).random((3, 4, 6, 6))
    back = pose_measures.picture(pose_measures.kept(images), 3, 4)
    assert np.abs(back - images).max() <= 0.5 / 7 + 1e-9
