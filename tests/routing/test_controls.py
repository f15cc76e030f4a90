"""The controls, uniform and random coupling, against the squashed sums that they should give."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax.routing import random_coupling, uniform
from tests.reference import uniform as reference

PARENTS, DIM, CHILDREN = 4, 6, 9


@pytest.fixture(params=["random", "clustered"])
def votes(request, random):
    """Of no structure, or with child i agreeing with others about parent i modulo 4."""
    votes = random.normal(size=(PARENTS, DIM, CHILDREN))
    if request.param == "clustered":
        for i in range(CHILDREN):
            votes[i % PARENTS, :, i] = [1, -1, 1, -1, 1, -1] + 0.1 * votes[i % PARENTS, :, i]
    return votes


def run(algorithm, votes, dtype, **options):
    config = algorithm.Config(**options)
    route = jax.jit(lambda v: algorithm.route(v, None, {}, config))
    return route(jnp.asarray(votes, dtype))


def assert_equal(result, expected, precision):
    close = partial(np.testing.assert_allclose, rtol=precision.tolerance, atol=precision.tolerance)
    close(result.coefficients, expected.coefficients)
    close(result.poses, expected.poses)
    close(result.activations, expected.activations)


@pytest.mark.core
def test_uniform_is_the_squashed_sum_over_the_number_of_parents(votes, precision):
    assert_equal(run(uniform, votes, precision.dtype), reference.route(votes), precision)


@pytest.mark.core
@pytest.mark.parametrize("seed", [0, 1])
def test_random_coupling_is_the_squashed_sum_by_its_coefficients(votes, precision, seed):
    result = run(random_coupling, votes, precision.dtype, seed=seed)
    coefficients = np.asarray(result.coefficients, np.float64)
    assert np.all(coefficients >= 0)
    np.testing.assert_allclose(coefficients.sum(axis=0), 1.0, rtol=precision.tolerance)
    assert_equal(result, reference.route(votes, coefficients), precision)


@pytest.mark.core
def test_random_coupling_is_drawn_by_its_seed_and_not_by_the_votes(random):
    votes = random.normal(size=(PARENTS, DIM, CHILDREN))
    draw = partial(run, random_coupling, dtype=jnp.float32)
    first = draw(votes, seed=0).coefficients
    np.testing.assert_array_equal(draw(votes, seed=0).coefficients, first)
    np.testing.assert_array_equal(draw(-2 * votes, seed=0).coefficients, first)
    other = draw(votes, seed=1).coefficients
    assert np.max(np.abs(other - first)) > 0.01


# From here on: the reference itself.


def test_by_hand_two_children_and_two_parents():
    votes = np.array([[[3.0, 3.0], [4.0, 4.0]], [[1.0, -1.0], [0.0, 0.0]]])
    result = reference.route(votes)
    # The sums over 2 parents are (3, 4), of length 5, and 0.
    np.testing.assert_allclose(result.poses, [[15 / 26, 20 / 26], [0.0, 0.0]], rtol=1e-12)
    np.testing.assert_allclose(result.activations, [25 / 26, 0.0], rtol=1e-12)
