"""Self-routing against its equations, and that reference by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Capsules
from capsjax.routing import self_routing
from tests.reference import self_routing as reference

PARENTS, DIM, CHILDREN, CHILD_DIM = 4, 6, 9, 5


@pytest.fixture(params=["random", "clustered"])
def votes(request, random):
    """Of no structure, or with child i agreeing with others about parent i modulo 4."""
    votes = random.normal(size=(PARENTS, DIM, CHILDREN))
    if request.param == "clustered":
        for i in range(CHILDREN):
            votes[i % PARENTS, :, i] = [1, -1, 1, -1, 1, -1] + 0.1 * votes[i % PARENTS, :, i]
    return votes


@pytest.fixture
def children(random):
    poses = random.normal(size=(CHILDREN, CHILD_DIM))
    return Capsules(poses, random.uniform(0.1, 0.9, CHILDREN))


@pytest.fixture
def params(random):
    return {
        "kernel": random.normal(size=(CHILD_DIM, PARENTS, CHILDREN)),
        "bias": random.normal(size=(PARENTS, CHILDREN)),
    }


def assert_equal_to_reference(votes, children, params, precision):
    arrays = jax.tree.map(lambda x: jnp.asarray(x, precision.dtype), (votes, children, params))
    result = jax.jit(partial(self_routing.route, config=self_routing.Config()))(*arrays)
    expected = reference.route(votes, children.poses, children.activations, params)
    close = partial(np.testing.assert_allclose, rtol=precision.tolerance, atol=precision.tolerance)
    close(result.coefficients, expected.coefficients)
    close(result.poses, expected.poses)
    close(result.activations, expected.activations)


@pytest.mark.core
def test_the_result_equals_the_equations(votes, children, params, precision):
    assert_equal_to_reference(votes, children, params, precision)


@pytest.mark.parametrize("silent", [2, CHILDREN])
def test_the_result_equals_the_equations_with_silent_children(
    random, children, params, precision, silent
):
    votes = random.normal(size=(PARENTS, DIM, CHILDREN))
    children.activations[:silent] = 0.0
    assert_equal_to_reference(votes, children, params, precision)


# From here on: the reference itself.


def test_by_hand_zero_parameters_average_the_votes(votes, children, params):
    zeros = {name: np.zeros_like(value) for name, value in params.items()}
    result = reference.route(votes, children.poses, children.activations, zeros)
    np.testing.assert_array_equal(result.coefficients, 1 / PARENTS)
    np.testing.assert_allclose(result.activations, 1 / PARENTS, rtol=1e-12)
    average = np.average(votes, axis=2, weights=children.activations)
    np.testing.assert_allclose(result.poses, average, rtol=1e-12)


def test_by_hand_two_parents_and_two_children():
    votes = np.array([[[1.0, 5.0]], [[2.0, 4.0]]])
    kernel = np.array([[[np.log(3.0), 0.0], [0.0, 0.0]]])
    params = {"kernel": kernel, "bias": np.array([[0.0, 0.0], [0.0, np.log(3.0)]])}
    result = reference.route(votes, np.ones((2, 1)), np.array([0.4, 0.8]), params)
    np.testing.assert_allclose(result.coefficients, [[0.75, 0.25], [0.25, 0.75]], rtol=1e-12)
    # Weights 0.3 and 0.2 of the first parent, 0.1 and 0.6 of the second.
    np.testing.assert_allclose(result.activations, [0.5 / 1.2, 0.7 / 1.2], rtol=1e-12)
    np.testing.assert_allclose(result.poses, [[1.3 / 0.5], [2.6 / 0.7]], rtol=1e-12)


def test_by_hand_silent_children_give_nothing(votes, children, params):
    result = reference.route(votes, children.poses, np.zeros(CHILDREN), params)
    np.testing.assert_array_equal(result.poses, 0.0)
    np.testing.assert_array_equal(result.activations, 0.0)
