"""What single routings promise beyond the conformance kit, and where a promise ends."""

from functools import partial
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsjax import Capsules, routing, testing
from capsjax.routing import (
    convergence,
    dynamic,
    em,
    self_attention,
    self_routing,
    uniform,
    variational_bayes,
)
from tests.conftest import bare
from tests.reference import em as reference

PARENTS, CHILDREN = 3, 8


def orthogonal(random, size):
    turn, _ = np.linalg.qr(random.normal(size=(size, size)))
    return turn


@pytest.fixture
def children(random):
    poses = random.normal(size=(CHILDREN, 5))
    return Capsules(jnp.asarray(poses), jnp.asarray(random.uniform(0.1, 0.9, CHILDREN)))


# Viewpoint: matrix capsules


def matrix_votes(poses, transforms):
    """Votes [parents, 16, children] of 4x4 poses [children, 4, 4] through one matrix a pair."""
    return jnp.einsum("iab,jibc->jaci", poses, transforms).reshape(len(transforms), 16, -1)


VIEWPOINT = {
    "uniform": partial(uniform.route, config=uniform.Config()),
    "self_attention": partial(self_attention.route, config=self_attention.Config(prior=False)),
    "dynamic": partial(dynamic.route, config=dynamic.Config()),
}


@pytest.mark.core
@pytest.mark.parametrize("name", VIEWPOINT)
def test_a_turned_viewpoint_turns_the_wholes_and_leaves_the_coefficients(name, random, x64):
    poses = random.normal(size=(CHILDREN, 4, 4))
    transforms = random.normal(size=(PARENTS, CHILDREN, 4, 4)) / 2
    turn = orthogonal(random, 4)
    route = jax.jit(VIEWPOINT[name])
    plain, turned = (route(matrix_votes(p, transforms)) for p in (poses, turn @ poses))
    expected = turn @ np.asarray(plain.poses).reshape(PARENTS, 4, 4)
    np.testing.assert_allclose(turned.poses.reshape(PARENTS, 4, 4), expected, atol=1e-12)
    np.testing.assert_allclose(turned.coefficients, plain.coefficients, atol=1e-12)


def test_a_bias_breaks_the_viewpoint(random, x64):
    poses = random.normal(size=(CHILDREN, 4, 4))
    transforms = random.normal(size=(PARENTS, CHILDREN, 4, 4)) / 2
    turn, params = orthogonal(random, 4), {"bias": jnp.asarray(random.normal(size=(PARENTS, 16)))}
    route = jax.jit(lambda v: dynamic.route(v, None, params, dynamic.Config(bias=True)))
    plain, turned = (route(matrix_votes(p, transforms)) for p in (poses, turn @ poses))
    expected = turn @ np.asarray(plain.poses).reshape(PARENTS, 4, 4)
    broken = np.abs(np.asarray(turned.poses).reshape(PARENTS, 4, 4) - expected).max()
    assert broken > 0.05  # 0.12 for these votes, of poses whose entries are below 1


# EM


def em_params(semantics="paper"):
    return em.init(
        em.Config(semantics=semantics),
        jax.random.key(0),
        parents=PARENTS,
        dim=4,
        children=CHILDREN,
        child_dim=5,
    )


@pytest.mark.parametrize(("semantics", "holds"), [("paper", True), ("official", False)])
def test_em_follows_a_translation_in_the_paper_s_semantics_only(
    semantics, holds, random, children, x64
):
    votes, shift = random.normal(size=(PARENTS, 4, CHILDREN)), random.normal(size=4)
    config = em.Config(semantics=semantics)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), em_params(semantics))
    route = jax.jit(lambda v: em.route(v, children, params, config).poses)
    error = np.abs(np.asarray(route(votes + shift[:, None]) - route(votes)) - shift).max()
    assert (error < 1e-12) == holds
    assert holds or error > 0.001


@pytest.mark.core
def test_em_without_any_active_child_is_the_documented_state(random):
    votes = jnp.asarray(random.normal(size=(PARENTS, 4, CHILDREN)), jnp.float32)
    children = Capsules(jnp.zeros((CHILDREN, 5)), jnp.zeros(CHILDREN))
    params = {"beta_a": jnp.array([0.0, 300.0, -200.0]), "beta_u": jnp.ones(PARENTS)}
    routed = em.route(votes, children, params)
    np.testing.assert_array_equal(routed.poses, np.zeros((PARENTS, 4)))
    np.testing.assert_array_equal(routed.state.variances, np.full((PARENTS, 4), np.float32(5e-4)))
    temperature = 0.01 * (1 - 0.95**3)
    expected = 1 / (1 + np.exp(-temperature * np.asarray(params["beta_a"], np.float64)))
    np.testing.assert_allclose(routed.activations, expected, rtol=1e-5)


