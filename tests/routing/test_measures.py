"""Measures of a routing, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from capsjax.routing import dynamic, measures

UNIFORM = jnp.full((4, 5), 0.25)
ONE_HOT = jnp.zeros((4, 5)).at[1].set(1.0)
MIXED = jnp.array([[0.5, 1.0], [0.5, 0.0]])  # one child torn, one decided


@pytest.mark.core
def test_entropy_from_none_to_the_logarithm_of_the_parents():
    assert float(measures.entropy(UNIFORM)) == pytest.approx(np.log(4), rel=1e-6)
    assert float(measures.entropy(ONE_HOT)) == 0
    assert float(measures.entropy(MIXED)) == pytest.approx(np.log(2) / 2, rel=1e-6)


def test_entropy_takes_shares_of_what_does_not_sum_to_one():
    assert float(measures.entropy(0.3 * UNIFORM)) == pytest.approx(np.log(4), rel=1e-6)
    assert float(measures.entropy(jnp.array([[-1.0], [2.0]]))) == 0
    assert float(measures.entropy(jnp.zeros((3, 2)))) == 0


@pytest.mark.core
def test_polarisation_is_the_mean_largest_share():
    assert float(measures.polarisation(UNIFORM)) == 0.25
    assert float(measures.polarisation(MIXED)) == 0.75


@pytest.mark.core
def test_agreement_is_the_mean_cosine_by_coefficients():
    # Two children, one parent with pose (1, 0): votes along it, and at 60 degrees from it.
    votes = jnp.array([[[2.0, 0.5], [0.0, 0.5 * 3**0.5]]])
    poses = jnp.array([[1.0, 0.0]])
    even, uneven = jnp.array([[0.5, 0.5]]), jnp.array([[0.75, 0.25]])
    assert float(measures.agreement(even, votes, poses)) == pytest.approx(0.75, rel=1e-6)
    assert float(measures.agreement(uneven, votes, poses)) == pytest.approx(0.875, rel=1e-6)
    assert float(measures.agreement(even, -votes, poses)) == pytest.approx(-0.75, rel=1e-6)


def test_votes_and_coefficients_of_zero_agree_with_nothing():
    votes, poses = jnp.zeros((1, 2, 3)), jnp.ones((1, 2))
    assert float(measures.agreement(jnp.ones((1, 3)), votes, poses)) == 0
    assert float(measures.agreement(jnp.zeros((1, 3)), votes + 1, poses)) == 0


@pytest.mark.core
def test_change_compares_each_iteration_with_the_one_before():
    trace = jnp.stack([UNIFORM, UNIFORM, ONE_HOT])
    np.testing.assert_allclose(measures.change(trace), [0, 0.75])


@pytest.mark.core
def test_coefficient_variance_is_over_examples():
    batch = jnp.stack([MIXED, MIXED.at[0, 0].set(0.1)])
    expected = ((0.5 - 0.3) ** 2) / 4  # of one pair among four
    assert float(measures.coefficient_variance(batch)) == pytest.approx(expected, rel=1e-5)
    assert float(measures.coefficient_variance(jnp.stack([MIXED, MIXED]))) == 0


@pytest.mark.core
def test_strongest_share_of_the_mass():
    assert float(measures.strongest_share(UNIFORM)) == 0.25
    assert float(measures.strongest_share(MIXED)) == 0.75
    assert float(measures.strongest_share(jnp.zeros((2, 3)))) == 0


@pytest.mark.core
def test_dead_parents_are_those_of_a_low_mean_activation():
    activations = jnp.array([[0.0, 0.5, 0.015, 0.0], [0.0, 0.0, 0.0, 0.03]])
    assert float(measures.dead_share(activations)) == 0.5
    assert float(measures.dead_share(activations, threshold=0.3)) == 1.0


def test_leading_axes_are_kept(random):
    coefficients = jnp.asarray(random.dirichlet(np.ones(4), size=(2, 3, 5)).swapaxes(-1, -2))
    for measure in (measures.entropy, measures.polarisation, measures.strongest_share):
        found = measure(coefficients)
        assert found.shape == (2, 3)
        np.testing.assert_allclose(found[1, 2], measure(coefficients[1, 2]), rtol=1e-6)
    assert measures.change(coefficients).shape == (1, 3)
    assert measures.coefficient_variance(coefficients).shape == (3,)


def test_by_iteration_has_every_measure_of_a_trace(random):
    votes = jnp.asarray(random.normal(size=(3, 4, 6)), jnp.float32)
    trace = dynamic.route(votes, config=dynamic.Config(num_iterations=5), trace=True).trace
    found = measures.by_iteration(trace.coefficients, votes, trace.poses)
    assert {name: value.shape for name, value in found.items()} == {
        "entropy": (5,),
        "polarisation": (5,),
        "agreement": (5,),
        "change": (4,),
    }
    expected = measures.agreement(trace.coefficients[2], votes, trace.poses[2])
    np.testing.assert_allclose(found["agreement"][2], expected, rtol=1e-6)


def test_agreement_does_not_depend_on_the_length_of_votes_and_poses():
    votes, poses = jnp.ones((2, 3, 4)), jnp.ones((2, 3))
    for scale in (1e-30, 1e-15, 1.0, 1e30):
        found = measures.agreement(jnp.full((2, 4), 0.5), scale * votes, scale * poses)
        assert float(found) == pytest.approx(1, rel=1e-5), scale


def test_negative_coefficients_of_a_prior_count_as_none():
    coefficients = jnp.array([[1.5, 0.5], [-1.0, 0.0]])
    votes = jnp.array([[[1.0, 1.0]], [[1.0, 1.0]]])
    poses = jnp.array([[1.0], [-1.0]])
    assert float(measures.agreement(coefficients, votes, poses)) == 1
    assert float(measures.strongest_share(coefficients)) == 1
