"""Values and gradients at the edges, where a closed form says what they are.

That they are finite, for these votes and more, the conformance kit checks ("finite").
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Capsules, ops, routing
from capsjax.testing import HUGE
from capsjax.training import losses
from tests.numerics import bounds, closed_forms, measure
from tests.routing import quick

PARENTS, DIM, CHILDREN = 3, 4, 5
EVERY = tuple(routing.ALGORITHMS)

# What one parent makes of its votes: a weighted sum, then this.
OUTER = {
    "dynamic": closed_forms.squash,
    "uniform": closed_forms.squash,
    "random_coupling": closed_forms.squash,
    "self_attention": closed_forms.squash_exponential,
    "inverted_attention": closed_forms.layer_norm,
    "em": closed_forms.same,
    "variational_bayes": closed_forms.same,
    "self_routing": closed_forms.same,
}


def weights(name: str, activations: np.ndarray, parents: int) -> np.ndarray:
    """Of the children in that sum, where each gives all parents the same share."""
    if name in ("em", "self_routing"):
        return activations / activations.sum()
    if name == "variational_bayes":
        return activations / parents / (1 + activations.sum() / parents)
    return np.full(len(activations), 1 / parents)


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    least = float(np.finfo(np.float32).tiny)
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * np.abs(expected).max() + least
    )


@functools.cache
def pulled(name: str) -> Callable[..., Any]:
    """Poses, activations, and the gradient of the poses for votes; fresh parameters."""
    module = routing.find(name)
    config = module.Config()

    def run(votes: Any, activations: Any, g: Any) -> Any:
        parents, dim, count = votes.shape
        sizes = {"parents": parents, "dim": dim, "children": count, "child_dim": 2}
        params = module.init(config, jax.random.key(0), **sizes)
        children = Capsules(jnp.ones((count, 2), votes.dtype), activations)

        def route(votes: Any) -> Any:
            routed = module.route(votes, children, params, config)
            return routed.poses, routed.activations

        poses, pull, lengths = jax.vjp(route, votes, has_aux=True)
        return poses, lengths, *pull(g)

    return quick.jit(run)


def found(name: str, votes: np.ndarray, activations: np.ndarray, g: np.ndarray) -> Any:
    arrays = (jnp.asarray(x, jnp.float32) for x in (votes, activations, g))
    with jax.debug_nans(True):
        return pulled(name)(*arrays)


def drawn(random: np.random.Generator, parents: int, children: int) -> Any:
    return (
        random.normal(size=(parents, DIM, children)),
        random.uniform(0.1, 0.9, children),
        random.normal(size=(parents, DIM)),
    )


@pytest.mark.core
@pytest.mark.parametrize("name", EVERY)
def test_zero_votes_give_zero_poses_and_the_gradient_of_even_shares(name, random):
    """Shares move at second order only: their votes, by which they count, are 0."""
    _, activations, g = drawn(random, PARENTS, CHILDREN)
    votes = np.zeros((PARENTS, DIM, CHILDREN))
    poses, _, gradient = found(name, votes, activations, g)
    np.testing.assert_array_equal(poses, votes[..., 0])
    outer = [OUTER[name](np.zeros(DIM), each)[1] for each in g]
    close(gradient, np.array(outer)[..., None] * weights(name, activations, PARENTS))


@pytest.mark.core
@pytest.mark.parametrize("name", EVERY)
def test_one_parent_has_all_of_its_children_at_every_length(name, random):
    """From votes of 0 over very short ones to very long ones, whose poses are saturated."""
    votes, activations, g = drawn(random, 1, CHILDREN)
    huge = getattr(routing.find(name), "HUGE", HUGE)
    for scale in (0.0, 1e-15, 1e-6, 1e-3, 1.0, 1e3, huge):
        poses, lengths, gradient = found(name, scale * votes, activations, g)
        share = weights(name, activations, 1)
        expected, outer = OUTER[name]((scale * votes[0]) @ share, g[0])
        close(poses[0], expected)
        close(gradient[0], outer[:, None] * share)
        if routing.find(name).READOUT == "length":
            close(lengths[0], np.linalg.norm(expected))


@pytest.mark.core
@pytest.mark.parametrize("name", ["em", "self_routing", "uniform"])
def test_one_child_s_parents_are_its_votes(name, random):
    """Whatever its shares, unless they scale the sum: those that depend on the votes do."""
    votes, activations, g = drawn(random, PARENTS, 1)
    share = weights(name, activations, PARENTS)[0]
    poses, _, gradient = found(name, votes, activations, g)
    pairs = [OUTER[name](share * vote, each) for vote, each in zip(votes[..., 0], g, strict=True)]
    close(poses, [expected for expected, _ in pairs])
    close(gradient[..., 0], [share * outer for _, outer in pairs])


# What one child's result does not depend on: its activation is divided by itself.
WITHOUT_EFFECT = {"self_routing": ("activations",)}


@pytest.mark.core
@pytest.mark.parametrize("name", EVERY)
def test_one_child_is_routed_as_by_the_reference(name, monkeypatch):
    """Values, and gradients by slopes, within ten times the table, which is of nine children."""
    size, without = "one child", WITHOUT_EFFECT.get(name, ())
    case = measure.CASES[name]._replace(sizes={size: (PARENTS, DIM, 1, 2)})
    monkeypatch.setitem(measure.CASES, name, case)
    bound = bounds.read()["bounds"][name]["small"]
    for dtype, seed in itertools.product(("float64", "float32"), range(2)):
        with jax.enable_x64(dtype == "float64"), jax.debug_nans(True):
            values, gradients = measure.found(name, size, seed, dtype)
        expected = measure.exact(name, size, seed, dtype)
        for none in without:
            assert np.abs(gradients[none]).max() < 4 * np.finfo(dtype).eps
        counted = {key: array for key, array in expected.gradients.items() if key not in without}
        results = measure.Results(values, gradients)
        value, gradient = measure.errors(results, expected._replace(gradients=counted))
        if dtype == "float64":
            gradient = measure.error_of_exact_gradients(name, size, seed, without=without)
        assert value <= 10 * bound["value"][dtype]
        assert gradient <= 10 * bound["gradient"][dtype]


@pytest.mark.core
@pytest.mark.parametrize("name", ["squash", "squash_exponential"])
def test_squashing_very_short_and_very_long_vectors(name, random):
    s, g = random.normal(size=(2, DIM))
    # Of shorter ones the square, which the value is, leaves float32's range.
    for length in (1e-18, 1e-15, 1e-4, 1e4, 1e15, 1e30):
        vector = length * s / np.linalg.norm(s)
        with jax.debug_nans(True):
            value, pull = jax.vjp(getattr(ops, name), jnp.asarray(vector, jnp.float32))
            [gradient] = pull(jnp.asarray(g, jnp.float32))
        expected, slope = getattr(closed_forms, name)(vector, g)
        close(value, expected)
        close(gradient, slope)


# Losses: lengths, targets, the loss, its gradient

KINKS = np.array([0.0, 1.0, 0.9, 0.1, 0.0, 1.0])
PRESENT = np.array([1.0, 1, 1, 0, 0, 0])
ONE_OF_FOUR = np.array([0.0, 1, 0, 0])
TINY = 1e-7  # what negative_log_likelihood adds

EDGES = {
    "margin at its margins": (
        losses.margin_loss,
        (KINKS, PRESENT, 0.81 + 0.405, [-1.8, 0, 0, 0, 0, 0.9]),
    ),
    "margin of no class": (losses.margin_loss, (KINKS[:1], KINKS[:1], 0, [0])),
    "spread of equals": (
        losses.spread_loss,
        (np.zeros(4), ONE_OF_FOUR, 3 * 0.81, [1.8, -5.4, 1.8, 1.8]),
    ),
    "spread of a lead": (losses.spread_loss, (ONE_OF_FOUR, ONE_OF_FOUR, 0, np.zeros(4))),
    "spread of one class": (losses.spread_loss, (np.ones(1), np.ones(1), 0, [0])),
    "cross-entropy, right and sure": (
        losses.cross_entropy,
        (1024 * ONE_OF_FOUR, ONE_OF_FOUR, 0, np.zeros(4)),
    ),
    "cross-entropy, wrong and sure": (
        losses.cross_entropy,
        (-1024 * ONE_OF_FOUR, ONE_OF_FOUR, 1024 + np.log(3), [1 / 3, -1, 1 / 3, 1 / 3]),
    ),
    "cross-entropy of no class": (losses.cross_entropy, (np.ones(4), np.zeros(4), 0, np.zeros(4))),
    "cross-entropy of one class": (losses.cross_entropy, (np.ones(1), np.ones(1), 0, [0])),
    "likelihood of nothing": (
        losses.negative_log_likelihood,
        (np.zeros(4), ONE_OF_FOUR, np.log(4), np.array([0.25, -0.75, 0.25, 0.25]) / TINY),
    ),
    "likelihood of one class": (losses.negative_log_likelihood, (np.ones(1), np.ones(1), 0, [0])),
}


@pytest.mark.core
@pytest.mark.parametrize("case", EDGES)
def test_losses_at_their_edges(case, dtype):
    loss, (lengths, targets, expected, slope) = EDGES[case]
    arrays = (jnp.asarray(x, dtype) for x in (lengths, targets))
    with jax.debug_nans(True):
        value, gradient = jax.value_and_grad(loss)(*arrays)
    tolerance = 4 * float(jnp.finfo(dtype).eps)
    close(value, expected, tolerance)
    close(gradient, slope, tolerance)


@pytest.mark.core
def test_a_perfect_reconstruction_has_no_gradient_and_a_wrong_pixel_its_own(dtype):
    image = jnp.asarray(np.eye(3)[..., None], dtype)
    with jax.debug_nans(True):
        value, gradient = jax.value_and_grad(losses.reconstruction_loss)(image, image)
        np.testing.assert_array_equal(np.asarray(value), 0)
        np.testing.assert_array_equal(np.asarray(gradient), 0)
        gradient = jax.grad(losses.reconstruction_loss)(image.at[0, 1, 0].set(1), image)
    expected = np.zeros((3, 3, 1))
    expected[0, 1] = 2 * 0.0005
    close(gradient, expected, 4 * float(jnp.finfo(dtype).eps))