def test_variational_bayes_without_any_active_child_is_its_prior(random):
    votes = jnp.asarray(random.normal(size=(PARENTS, 4, CHILDREN)), jnp.float32)
    children = Capsules(jnp.zeros((CHILDREN, 5)), jnp.zeros(CHILDREN))
    params = {"beta_a": jnp.zeros(PARENTS), "beta_u": jnp.zeros(PARENTS)}
    state = variational_bayes.route(votes, children, params).state
    np.testing.assert_array_equal(state.means, np.zeros((PARENTS, 4)))
    np.testing.assert_array_equal(state.scale, np.ones((PARENTS, 4)))
    np.testing.assert_array_equal(state.mass, np.zeros(PARENTS))


def test_self_routing_without_any_active_child_is_off(random):
    votes = jnp.asarray(random.normal(size=(PARENTS, 4, CHILDREN)), jnp.float32)
    children = Capsules(jnp.ones((CHILDREN, 5)), jnp.zeros(CHILDREN))
    params = self_routing.init(
        self_routing.Config(),
        jax.random.key(0),
        parents=PARENTS,
        dim=4,
        children=CHILDREN,
        child_dim=5,
    )
    routed = self_routing.route(votes, children, params)
    np.testing.assert_array_equal(routed.poses, np.zeros((PARENTS, 4)))
    np.testing.assert_array_equal(routed.activations, np.zeros(PARENTS))


def energy(votes, children, coefficients, means, variances, activations):
    arrays = (votes, children.activations, coefficients, means, variances, activations)
    return reference.free_energy(*(np.asarray(x, np.float64) for x in arrays))


@jax.jit
def half_steps(votes, children, logits):
    """Coefficients, then means and variances, of four iterations with fixed activations."""
    config, state = em.Config(), em.State(None, None, None, None)
    found = []
    for _ in range(4):
        coefficients = em.expectation(state, votes, None, votes.dtype)
        weights = coefficients * children.activations[None]
        means, variances, _ = em.maximisation(weights, votes, None, config)
        state = em.State(coefficients, means, variances, logits)
        found.append((coefficients, means, variances))
    return found


@given(testing.votes("clustered", "uniform", children=CHILDREN), st.integers(0, 2**32 - 1))
def test_em_never_raises_its_free_energy_while_activations_are_fixed(votes, seed):
    with jax.enable_x64(True):
        random = np.random.default_rng(seed)
        activations = jnp.asarray(random.uniform(0.1, 0.9, CHILDREN))
        children = Capsules(jnp.zeros((CHILDREN, 5)), activations)
        logits = jnp.asarray(random.normal(size=PARENTS))
        fixed = 1 / (1 + np.exp(-np.asarray(logits)))
        energies, means, variances = [], None, None
        for coefficients, new_means, new_variances in half_steps(votes, children, logits):
            if means is not None:
                energies.append(energy(votes, children, coefficients, means, variances, fixed))
            means, variances = new_means, new_variances
            energies.append(energy(votes, children, coefficients, means, variances, fixed))
        assert np.all(np.diff(energies) <= 1e-9 * np.abs(energies[:-1]).max())


def test_the_full_step_with_new_activations_may_raise_em_s_free_energy(x64):
    # Dear parents (beta_u) are switched off as the inverse temperature rises.
    votes = jnp.asarray(testing.draw_votes("clustered", 1, children=CHILDREN))
    drawn = jax.tree.map(jnp.asarray, testing.draw_children(1, children=CHILDREN))
    params = {"beta_a": jnp.zeros(PARENTS), "beta_u": jnp.full(PARENTS, 4.0)}
    single, results = em.Config(num_iterations=1), [None]
    for _ in range(8):
        step = jax.jit(partial(em.route, config=single))
        results.append(step(votes, drawn, params, initial=results[-1]))
    energies = [
        energy(votes, drawn, r.coefficients, r.poses, r.state.variances, r.activations)
        for r in results[1:]
    ]
    assert np.diff(energies).max() > 0.005


def test_em_s_steps_are_those_of_a_gaussian_mixture(random, children, x64):
    votes = random.normal(size=(PARENTS, 4, CHILDREN))
    coefficients = random.dirichlet(np.ones(PARENTS), size=CHILDREN).T
    weights = coefficients * np.asarray(children.activations)
    means, variances, mass = em.maximisation(jnp.asarray(weights), votes, None, em.Config())
    shares = np.asarray(mass / mass.sum())
    expected = reference.gaussian_mixture_step(
        votes, np.asarray(children.activations), coefficients, shares
    )
    np.testing.assert_allclose(means, expected.means, rtol=1e-10)
    np.testing.assert_allclose(variances, expected.variances, rtol=1e-10)
    logits = jnp.log(shares) - jnp.log1p(-shares)
    state = em.State(jnp.asarray(coefficients), means, variances, logits)
    found = em.expectation(state, votes, None, jnp.float64)
    np.testing.assert_allclose(found, expected[3], rtol=1e-9)


# Symmetry


