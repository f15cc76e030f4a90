"""EM routing against Procedure 1 and against the authors' code, and that reference by hand."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Capsules
from capsjax.routing import competition, em
from tests.conftest import bare_config
from tests.reference import em as reference

PARENTS, DIM, CHILDREN, CHILD_DIM = 4, 6, 9, 5
# The second of each has other activations and variances at their minimum.
PAPER = [("paper", 0.01, 5e-4), ("paper", 1.0, 0.5)]
OFFICIAL = [("official", 0.01, 5e-4), ("official", 0.02, 0.5)]


def run(votes, children, params, **options):
    """One compiled call with every iteration."""
    route = partial(em.route, config=em.Config(**options), trace=True)
    return jax.jit(route)(votes, children, params)


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


def draw(random, semantics):
    if semantics == "paper":
        return {"beta_u": random.normal(size=PARENTS), "beta_a": random.normal(size=PARENTS)}
    return {
        "activation_bias": random.uniform(0.2, 0.8, PARENTS),
        "sigma_bias": random.uniform(0.2, 0.8, PARENTS),
    }


def assert_equal_to_reference(votes, children, params, precision, semantics, lambda_, minimum):
    options = {
        "semantics": semantics,
        "final_inverse_temperature": lambda_,
        "minimum_variance": minimum,
    }
    arrays = jax.tree.map(lambda x: jnp.asarray(x, precision.dtype), (votes, children, params))
    result = run(*arrays, num_iterations=3, **options)
    iterations = reference.route(votes, children.activations, params, 3, **options)
    close = partial(np.testing.assert_allclose, rtol=precision.tolerance, atol=precision.tolerance)
    for index, expected in enumerate(iterations):
        close(result.trace.coefficients[index], expected.coefficients)
        close(result.trace.poses[index], expected.poses)
        close(result.trace.activations[index], expected.activations)
    close(result.poses, iterations[-1].poses)
    close(result.coefficients, iterations[-1].coefficients)
    close(result.activations, iterations[-1].activations)
    close(result.state.means, iterations[-1].poses)
    close(result.state.variances, iterations[-1].variances)


@pytest.mark.core
@pytest.mark.parametrize(("semantics", "lambda_", "minimum"), PAPER + OFFICIAL)
def test_every_iteration_equals_the_equations(
    votes, children, random, precision, semantics, lambda_, minimum
):
    params = draw(random, semantics)
    assert_equal_to_reference(votes, children, params, precision, semantics, lambda_, minimum)


@pytest.mark.core
def test_a_mean_cost_is_that_of_a_temperature_by_the_children_of_a_parent(
    votes, children, random, precision
):
    params, each = draw(random, "paper"), CHILDREN / PARENTS
    options = {"num_iterations": 3, "minimum_variance": 0.1}
    arrays = jax.tree.map(lambda x: jnp.asarray(x, precision.dtype), (votes, children, params))
    result = run(*arrays, cost="mean", final_inverse_temperature=2.0, **options)
    iterations = reference.route(
        votes,
        children.activations,
        {**params, "beta_a": each * params["beta_a"]},
        final_inverse_temperature=2.0 / each,
        **options,
    )
    close = partial(np.testing.assert_allclose, rtol=precision.tolerance, atol=precision.tolerance)
    for index, expected in enumerate(iterations):
        close(result.trace.coefficients[index], expected.coefficients)
        close(result.trace.poses[index], expected.poses)
        close(result.trace.activations[index], expected.activations)


def test_a_mean_cost_counts_the_windows_that_share_a_child(random):
    # Children 1 and 2 are each in two windows, so that a parent's even share is less of them.
    index = np.array([[0, 1, 2], [1, 2, 3]])
    children = Capsules(jnp.zeros((2, 3, DIM)), jnp.ones((2, 3)))
    params = em.init(em.Config(), jax.random.key(0), parents=2, dim=DIM, children=3, child_dim=DIM)
    route = partial(em.route, compete=competition.across(index))
    votes = jnp.asarray(random.normal(size=(2, 2, DIM, 3)))
    mean, total = (
        route(votes, children, params, em.Config(1, cost=cost, final_inverse_temperature=1.0))
        for cost in ("mean", "sum")
    )
    mass = 1 / 2 + 1 / 4 + 1 / 4  # child 0 or 3 among 2 parents, 1 and 2 among 4
    np.testing.assert_allclose(mean.state.logits, total.state.logits / mass, rtol=1e-6)


def test_a_mean_cost_takes_a_competition_that_is_traced_itself(random):
    votes = jnp.asarray(random.normal(size=(2, DIM, CHILDREN)))
    children = Capsules(jnp.zeros((CHILDREN, DIM)), jnp.ones(CHILDREN))
    params = em.init(em.Config(), jax.random.key(0), parents=2, dim=DIM, children=9, child_dim=DIM)

    def logits(shares, cost="mean"):
        config = em.Config(1, cost=cost, final_inverse_temperature=1.0)

        def compete(_):  # whatever the logits say, child i gives the first parent its share
            return jnp.stack([shares, 1 - shares])

        return em.route(votes, children, params, config, compete=compete).state.logits

    def total(shares):
        return logits(shares, "sum") / jnp.stack([shares.sum(), (1 - shares).sum()])

    shares = jnp.asarray(random.uniform(0.1, 0.9, CHILDREN))
    np.testing.assert_allclose(jax.jit(logits)(shares), total(shares), rtol=1e-5)
    several = jnp.stack([shares, 1 - shares])
    np.testing.assert_allclose(jax.vmap(logits)(several)[1], total(1 - shares), rtol=1e-5)
    gradients = (jax.jit(jax.jacobian(each))(shares) for each in (logits, total))
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-6)


def test_a_cost_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="cost is 'most', expected 'sum' or 'mean'"):
        em.Config(cost="most")
    with pytest.raises(ValueError, match="expected 'sum' with official semantics"):
        em.Config(semantics="official", cost="mean")


@pytest.mark.parametrize(("semantics", "lambda_", "minimum"), [PAPER[0], OFFICIAL[0]])
@pytest.mark.parametrize("silent", [2, CHILDREN])
def test_every_iteration_equals_the_equations_with_silent_children(
    random, children, precision, semantics, lambda_, minimum, silent
):
    votes, params = random.normal(size=(PARENTS, DIM, CHILDREN)), draw(random, semantics)
    children.activations[:silent] = 0.0
    assert_equal_to_reference(votes, children, params, precision, semantics, lambda_, minimum)


@pytest.mark.core
def test_the_defaults_are_the_papers_and_the_authors_answers(votes, children, random, precision):
    params = draw(random, "paper")
    arrays = jax.tree.map(lambda x: jnp.asarray(x, precision.dtype), (votes, children, params))
    result = run(*arrays)
    iterations = reference.route(votes, children.activations, params, 3)
    assert len(result.trace.poses) == 3
    close = partial(np.testing.assert_allclose, rtol=precision.tolerance, atol=precision.tolerance)
    close(result.poses, iterations[-1].poses)
    close(result.activations, iterations[-1].activations)


@pytest.mark.core
def test_init_gives_one_of_each_for_every_parent():
    sizes = {"parents": 3, "dim": 5, "children": 7, "child_dim": 2}
    expected = {
        "paper": {"beta_a": 0.0, "beta_u": 0.0},
        "official": {"activation_bias": 1.0, "sigma_bias": 2.0},  # of the class layer
    }
    for semantics, values in expected.items():
        params = em.init(em.Config(semantics=semantics), jax.random.key(0), **sizes)
        assert set(params) == set(values)
        for name, value in values.items():
            assert params[name].dtype == jnp.float32
            np.testing.assert_array_equal(params[name], np.full(3, value))


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_iterations": 0}, "num_iterations is 0, expected at least 1"),
        ({"semantics": "code"}, "semantics is 'code', expected 'paper' or 'official'"),
        ({"final_inverse_temperature": 0.0}, "final_inverse_temperature is 0.0, expected a pos"),
        ({"final_inverse_temperature": math.inf}, "final_inverse_temperature is inf, expected"),
        ({"minimum_variance": 0.0}, "minimum_variance is 0.0, expected a positive number"),
        ({"minimum_variance": -1.0}, "minimum_variance is -1.0, expected a positive number"),
    ],
)
def test_a_config_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bare_config(em.Config, **options)


@pytest.mark.parametrize("semantics", ["paper", "official"])
def test_parameters_of_other_parents_are_refused(children, random, semantics):
    config, votes = em.Config(semantics=semantics), jnp.zeros((PARENTS, DIM, CHILDREN))
    own = Capsules(*map(jnp.asarray, children))
    for name in draw(random, semantics):
        params = jax.tree.map(jnp.asarray, draw(random, semantics))
        em.route(votes, own, params, config)
        with pytest.raises(ValueError, match=rf"{name} is .*, expected float \({PARENTS},\)"):
            em.route(votes, own, {**params, name: jnp.zeros(PARENTS + 1)}, config)
        del params[name]
        with pytest.raises(ValueError, match=f"{name} is missing: pass params=init"):
            em.route(votes, own, params, config)


def test_finish_before_any_step_is_refused(children):
    votes = jnp.zeros((PARENTS, DIM, CHILDREN))
    state = em.start(votes, children, {}, em.Config(), None)
    with pytest.raises(ValueError, match="after at least one step"):
        em.finish(state, votes, children, {}, em.Config())


def test_what_is_no_config_and_no_array_is_refused(own_answers, children):
    votes, config = jnp.zeros((PARENTS, DIM, CHILDREN)), em.Config()
    sizes = {"parents": 3, "dim": 5, "children": 7, "child_dim": 2}
    with pytest.raises(TypeError, match="config is 3, expected"):
        em.init(3, jax.random.key(0), **sizes)
    with pytest.raises(ValueError, match="parents is 0, expected 1 to"):
        em.init(config, jax.random.key(0), **{**sizes, "parents": 0})
    with pytest.raises(TypeError, match="config is 3, expected"):
        em.route(votes, children, {}, 3)
    with pytest.raises(TypeError, match="votes is 'none', expected an array"):
        em.expectation(em.start(votes, children, {}, config, None), "none", None, jnp.float32)
    with pytest.raises(TypeError, match="weights is 'none', expected an array"):
        em.maximisation("none", votes, None, config)


# From here on: the reference itself.


def test_by_hand_one_parent_of_two_votes():
    votes, activations = np.array([[[0.0, 2.0]]]), np.array([0.5, 0.5])
    params = {"beta_u": np.array([3.0]), "beta_a": np.array([7.0])}
    first, second = reference.route(votes, activations, params, 2)
    for step in (first, second):
        np.testing.assert_allclose(step.coefficients, [[1.0, 1.0]], rtol=1e-12)
        np.testing.assert_allclose((step.poses, step.variances), 1.0, rtol=1e-12)
    # The mass is 1 and log sigma 0, so that the cost is beta_u; lambda is 0.01 (1 - 0.95^(t+1)).
    np.testing.assert_allclose(first.activations, 1 / (1 + math.exp(-0.0005 * 4)), rtol=1e-12)
    np.testing.assert_allclose(second.activations, 1 / (1 + math.exp(-0.000975 * 4)), rtol=1e-12)


def test_by_hand_one_parent_of_two_votes_by_the_official_code():
    votes, activations = np.array([[[0.0, 2.0]]]), np.array([0.5, 0.5])
    params = {"activation_bias": np.array([0.5]), "sigma_bias": np.array([2.0])}
    first, second = reference.route(votes, activations, params, 2, semantics="official")
    np.testing.assert_allclose(first.poses, 0.9, rtol=1e-6)
    np.testing.assert_allclose(first.variances, (0.9**2 + 1.1**2) / 2 + 5e-4, rtol=1e-6)
    np.testing.assert_allclose(second.poses, 0.9 + 0.1 * 0.9, rtol=1e-6)
    evidence = -math.log(1.0105) - 2 * (1 + math.log(2 * math.pi)) - 5000 * 0.5
    np.testing.assert_allclose(first.logits, 0.0005 * evidence, rtol=1e-6)


def test_by_hand_one_parent_has_the_weighted_mean_and_variance(random):
    votes, activations = random.normal(size=(1, DIM, CHILDREN)), random.uniform(0.1, 0.9, CHILDREN)
    params = {"beta_u": np.array([0.5]), "beta_a": np.array([2.0])}
    for step in reference.route(votes, activations, params, 3):
        mean = np.average(votes[0], axis=1, weights=activations)
        variance = np.average((votes[0] - mean[:, None]) ** 2, axis=1, weights=activations)
        np.testing.assert_array_equal(step.coefficients, 1.0)
        np.testing.assert_allclose(step.poses[0], mean, rtol=1e-12)
        np.testing.assert_allclose(step.variances[0], variance, rtol=1e-12)


def test_by_hand_a_parent_without_mass_costs_nothing(random):
    votes = random.normal(size=(PARENTS, DIM, CHILDREN))
    params = draw(random, "paper")
    for t, step in enumerate(reference.route(votes, np.zeros(CHILDREN), params, 3)):
        np.testing.assert_array_equal(step.poses, 0.0)
        np.testing.assert_array_equal(step.variances, 5e-4)
        logits = 0.01 * (1 - 0.95 ** (t + 1)) * params["beta_a"]
        np.testing.assert_allclose(step.activations, 1 / (1 + np.exp(-logits)), rtol=1e-12)


def test_one_iteration_of_the_reference_is_a_gaussian_mixture_step_with_activations(votes, random):
    activations, params = random.uniform(0.1, 0.9, CHILDREN), draw(random, "paper")
    steps = reference.route(
        votes, activations, params, 3, final_inverse_temperature=1.0, minimum_variance=1e-12
    )
    for before, after in itertools.pairwise(steps):
        mixture = reference.gaussian_mixture_step(
            votes, activations, before.coefficients, before.activations
        )
        np.testing.assert_allclose(before.poses, mixture.means, rtol=1e-9)
        np.testing.assert_allclose(before.variances, mixture.variances, rtol=1e-9)
        np.testing.assert_allclose(after.coefficients, mixture.coefficients, rtol=1e-7, atol=1e-12)


def test_the_free_energy_falls_under_exact_steps_of_the_gaussian_mixture(random):
    votes, weights = random.normal(size=(3, 2, 20)), random.uniform(0.1, 0.9, 20)
    coefficients = random.dirichlet([5.0] * 3, size=20).T
    energies = []
    for _ in range(8):
        mixture = reference.gaussian_mixture_step(votes, weights, coefficients)
        for shares in (coefficients, mixture.coefficients):
            energies.append(
                reference.free_energy(
                    votes, weights, shares, mixture.means, mixture.variances, mixture.proportions
                )
            )
        coefficients = mixture.coefficients
    assert np.all(np.diff(energies) < 0)
