"""Attacks on linear scores, whose optimum is known, on any image (constraints), on a CapsNet.

The optima come from corners, angles and a root of the optimality conditions, not from gradients.
"""

import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from capsjax.analysis import attacks
from tests.conftest import bare
from tests.reference import squash as reference
from tests.training.small import digits

SHAPE = (3, 2, 1)
SIZE = 6
WEIGHTS = np.array(
    [[0.9, -0.3, 0.2, 0, -0.7, 0.1], [-0.4, 0.6, 0.8, 0, -0.2, 0.7], [0.1, 0.1, -0.9, 0.3, 0, 1]]
)
BIAS = np.array([0.1, -0.2, 0.3])
METHODS = ["fgsm", "bim", "pgd linf", "pgd l2"]


def attack(method, loss, image, key, *, epsilon, step=None, num_steps=20):
    """Any of them, called alike."""
    if method == "fgsm":
        return attacks.fgsm(loss, image, epsilon=epsilon)
    options = {"epsilon": epsilon, "step": epsilon / 4 if step is None else step}
    if method == "bim":
        return attacks.bim(loss, image, **options, num_steps=num_steps)
    norm = method.split()[1]
    return attacks.pgd(loss, image, key, **options, num_steps=num_steps, norm=norm)


def linear(classes=3):
    weights = jnp.asarray(WEIGHTS[:classes], jnp.float32)
    bias = jnp.asarray(BIAS[:classes], jnp.float32)
    return lambda image: weights.astype(image.dtype) @ image.reshape(-1) + bias.astype(image.dtype)


def inner_image(random):
    """So far from 0 and 1 that no attack of these tests reaches them unless it is meant to."""
    return jnp.asarray(random.uniform(0.4, 0.6, SHAPE), jnp.float32)


def best_corner(image, towards, away, epsilon):
    """Of all corners of the cube and the box, the one whose scores differ most: by trying all."""
    sides = [(max(x - epsilon, 0), min(x + epsilon, 1)) for x in np.ravel(image).astype(float)]
    corners = np.array(list(itertools.product(*sides)))
    return corners[np.argmax(corners @ (WEIGHTS[towards] - WEIGHTS[away]))].reshape(SHAPE)


def best_in_ball(image, towards, away, epsilon):
    """Where scores differ most in ball and box: clip(x + t w) with the t that reaches epsilon."""
    flat, w = np.ravel(image).astype(float), WEIGHTS[towards] - WEIGHTS[away]
    low, high = 0.0, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        short = np.linalg.norm(np.clip(flat + middle * w, 0, 1) - flat) <= epsilon
        low, high = (middle, high) if short else (low, middle)
    return np.clip(flat + low * w, 0, 1).reshape(SHAPE)


