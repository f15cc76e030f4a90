"""Self-attention routing against its equations, and that reference by hand."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax.routing import self_attention
from tests.reference import self_attention as reference

PARENTS, DIM, CHILDREN = 4, 6, 9


@pytest.fixture(params=["random", "clustered"])
def votes(request, random):
    """Of no structure, or with child i agreeing with others about parent i modulo 4."""
    votes = random.normal(size=(PARENTS, DIM, CHILDREN))
    if request.param == "clustered":
        for i in range(CHILDREN):
            votes[i % PARENTS, :, i] = [1, -1, 1, -1, 1, -1] + 0.1 * votes[i % PARENTS, :, i]
    return votes


@pytest.mark.core
@pytest.mark.parametrize("has_prior", [True, False])
def test_the_result_equals_the_equations(votes, random, precision, has_prior):
    prior = random.normal(size=(PARENTS, CHILDREN)) if has_prior else None
    params = {"prior": jnp.asarray(prior, precision.dtype)} if has_prior else {}
    config = self_attention.Config(prior=has_prior)
    route = jax.jit(lambda v, p: self_attention.route(v, None, p, config))
    result = route(jnp.asarray(votes, precision.dtype), params)
    expected = reference.route(votes, prior)
    close = partial(np.testing.assert_allclose, rtol=precision.tolerance, atol=precision.tolerance)
    close(result.coefficients, expected.coefficients)
    close(result.poses, expected.poses)
    close(result.activations, expected.activations)


# From here on: the reference itself.


def test_by_hand_one_child_and_two_parents():
    votes = np.array([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])[:, :, None]
    prior = np.array([[0.5], [-0.25]])
    result = reference.route(votes, prior)
    # The self-products over sqrt(4) are 2 and 1/2.
    share = math.exp(2) / (math.exp(2) + math.exp(0.5))
    np.testing.assert_allclose(result.coefficients, [[share + 0.5], [0.75 - share]], rtol=1e-12)
    lengths = [1 - math.exp(-2 * (share + 0.5)), 1 - math.exp(-abs(0.75 - share))]
    np.testing.assert_allclose(result.activations, lengths, rtol=1e-12)
    np.testing.assert_allclose(result.poses[0], [lengths[0], 0, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(result.poses[1], [0, 0, 0, -lengths[1]], rtol=1e-12)


def test_by_hand_two_children_attend_to_themselves_and_to_each_other():
    votes = np.array([[[1.0, 2.0]], [[1.0, -2.0]]])
    # Over parents: 1 + 2 and 1 - 2 for the first child, 4 + 2 and 4 - 2 for the second.
    shares = [1 / (1 + math.exp(-4)), 1 / (1 + math.exp(-4))]
    np.testing.assert_allclose(reference.route(votes).coefficients[0], shares, rtol=1e-12)


def test_by_hand_zero_votes_give_zero_poses():
    result = reference.route(np.zeros((PARENTS, DIM, CHILDREN)))
    np.testing.assert_array_equal(result.coefficients, 1 / PARENTS)
    np.testing.assert_array_equal(result.poses, 0.0)
