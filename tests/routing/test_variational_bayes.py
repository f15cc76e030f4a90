"""Variational Bayes routing against its equations, and that reference by hand."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Capsules
from capsjax.routing import variational_bayes
from tests.reference import variational_bayes as reference

PARENTS, DIM, CHILDREN, CHILD_DIM = 4, 6, 9, 5
EULER = 0.5772156649015329


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
    return {"beta_a": random.normal(size=PARENTS), "beta_u": random.normal(size=PARENTS)}


def assert_equal_to_reference(votes, children, params, precision, **options):
    config = variational_bayes.Config(num_iterations=3, **options)
    arrays = jax.tree.map(lambda x: jnp.asarray(x, precision.dtype), (votes, children, params))
    route = partial(variational_bayes.route, config=config, trace=True)
    result = jax.jit(route)(*arrays)
    iterations = reference.route(votes, children.activations, params, 3, **options)
    close = partial(np.testing.assert_allclose, rtol=precision.tolerance, atol=precision.tolerance)
    for index, expected in enumerate(iterations):
        close(result.trace.coefficients[index], expected.coefficients)
        close(result.trace.poses[index], expected.poses)
        close(result.trace.activations[index], expected.activations)
    close(result.poses, iterations[-1].poses)
    close(result.coefficients, iterations[-1].coefficients)
    close(result.activations, iterations[-1].activations)


@pytest.mark.core
@pytest.mark.parametrize(
    ("covariance", "activation"),
    [("diagonal", "sigmoid"), ("diagonal", "identity"), ("full", "sigmoid")],
)
def test_every_iteration_equals_the_equations(
    votes, children, params, precision, covariance, activation
):
    assert_equal_to_reference(
        votes, children, params, precision, covariance=covariance, activation=activation
    )


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("silent", [2, CHILDREN])
def test_every_iteration_equals_the_equations_with_silent_children(
    random, children, params, precision, covariance, silent
):
    votes = random.normal(size=(PARENTS, DIM, CHILDREN))
    children.activations[:silent] = 0.0
    assert_equal_to_reference(votes, children, params, precision, covariance=covariance)


# From here on: the reference itself.


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_by_hand_zero_activations_leave_the_prior(random, params, covariance):
    votes = random.normal(size=(PARENTS, 2, CHILDREN))
    first = reference.route(
        votes, np.zeros(CHILDREN), params, 1, covariance=covariance, activation="identity"
    )[0]
    np.testing.assert_array_equal(first.poses, 0.0)
    np.testing.assert_array_equal(first.psi, np.broadcast_to(np.eye(2), (PARENTS, 2, 2)))
    for j in range(PARENTS):
        # psi(1) - psi(4), and psi(3/2) + psi(1) + 2 ln 2.
        share = reference.expected_log_share(first, j)
        np.testing.assert_allclose(share, -(1 + 1 / 2 + 1 / 3), rtol=1e-12)
        determinant = reference.expected_log_determinant(first, j)
        np.testing.assert_allclose(determinant, 2 - 2 * EULER, rtol=1e-12)
        distance = reference.expected_distance(first, j, np.array([1.0, 2.0]))
        np.testing.assert_allclose(distance, 2 + 3 * 5, rtol=1e-12)
    entropy = math.log(2 * math.pi) + EULER
    cost = math.exp(-11 / 6) * entropy + params["beta_u"]
    np.testing.assert_allclose(first.activations, params["beta_a"] - cost, rtol=1e-12)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_by_hand_one_vote_for_one_parent(covariance):
    votes = np.array([[[2.0], [4.0]]])
    posterior = reference.update(votes, np.ones(1), np.ones((1, 1)), covariance)
    np.testing.assert_array_equal((posterior.alpha, posterior.kappa, posterior.nu), [[2], [2], [4]])
    np.testing.assert_allclose(posterior.poses, [[1.0, 2.0]], rtol=1e-12)
    # The identity and, halved, the vote times itself.
    off = 0.0 if covariance == "diagonal" else 4.0
    np.testing.assert_allclose(posterior.psi, [[[3.0, off], [off, 9.0]]], rtol=1e-12)


def test_one_parent_has_the_posterior_of_a_bayesian_gaussian(random):
    votes, weights = random.normal(size=(1, DIM, CHILDREN)), random.uniform(0.1, 0.9, CHILDREN)
    posterior = reference.update(votes, weights, np.ones((1, CHILDREN)), "full")
    # The prior mean 0 is worth one more vote, of weight kappa0 = 1.
    points, counts = np.hstack([votes[0], np.zeros((DIM, 1))]), np.append(weights, 1.0)
    np.testing.assert_allclose(
        posterior.poses[0], np.average(points, axis=1, weights=counts), rtol=1e-12
    )
    scatter = np.cov(points, aweights=counts, bias=True) * counts.sum()
    np.testing.assert_allclose(posterior.psi[0], np.eye(DIM) + scatter, rtol=1e-10)


def test_the_lower_bound_rises_under_updates_and_e_steps(random):
    votes, weights = random.normal(size=(3, 2, 20)), random.uniform(0.1, 0.9, 20)
    coefficients = random.dirichlet([5.0] * 3, size=20).T
    bounds = []
    for _ in range(8):
        posterior = reference.update(votes, weights, coefficients, "full")
        bounds.append(reference.lower_bound(votes, weights, coefficients, posterior))
        coefficients = reference.e_step(votes, posterior)
        bounds.append(reference.lower_bound(votes, weights, coefficients, posterior))
    assert np.all(np.diff(bounds) > 0)


def test_the_update_is_where_the_lower_bound_is_highest(random):
    votes, weights = random.normal(size=(3, 2, 20)), random.uniform(0.1, 0.9, 20)
    coefficients = random.dirichlet([5.0] * 3, size=20).T
    best = reference.update(votes, weights, coefficients, "full")
    highest = reference.lower_bound(votes, weights, coefficients, best)
    for field in ("poses", "alpha", "kappa", "nu", "psi"):
        for factor in (0.98, 1.02):
            worse = best._replace(**{field: getattr(best, field) * factor})
            assert reference.lower_bound(votes, weights, coefficients, worse) < highest
