"""Inverted dot-product attention against its equations, and that reference by hand."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax.routing import inverted_attention
from tests.reference import inverted_attention as reference

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
@pytest.mark.parametrize("num_iterations", [1, 3])
def test_every_iteration_equals_the_equations(votes, random, precision, num_iterations):
    params = {"scale": random.uniform(0.5, 2.0, DIM), "offset": random.normal(size=DIM)}
    config = inverted_attention.Config(num_iterations=num_iterations)
    arrays = jax.tree.map(lambda x: jnp.asarray(x, precision.dtype), (votes, params))
    route = jax.jit(lambda v, p: inverted_attention.route(v, None, p, config, trace=True))
    result = route(*arrays)
    iterations = reference.route(votes, params, num_iterations)
    close = partial(np.testing.assert_allclose, rtol=precision.tolerance, atol=precision.tolerance)
    assert len(result.trace.poses) == num_iterations
    for index, expected in enumerate(iterations):
        close(result.trace.coefficients[index], expected.coefficients)
        close(result.trace.poses[index], expected.poses)
    close(result.poses, iterations[-1].poses)
    close(result.coefficients, iterations[-1].coefficients)
    assert result.activations is None
    assert result.trace.activations is None


# From here on: the reference itself.


def test_by_hand_one_child_and_two_parents():
    votes = np.array([[4.0, 0.0], [0.0, 2.0]])[:, :, None]
    params = {"scale": np.array([2.0, 3.0]), "offset": np.array([0.0, 1.0])}
    first, second = reference.route(votes, params, 2)
    np.testing.assert_array_equal(first.coefficients, 0.5)
    # The sums (2, 0) and (0, 1) have means 1 and 1/2 and variances 1 and 1/4.
    x, y = 1 / math.sqrt(1 + 1e-5), 0.5 / math.sqrt(0.25 + 1e-5)
    np.testing.assert_allclose(first.poses, [[2 * x, 1 - 3 * x], [-2 * y, 1 + 3 * y]], rtol=1e-12)
    difference = (4 * 2 * x - 2 * (1 + 3 * y)) / math.sqrt(2)
    np.testing.assert_allclose(second.coefficients[0], 1 / (1 + math.exp(-difference)), rtol=1e-12)


def test_by_hand_poses_before_scale_and_offset_have_mean_zero_and_variance_one(votes):
    params = {"scale": np.ones(DIM), "offset": np.zeros(DIM)}
    for step in reference.route(votes, params, 3):
        np.testing.assert_allclose(step.poses.mean(axis=1), 0.0, atol=1e-12)
        np.testing.assert_allclose(step.poses.var(axis=1), 1.0, rtol=1e-3)
        np.testing.assert_allclose(step.coefficients.sum(axis=0), 1.0, rtol=1e-12)
