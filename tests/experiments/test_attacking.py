"""Attacks on a trained network, on one whose best attack is known."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

from capsjax.models import efficient_capsnet, network
from experiments.attacking import (
    FGSM,
    Attack,
    Said,
    Subject,
    counts,
    examples,
    pixels_of,
    reached,
    shaken,
)

WEIGHTS = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
IMAGES = np.random.default_rng(2).uniform(0.4, 0.6, (5, 2, 3, 2)).astype(np.float32)


class Linear(network.Network):
    """Two of three classes' logits differ by a linear function of the image."""

    def __init__(self):
        super().__init__(None, (2, 3, 2), 3)
        self.weights = nnx.Param(jnp.asarray(WEIGHTS))

    def forward(self, images: Array, *, trace: bool) -> tuple[tuple[()], Array]:
        del trace
        return (), images.reshape(len(images), -1) @ self.weights[...]


def gradient(image, label):
    """Of the cross-entropy of one image, by hand: the weights times (softmax less one-hot)."""
    logits = image.reshape(-1).astype(float) @ WEIGHTS.astype(float)
    shares = np.exp(logits) / np.exp(logits).sum()
    return (WEIGHTS @ (shares - np.eye(3)[label])).reshape(image.shape)


@pytest.fixture(scope="module")
def subject():
    return Subject(Linear(), 2)  # of 5 images the last part is filled up


@pytest.mark.parametrize("towards", [False, True])
def test_bim_of_one_step_of_epsilon_is_the_fast_gradient_sign_method(subject, towards):
    labels = np.array([0, 1, 2, 0, 1])
    found = subject.attacked(FGSM, IMAGES, labels, 0.1, towards=towards)
    signs = np.stack([np.sign(gradient(i, n)) for i, n in zip(IMAGES, labels, strict=True)])
    np.testing.assert_allclose(found, IMAGES + 0.1 * (-signs if towards else signs), atol=1e-6)


def test_pgd_stays_within_its_ball_and_depends_on_the_seed(subject):
    labels = np.zeros(5, int)
    attack = Attack("l2", 3, 0.5)
    first, again, other = (
        subject.attacked(attack, IMAGES, labels, 0.2, seed=seed) for seed in (0, 0, 1)
    )
    lengths = np.linalg.norm((first - IMAGES).reshape(5, -1), axis=1)
    assert (lengths <= 0.2 + 1e-6).all()
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_gradients_are_those_of_the_margin(subject):
    labels = np.array([2, 1, 0, 2, 1])
    logits = IMAGES.reshape(5, -1) @ WEIGHTS
    logits[np.arange(5), labels] = -np.inf
    wanted = WEIGHTS[:, logits.argmax(1)] - WEIGHTS[:, labels]
    found = subject.gradients(IMAGES, labels)
    assert found["magnitude"] == pytest.approx(np.abs(wanted).mean(), rel=1e-5)
    assert (found["zeros"], found["unseen"], found["lost"]) == (0, 0, 0)


def test_pixels_that_no_gradient_reaches_are_counted_apart():
    blind = Linear()
    weights = WEIGHTS.copy()
    weights[3:6] = 0  # unseen
    weights[0, 1] = weights[0, 0]  # no gradient between the first two classes
    blind.weights[...] = jnp.asarray(weights)
    labels = (IMAGES.reshape(5, -1) @ weights).argmax(1)
    rivals = IMAGES.reshape(5, -1) @ weights
    rivals[np.arange(5), labels] = -np.inf
    pairs = [set(each) for each in zip(labels.tolist(), rivals.argmax(1).tolist(), strict=True)]
    found = Subject(blind, 2).gradients(IMAGES, labels)
    assert found["unseen"] == pytest.approx(3 / 12)
    assert found["zeros"] == pytest.approx(pairs.count({0, 1}) / (5 * 9))
    assert found["lost"] == 0


def test_the_margin_is_left_by_the_nearest_rival(subject):
    labels = (IMAGES.reshape(5, -1) @ WEIGHTS).argmax(1)
    logits = IMAGES.reshape(5, -1) @ WEIGHTS
    logits[np.arange(5), labels] = -np.inf
    away = WEIGHTS[:, logits.argmax(1)] - WEIGHTS[:, labels]
    found = subject.attacked(Attack("basic", 1, 1.0, "margin"), IMAGES, labels, 0.05)
    wanted = IMAGES + 0.05 * np.sign(away.T).reshape(IMAGES.shape)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_random_signs_are_as_far_away_as_an_attack():
    changed = shaken(IMAGES, 0.1, 0)
    np.testing.assert_allclose(np.abs(changed - IMAGES), 0.1, atol=1e-6)
    assert 0.3 < (changed > IMAGES).mean() < 0.7
    np.testing.assert_array_equal(changed, shaken(IMAGES, 0.1, 0))


def test_a_targeted_attack_is_tried_on_all_wrong_classes(subject):
    logits = IMAGES.reshape(5, -1) @ WEIGHTS
    right = logits.argmax(1)
    none, all_of_them = (reached(subject, 3, FGSM, IMAGES, right, e) for e in (0.0, 0.4))
    assert none == {"success": 0.0, "pairs": 10}
    wanted = [
        (np.clip(i - 0.4 * np.sign(gradient(i, t)), 0, 1).reshape(-1) @ WEIGHTS).argmax() == t
        for i, n in zip(IMAGES, right, strict=True)
        for t in range(3)
        if t != n
    ]
    assert all_of_them["success"] == pytest.approx(np.mean(wanted))
    assert np.mean(wanted) > 0


def test_capsules_are_asked_for_distances_and_votes():
    config = efficient_capsnet.Config(
        features=(8,), kernel_sizes=(3,), strides=(2,), decoder_widths=(4,)
    )
    made = efficient_capsnet.Network(config, image_shape=(6, 6, 1), num_classes=2, rngs=nnx.Rngs(0))
    capsules = Subject(made, 2)
    images = np.random.default_rng(0).random((2, 6, 6, 1), np.float32)
    said = capsules.says(images)
    made.eval()
    reconstruction = np.asarray(made(jnp.asarray(images)).reconstruction)
    wanted = np.linalg.norm((reconstruction - images).reshape(2, -1), axis=1)
    np.testing.assert_allclose(said.distances, wanted, rtol=1e-5)
    changed = capsules.attacked(Attack("linf", 1, 1.0, "votes"), images, np.array([0, 1]), 0.1)
    assert 0 < np.abs(changed - images).max() <= 0.1 + 1e-6


def test_only_what_had_been_right_counts_as_success():
    said = Said(np.array([1, 1, 0, 1]), np.array([5.0, 1.0, 9.0, 9.0]))
    labels, right = np.array([0, 0, 0, 0]), np.array([True, True, True, False])
    found = counts(labels, right, 3.0, said)
    assert (found["accuracy"], found["successful"], found["told"]) == (0.25, 2, 1)
    assert (found["withstood"], found["withstood_told"]) == (1, 1)
    assert "told" not in counts(labels, right, None, said)


def test_examples_are_kept_as_text():
    images = np.array([0.0, 0.2, 0.5019, 1.0], np.float32).reshape(1, 2, 2, 1)
    kept = examples(images, np.array([3, 4]), Said(np.array([3, 5]), None), 0.1)
    assert pixels_of(kept).ravel().tolist() == [0, 51, 128, 255]
    assert (kept["labels"], kept["predictions"]) == ([3], [3])
