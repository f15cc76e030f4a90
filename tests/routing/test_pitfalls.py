"""Where implementations of routing have failed, beside what the other tests ask of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Capsules
from capsjax.routing import dynamic, em
from tests.reference import em as reference

PARENTS, DIM, CHILDREN = 3, 4, 8


@pytest.mark.parametrize("bias", [False, True])
def test_only_a_bias_tells_votes_from_their_opposites(random, x64, bias):
    votes = jnp.asarray(random.normal(size=(PARENTS, DIM, CHILDREN)))
    params = {"bias": jnp.asarray(random.normal(size=(PARENTS, DIM)))}

    def lengths(votes):
        return dynamic.route(votes, None, params, dynamic.Config(bias=bias)).activations

    difference = np.abs(lengths(votes) - lengths(-votes))
    assert difference.max() > 0.01 if bias else difference.max() == 0


def test_em_goes_on_where_all_parents_are_off(random):
    """Their activations are 0 in float32, but not their logarithms, which decide."""
    votes = random.normal(size=(PARENTS, DIM, CHILDREN))
    children = Capsules(np.zeros((CHILDREN, 5)), random.uniform(0.1, 0.9, CHILDREN))
    params = {"beta_a": np.full(PARENTS, -1e6), "beta_u": np.zeros(PARENTS)}
    expected = reference.route(votes, children.activations, params, 3)[-1]
    narrow = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (votes, children, params))

    def total(votes):
        routed = em.route(votes, *narrow[1:])
        return jnp.sum(routed.poses**2), routed

    with jax.debug_nans(True):
        gradient, found = jax.jit(jax.grad(total, has_aux=True))(narrow[0])
    np.testing.assert_array_equal(found.activations, np.zeros(PARENTS))
    np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-3)
    np.testing.assert_allclose(found.poses, expected.poses, atol=1e-3)
    assert np.isfinite(gradient).all()