@pytest.mark.core
@pytest.mark.parametrize("epsilon", [0.1, 0.5])
@pytest.mark.parametrize("method", ["fgsm", "bim", "pgd linf"])
def test_signs_reach_the_best_corner_of_two_classes(random, method, epsilon):
    image = inner_image(random)
    loss = attacks.untargeted(linear(2), 0)
    found = attack(method, loss, image, jax.random.key(1), epsilon=epsilon)
    expected = best_corner(image, 1, 0, epsilon)
    # Where the classes' weights are the same, any corner is the best.
    matters = (WEIGHTS[1] != WEIGHTS[0]).reshape(SHAPE)
    np.testing.assert_allclose(found[matters], expected[matters], atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_margin_asks_for_no_scale(random, scale):
    # Where a softmax of such large scores is 1, its cross-entropy has no gradient.
    image = inner_image(random)
    scores = linear()
    label = int(scores(image).argmax())
    rival = int(np.argsort(np.asarray(scores(image)))[-2])
    loss = attacks.margin(lambda x: scale * scores(x), label)
    expected = WEIGHTS[rival] @ np.ravel(image) + BIAS[rival]
    expected -= WEIGHTS[label] @ np.ravel(image) + BIAS[label]
    assert float(loss(image)) == pytest.approx(scale * expected, rel=1e-4)
    found = attacks.fgsm(loss, image, epsilon=0.125)
    signs = np.sign(WEIGHTS[rival] - WEIGHTS[label]).reshape(SHAPE)
    np.testing.assert_allclose(found, image + 0.125 * signs, atol=1e-7)


def test_fgsm_of_an_inner_image_is_the_formula(random):
    # The fourth pixel counts for neither class: its gradient is 0, and it stays.
    image = inner_image(random)
    found = attacks.fgsm(attacks.untargeted(linear(2), 0), image, epsilon=0.25)
    signs = np.array([-1, 1, 1, 0, 1, 1]).reshape(SHAPE)
    np.testing.assert_allclose(found, image + 0.25 * signs, atol=1e-7)


@pytest.mark.core
def test_pgd_in_l2_reaches_the_gradient_s_direction(random):
    image = inner_image(random)
    loss = attacks.untargeted(linear(2), 0)
    found = attack("pgd l2", loss, image, jax.random.key(1), epsilon=0.3, num_steps=100)
    w = WEIGHTS[1] - WEIGHTS[0]
    expected = image + 0.3 * (w / np.sqrt((w**2).sum())).reshape(SHAPE)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pgd_in_l2_comes_near_the_best_image_where_the_box_is_in_the_way(random):
    image = jnp.asarray(random.uniform(0.1, 0.9, SHAPE), jnp.float32)
    best = best_in_ball(image, 1, 0, 1.0)
    assert np.isin(best, [0, 1]).sum() >= 2
    loss = attacks.untargeted(linear(2), 0)
    options = {"epsilon": 1.0, "step": 0.01, "num_steps": 500}
    found = attack("pgd l2", loss, image, jax.random.key(1), **options)
    w = (WEIGHTS[1] - WEIGHTS[0]).reshape(SHAPE)
    gain, most = ((np.asarray(x) - image) * w for x in (found, best))
    assert 0.99 * most.sum() < gain.sum() < 1.0001 * most.sum()


@pytest.mark.parametrize("method", METHODS)
def test_targeted_attacks_win_the_target(random, method):
    image, scores = inner_image(random), linear()
    before = np.asarray(scores(image))
    target = int(before.argmin())
    loss = attacks.targeted(scores, target)
    found = attack(method, loss, image, jax.random.key(1), epsilon=0.4)
    after = np.asarray(scores(found))

    def shares(values):
        return np.exp(values) / np.exp(values).sum()

    assert shares(after)[target] > 1.2 * shares(before)[target]
    assert float(loss(found)) == pytest.approx(np.log(shares(after)[target]), rel=1e-5)


def test_untargeted_loss_is_the_negative_targeted_one(random, dtype):
    image = jnp.asarray(inner_image(random), dtype)
    z = np.asarray(linear()(image), float)
    expected = np.log(np.exp(z).sum()) - z[1]
    assert float(attacks.untargeted(linear(), 1)(image)) == pytest.approx(expected, rel=1e-5)
    assert float(attacks.targeted(linear(), 1)(image)) == pytest.approx(-expected, rel=1e-5)


EDGES = st.sampled_from([0.0, 1.0]) | st.floats(0, 1, width=32, allow_subnormal=False)
IMAGES = arrays.arrays(np.float32, SHAPE, elements=EDGES)
SLOPES = arrays.arrays(np.float32, SHAPE, elements=st.floats(-9, 9, width=32))


@partial(jax.jit, static_argnums=0)
def _attacked(method, slopes, image, key, epsilon, step):
    def loss(x):
        return jnp.sum(slopes * x + jnp.square(x) * slopes[::-1])

    return attack(method, loss, image, key, epsilon=epsilon, step=step, num_steps=3)


@pytest.mark.parametrize("method", METHODS)
@given(IMAGES, SLOPES, st.integers(0, 99), st.floats(0, 2, width=32), st.floats(0, 2, width=32))
def test_attacks_stay_in_ball_and_box(method, image, slopes, seed, epsilon, step):
    found = _attacked(method, slopes, image, jax.random.key(seed), epsilon, step)
    found = np.asarray(found)
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    change = np.ravel(found - image).astype(float)
    size = np.linalg.norm(change) if method == "pgd l2" else np.abs(change).max()
    assert size <= epsilon * (1 + 1e-6) + 1e-6


@pytest.mark.parametrize("method", METHODS)
@given(IMAGES, SLOPES)
def test_an_epsilon_of_0_returns_the_image(method, image, slopes):
    found = _attacked(method, slopes, image, jax.random.key(0), 0.0, 0.5)
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_starts_anywhere_in_the_ball(norm):
    image = jnp.full((2,), 0.5)
    keys = jax.random.split(jax.random.key(0), 4000)

    def start(key):  # a flat loss moves nothing
        return attacks.pgd(
            lambda x: x.sum() * 0, image, key, epsilon=0.2, step=1.0, num_steps=1, norm=norm
        )

    moved = (np.asarray(jax.vmap(start)(keys)) - 0.5) / 0.2
    length = np.abs(moved).max(1) if norm == "linf" else np.linalg.norm(moved, axis=1)
    # A ball of radius r in the plane holds r^2 of it, whatever the norm; so does each half.
    for radius in (0.3, 0.5, 0.8):
        assert (length <= radius).mean() == pytest.approx(radius**2, abs=0.03)
    assert (moved > 0).mean(0) == pytest.approx([0.5, 0.5], abs=0.03)
    assert length.max() <= 1 + 1e-6


@pytest.mark.core
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_under_vmap_and_jit_is_each_by_itself(random, method):
    images = jnp.asarray(random.uniform(size=(4, *SHAPE)), jnp.float32)
    labels, keys = jnp.array([0, 1, 2, 0]), jax.random.split(jax.random.key(0), 4)

    def one(image, label, key):
        loss = attacks.untargeted(linear(), label)
        return attack(method, loss, image, key, epsilon=0.2, num_steps=3)

    together = jax.jit(jax.vmap(one))(images, labels, keys)
    alone = [one(*each) for each in zip(images, [0, 1, 2, 0], keys, strict=True)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_attacks_keep_the_dtype(random, dtype, method):
    image = jnp.asarray(inner_image(random), dtype)
    found = attack(method, attacks.untargeted(linear(2), 0), image, jax.random.key(0), epsilon=0.25)
    chex.assert_type(found, dtype)
    assert float(jnp.abs(found - image).max()) <= 0.26
    assert float(jnp.abs(found - image).max()) > 0.1


@pytest.mark.parametrize("method", ["bim", "pgd linf", "pgd l2"])
def test_steps_are_a_loop(method):
    def program(num_steps):
        run = partial(attack, method, jnp.sum, epsilon=0.1, num_steps=num_steps)
        return str(jax.make_jaxpr(run)(jnp.zeros(SHAPE), jax.random.key(0)))

    assert len(program(50)) < len(program(5)) + 20


def test_the_number_of_steps_may_be_an_argument_of_a_compiled_function():
    image = jnp.zeros(SHAPE)
    run = jax.jit(lambda n: attacks.bim(jnp.sum, image, epsilon=0.5, step=0.125, num_steps=n))
    np.testing.assert_allclose(run(3), 0.375)
    np.testing.assert_allclose(run(9), 0.5)
    assert run._cache_size() == 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_zero_gradient_moves_nothing(norm):
    image = jnp.full(SHAPE, 0.5)
    key = jax.random.key(0)
    options = {"epsilon": 0.2, "norm": norm}
    flat = lambda x: (x * 0).sum()  # noqa: E731
    short, long = (attacks.pgd(flat, image, key, step=0.1, num_steps=n, **options) for n in (1, 9))
    np.testing.assert_allclose(short, long, atol=1e-7)


def test_vote_scores_are_lengths_of_the_squashed_mean(random, precision, apply):
    votes = random.normal(size=(3, 4, 5))
    expected = []
    for parent in votes:
        mean = sum(parent[:, i] for i in range(5)) / 5
        expected.append(np.sqrt((reference.squash(mean) ** 2).sum()))
    found = apply(attacks.vote_scores, jnp.asarray(votes, precision.dtype))
    chex.assert_shape(found, (3,))
    np.testing.assert_allclose(found, expected, rtol=precision.tolerance)


def test_log_shares_make_the_cross_entropy_that_of_shares(random, precision, apply):
    activations = random.uniform(size=5)
    shares = activations / activations.sum()
    found = apply(attacks.log_shares, jnp.asarray(activations, precision.dtype))
    np.testing.assert_allclose(found, np.log(shares), rtol=2e-5)
    loss = attacks.untargeted(attacks.log_shares, 2)(jnp.asarray(activations, precision.dtype))
    assert float(loss) == pytest.approx(-np.log(shares[2]), rel=2e-5)
    # Where no capsule is active at all: even shares, and a gradient.
    none = jnp.zeros(4, precision.dtype)
    np.testing.assert_allclose(attacks.log_shares(none), np.log(0.25), rtol=1e-5)
    assert np.isfinite(jax.grad(lambda a: attacks.log_shares(a)[0])(none)).all()


def test_gradient_statistics_count_and_average(random, apply):
    gradients = random.normal(size=(4, *SHAPE))
    gradients[1] = 0
    gradients[2, 0, 0] = -1e-30  # small is not zero
    found = apply(attacks.gradient_statistics, jnp.asarray(gradients, jnp.float32))
    assert float(found.zeros) == pytest.approx(0.25)
    assert float(found.magnitude) == pytest.approx(np.abs(gradients).mean(), rel=1e-5)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(digits(3)["image"][:, 6:22, 6:22] / 255, jnp.float32)


@pytest.mark.parametrize(("method", "vote"), [("fgsm", False), ("pgd l2", False), ("bim", True)])
def test_a_capsnet_s_loss_rises(small_network, images, method, vote):
    def scores(image):
        output = small_network(image[None])
        if vote:
            return attacks.log_shares(attacks.vote_scores(output.routed[-1].votes[0]))
        return output.activations[0]

    def one(image, label, key):
        loss = attacks.untargeted(scores, label)
        changed = attack(method, loss, image, key, epsilon=0.1, num_steps=5)
        return changed, loss(image), loss(changed)

    labels, keys = jnp.array([0, 1, 2]), jax.random.split(jax.random.key(0), 3)
    changed, before, after = jax.jit(jax.vmap(one))(images, labels, keys)
    assert (after > before).all()
    assert float(jnp.abs(changed - images).max()) <= 0.1 + 1e-6


@pytest.mark.parametrize("epsilon", [-0.1, float("nan"), np.ones(3, np.float32)])
def test_an_epsilon_that_is_no_size_raises(epsilon):
    with pytest.raises(ValueError, match=r"epsilon is .*, expected one number that is not neg"):
        bare(attacks.fgsm)(jnp.sum, jnp.zeros(SHAPE), epsilon=epsilon)


def test_what_cannot_be_attacked_raises():
    image, key = jnp.zeros(SHAPE), jax.random.key(0)
    with pytest.raises(ValueError, match=r"image has dtype uint8, expected float .*: divide by"):
        bare(attacks.fgsm)(jnp.sum, np.zeros(SHAPE, np.uint8), epsilon=0.1)
    with pytest.raises(ValueError, match=r"step is -1.*, expected one number"):
        bare(attacks.bim)(jnp.sum, image, epsilon=0.1, step=-1.0, num_steps=2)
    with pytest.raises(ValueError, match="num_steps is 0, expected at least 1"):
        bare(attacks.bim)(jnp.sum, image, epsilon=0.1, step=0.1, num_steps=0)
    with pytest.raises(ValueError, match="norm is 'l1', expected 'linf' or 'l2'"):
        bare(attacks.pgd)(jnp.sum, image, key, epsilon=0.1, step=0.1, num_steps=1, norm="l1")
    with pytest.raises(ValueError, match=r"votes have shape \(2, 3, 4, 5\), expected \[parents"):
        bare(attacks.vote_scores)(jnp.zeros((2, 3, 4, 5)))


@pytest.mark.parametrize("make", [attacks.untargeted, attacks.targeted, attacks.margin])
def test_scores_of_a_batch_and_labels_of_no_class_raise(make):
    with pytest.raises(ValueError, match=r"scores have shape \(1, 3\), expected \[classes\]"):
        make(lambda x: linear()(x)[None], 0)(jnp.zeros(SHAPE))
    for label in (-1, 3):
        with pytest.raises(ValueError, match=f"label is {label}, expected 0 to 2"):
            make(linear(), label)(jnp.zeros(SHAPE))