def test_identical_votes_never_break_symmetry(children, x64):
    votes = np.array(np.broadcast_to([[[0.3], [-1.0], [2.0], [0.1]]], (PARENTS, 4, CHILDREN)))
    for module, params in (
        (dynamic, {}),
        (em, em_params()),
        (variational_bayes, {"beta_a": jnp.zeros(PARENTS), "beta_u": jnp.zeros(PARENTS)}),
    ):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        config = module.Config(num_iterations=50)
        routed = jax.jit(partial(module.route, config=config))(jnp.asarray(votes), children, params)
        np.testing.assert_allclose(routed.coefficients, 1 / PARENTS, rtol=1e-9)


def test_self_routing_sees_the_sign_of_its_children(random, x64):
    votes = random.normal(size=(PARENTS, 4, CHILDREN))
    poses = random.normal(size=(CHILDREN, 5))
    activations = jnp.ones(CHILDREN)
    params = {
        "kernel": jnp.asarray(random.normal(size=(5, PARENTS, CHILDREN))),
        "bias": jnp.zeros((PARENTS, CHILDREN)),
    }
    plain = self_routing.route(votes, Capsules(jnp.asarray(poses), activations), params)
    mirrored = self_routing.route(-votes, Capsules(jnp.asarray(-poses), activations), params)
    assert np.abs(np.asarray(plain.coefficients - mirrored.coefficients)).max() > 0.1


@pytest.mark.core
def test_one_iteration_of_dynamic_is_uniform(random, x64):
    votes = jnp.asarray(random.normal(size=(PARENTS, 4, CHILDREN)))
    once = dynamic.route(votes, config=dynamic.Config(num_iterations=1))
    control = uniform.route(votes)
    np.testing.assert_allclose(once.poses, control.poses, rtol=1e-12)
    np.testing.assert_allclose(once.coefficients, control.coefficients, rtol=1e-12)


# What reviews found


@pytest.mark.core
@pytest.mark.parametrize("name", ["self_attention", "inverted_attention"])
@pytest.mark.parametrize("dim", [5, 8])
def test_long_votes_of_any_dimension_stay_finite(name, dim):
    """Where the root of the dimension is no power of two, too; 1e13 ** 2 * 16 * 24 < 3e38."""
    module = routing.find(name)
    config, count = module.Config(), 24
    params = module.init(
        config, jax.random.key(0), parents=PARENTS, dim=dim, children=count, child_dim=5
    )
    run = jax.jit(
        jax.value_and_grad(lambda v: jnp.sum(module.route(v, None, params, config).poses))
    )
    for scale in (1e2, 1e4, 1e6, 1e10, 1e13):
        votes = scale * np.random.default_rng(0).normal(size=(PARENTS, dim, count))
        value, gradient = run(jnp.asarray(votes, jnp.float32))
        assert np.isfinite(value), scale
        assert np.all(np.isfinite(gradient)), scale


@pytest.mark.parametrize("name", ["em", "variational_bayes", "self_routing"])
def test_faint_children_have_finite_gradients(name, random):
    module = routing.find(name)
    config = module.Config()
    params = module.init(
        config, jax.random.key(0), parents=PARENTS, dim=4, children=CHILDREN, child_dim=5
    )
    votes = jnp.asarray(random.normal(size=(PARENTS, 4, CHILDREN)), jnp.float32)
    poses = jnp.asarray(random.normal(size=(CHILDREN, 5)), jnp.float32)

    def total(activations):
        routed = module.route(votes, Capsules(poses, activations), params, config)
        return jnp.sum(routed.poses) + jnp.sum(routed.activations)

    run = jax.jit(jax.value_and_grad(total))
    for activation in 10.0 ** np.arange(-38, 0):
        value, gradient = run(jnp.full(CHILDREN, activation, jnp.float32))
        assert np.isfinite(value), activation
        assert np.all(np.isfinite(gradient)), activation


def test_em_at_a_tolerance_reaches_its_last_temperature(x64):
    """Equal votes for two parents: their shares stand still until the activations matter."""
    votes = jnp.zeros((2, 4, CHILDREN))
    children = Capsules(jnp.zeros((CHILDREN, 5)), jnp.ones(CHILDREN))
    params = {"beta_a": jnp.array([0.0, 100.0]), "beta_u": jnp.zeros(2)}
    loop = convergence.Loop("last_iteration", tolerance=1e-3)
    config = em.Config(num_iterations=10, loop=loop)
    found = em.route(votes, children, params, config)
    assert int(found.iterations) >= 10
    expected = em.route(votes, children, params, em.Config(num_iterations=10))
    # At least as far as the fixed count.
    assert found.activations[1] >= expected.activations[1] - 1e-12


def test_integers_are_no_votes():
    for module in routing.ALGORITHMS.values():
        with pytest.raises(ValueError, match="votes are int32, expected a float type"):
            bare(module.route)(jnp.ones((3, 4, 5), jnp.int32))


def test_a_module_with_another_routing_s_config_is_refused():
    module = ModuleType("borrowed")
    module.Config, module.init, module.route = dynamic.Config, dynamic.init, dynamic.route
    module.READOUT, module.SOURCE = dynamic.READOUT, dynamic.SOURCE
    with pytest.raises(ValueError, match=r"borrowed\.Config is that of capsjax\.routing\.dynamic"):
        bare(routing.config_of)(module)
