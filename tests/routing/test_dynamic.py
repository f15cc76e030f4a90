"""Dynamic routing against Procedure 1, and the properties that it must have."""

import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jax.test_util import check_grads

from capsjax.routing import convergence, dynamic
from tests.conftest import bare, bare_config
from tests.reference import dynamic as reference
from tests.reference.squash import squash

PARENTS, DIM, CHILDREN = 4, 6, 9
VARIANTS = [(False, False), (True, False), (False, True), (True, True)]


def run(votes, params=None, config=dynamic.Config(), **options):
    """One compiled call, the options closed over."""
    return jax.jit(lambda v: dynamic.route(v, None, params, config, **options))(votes)


@pytest.fixture
def votes(random):
    return random.normal(size=(PARENTS, DIM, CHILDREN))


@pytest.fixture
def bias(random):
    return random.normal(size=(PARENTS, DIM))


@pytest.mark.core
@pytest.mark.parametrize(("biased", "leaky"), VARIANTS)
def test_every_iteration_equals_procedure_1(votes, bias, precision, biased, leaky):
    config = dynamic.Config(num_iterations=4, bias=biased, leaky=leaky)
    params = {"bias": jnp.asarray(bias, precision.dtype)} if biased else None
    result = run(jnp.asarray(votes, precision.dtype), params, config, trace=True)
    iterations = reference.route(votes, 4, bias=bias if biased else None, leaky=leaky)
    close = partial(np.testing.assert_allclose, rtol=precision.tolerance, atol=precision.tolerance)
    for index, expected in enumerate(iterations):
        close(result.trace.coefficients[index], expected.coefficients)
        close(result.trace.poses[index], expected.poses)
        close(result.trace.activations[index], expected.activations)
    close(result.poses, iterations[-1].poses)
    close(result.coefficients, iterations[-1].coefficients)
    close(result.activations, iterations[-1].activations)
    close(result.state.logits, iterations[-1].logits)


def test_bfloat16_stays_near_procedure_1(votes):
    result = run(jnp.asarray(votes, jnp.bfloat16))
    expected = reference.route(votes, 3)[-1]
    np.testing.assert_allclose(np.asarray(result.poses, np.float64), expected.poses, atol=0.03)


@pytest.mark.core
def test_shapes_and_dtypes_in_every_mode(votes, apply, dtype):
    route = partial(dynamic.route, config=dynamic.Config(num_iterations=2), trace=True)
    result = apply(route, jnp.asarray(votes, dtype))
    chex.assert_shape(result.poses, (PARENTS, DIM))
    chex.assert_shape(result.activations, (PARENTS,))
    chex.assert_shape(result.coefficients, (PARENTS, CHILDREN))
    chex.assert_shape(result.votes, (PARENTS, DIM, CHILDREN))
    chex.assert_shape(result.trace.poses, (2, PARENTS, DIM))
    chex.assert_shape(result.trace.activations, (2, PARENTS))
    chex.assert_shape(result.trace.coefficients, (2, PARENTS, CHILDREN))
    chex.assert_type(jax.tree.leaves(result._replace(state=None, iterations=None)), dtype)
    chex.assert_type(jax.tree.leaves(result.state), jnp.promote_types(dtype, jnp.float32))


@pytest.mark.core
def test_one_iteration_is_the_squashed_sum_over_the_number_of_parents(votes, precision):
    result = run(jnp.asarray(votes, precision.dtype), config=dynamic.Config(num_iterations=1))
    expected = [squash(votes[j].sum(axis=1) / PARENTS) for j in range(PARENTS)]
    np.testing.assert_allclose(
        result.poses, expected, rtol=precision.tolerance, atol=precision.tolerance
    )


def test_coefficients_sum_to_one_over_parents(votes):
    result = run(jnp.asarray(votes, jnp.float32), trace=True)
    np.testing.assert_allclose(result.trace.coefficients.sum(axis=1), 1.0, rtol=1e-6)
    assert np.all(result.trace.coefficients >= 0)


def test_leaky_coefficients_sum_to_less_than_one_over_parents(votes):
    config = dynamic.Config(leaky=True)
    result = run(jnp.asarray(votes, jnp.float32), config=config, trace=True)
    sums = np.asarray(result.trace.coefficients.sum(axis=1))
    np.testing.assert_allclose(sums[0], PARENTS / (PARENTS + 1), rtol=1e-6)
    assert np.all((sums > 0) & (sums < 1))


def test_leaky_equals_plain_routing_with_one_more_parent_that_gets_no_votes(votes, x64):
    votes = jnp.asarray(votes)
    leaky = run(votes, config=dynamic.Config(leaky=True))
    plain = run(jnp.concatenate([jnp.zeros((1, DIM, CHILDREN)), votes]))
    chex.assert_trees_all_close(leaky.poses, plain.poses[1:], rtol=1e-12)
    chex.assert_trees_all_close(leaky.coefficients, plain.coefficients[1:], rtol=1e-12)


@pytest.mark.core
def test_three_iterations_are_one_and_one_and_one(votes, x64):
    votes = jnp.asarray(votes)
    once = dynamic.Config(num_iterations=1)
    first = run(votes, config=once)
    second = run(votes, config=once, initial=first)
    third = run(votes, config=once, initial=second)
    chex.assert_trees_all_close(third, run(votes), rtol=1e-12)


def test_a_softmax_over_parents_as_compete_equals_the_default(votes, x64):
    seen = []

    def compete(logits):
        seen.append(logits.shape)
        return jax.nn.softmax(logits, axis=-2)

    votes = jnp.asarray(votes)
    chex.assert_trees_all_close(run(votes, compete=compete), run(votes), rtol=1e-12)
    assert seen == [(PARENTS, CHILDREN)] * 3


def test_compete_decides_the_coefficients(votes):
    to_the_first = jnp.zeros((PARENTS, CHILDREN)).at[0].set(1.0)
    result = run(jnp.asarray(votes, jnp.float32), compete=lambda logits: to_the_first)
    np.testing.assert_array_equal(result.coefficients, to_the_first)
    np.testing.assert_allclose(result.poses[0], squash(votes[0].sum(axis=1)), rtol=1e-5)
    np.testing.assert_array_equal(result.poses[1:], 0.0)


def test_windows_equal_a_loop_over_windows(random, bias, x64):
    votes = jnp.asarray(random.normal(size=(2, 3, PARENTS, DIM, CHILDREN)))
    params, config = {"bias": jnp.asarray(bias)}, dynamic.Config(bias=True, leaky=True)
    route = jax.jit(lambda v: dynamic.route(v, None, params, config, trace=True))
    together = route(votes)
    for row, column in itertools.product(range(2), range(3)):
        alone = route(votes[row, column])
        # In a trace the iterations come before the windows.
        trace = jax.tree.map(lambda x, r=row, c=column: x[:, r, c], together.trace)
        values = together._replace(trace=None, iterations=None)
        result = jax.tree.map(lambda x, r=row, c=column: x[r, c], values)
        result = result._replace(trace=trace, iterations=together.iterations)
        chex.assert_trees_all_close(result, alone, rtol=1e-10, atol=1e-12)


@pytest.fixture
def rotation(random):
    return np.linalg.qr(random.normal(size=(DIM, DIM)))[0]


@pytest.mark.parametrize("leaky", [False, True])
def test_rotating_all_votes_rotates_the_poses(votes, rotation, x64, leaky):
    config = dynamic.Config(leaky=leaky)
    plain = run(jnp.asarray(votes), config=config)
    rotated = run(jnp.asarray(np.einsum("ed,jdi->jei", rotation, votes)), config=config)
    np.testing.assert_allclose(rotated.poses, plain.poses @ rotation.T, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(rotated.coefficients, plain.coefficients, rtol=1e-10)


def test_a_bias_breaks_the_rotation(votes, bias, rotation, x64):
    config, params = dynamic.Config(bias=True), {"bias": jnp.asarray(bias)}
    plain = run(jnp.asarray(votes), params, config)
    rotated = run(jnp.asarray(np.einsum("ed,jdi->jei", rotation, votes)), params, config)
    assert np.max(np.abs(rotated.poses - plain.poses @ rotation.T)) > 0.01


def test_opposite_votes_give_opposite_poses(votes):
    votes = jnp.asarray(votes, jnp.float32)
    np.testing.assert_array_equal(run(-votes).poses, -run(votes).poses)


def test_permuting_parents_with_their_biases_permutes_the_result(votes, bias, x64):
    config, order = dynamic.Config(bias=True, leaky=True), np.array([2, 0, 3, 1])
    plain = run(jnp.asarray(votes), {"bias": jnp.asarray(bias)}, config)
    permuted = run(jnp.asarray(votes[order]), {"bias": jnp.asarray(bias[order])}, config)
    np.testing.assert_allclose(permuted.poses, plain.poses[order], rtol=1e-10)
    np.testing.assert_allclose(permuted.coefficients, plain.coefficients[order], rtol=1e-10)


def test_identical_votes_for_all_parents_stay_uniform(random):
    votes = np.broadcast_to(random.normal(size=(1, DIM, CHILDREN)), (PARENTS, DIM, CHILDREN))
    result = run(jnp.asarray(votes, jnp.float32))
    np.testing.assert_allclose(result.coefficients, 1 / PARENTS, rtol=1e-6)


def test_agreement_rises_on_the_parent_that_the_children_agree_about(random):
    votes = random.normal(size=(PARENTS, DIM, CHILDREN))
    votes[1] = votes[1, :, :1]
    votes[1] *= 2 / np.linalg.norm(votes[1, :, 0])
    shares = np.asarray(run(jnp.asarray(votes, jnp.float32), trace=True).trace.coefficients)[:, 1]
    assert np.all(np.diff(shares.mean(axis=1)) > 0)


_route_once = jax.jit(dynamic.route)


@given(arrays.arrays(np.float32, (3, 2, 4), elements=st.floats(-1e6, 1e6, width=32)))
def test_lengths_are_never_above_one_and_shares_sum_to_one(votes):
    result = _route_once(votes)
    lengths = np.linalg.norm(np.asarray(result.poses, np.float64), axis=-1)
    assert np.all(lengths <= 1 + 2 * np.finfo(np.float32).eps)
    np.testing.assert_allclose(result.coefficients.sum(axis=0), 1.0, rtol=1e-5)


@pytest.mark.parametrize(("biased", "leaky"), [(False, False), (True, True)])
def test_gradients_equal_finite_differences(votes, bias, x64, biased, leaky):
    config = dynamic.Config(bias=biased, leaky=leaky)

    def poses(votes, bias):
        result = dynamic.route(votes, None, {"bias": bias}, config)
        return result.poses, result.activations

    check_grads(jax.jit(poses), (jnp.asarray(votes), jnp.asarray(bias)), order=1)


def test_gradients_flow_through_all_iterations(votes, x64):
    def last_coefficients(votes):
        return dynamic.route(votes, config=dynamic.Config(num_iterations=2)).coefficients[0, 0]

    gradient = jax.jit(jax.grad(last_coefficients))(jnp.asarray(votes))
    assert np.all(np.abs(gradient) > 0)


@pytest.mark.core
def test_init_gives_a_bias_of_a_tenth_only_where_one_is_configured():
    sizes = {"parents": 3, "dim": 5, "children": 7, "child_dim": 2}
    for config in (dynamic.Config(), dynamic.Config(bias=False)):
        assert dynamic.init(config, jax.random.key(0), **sizes) == {}
    for config in (dynamic.Config(bias=True), dynamic.Config(semantics="official")):
        params = dynamic.init(config, jax.random.key(0), **sizes)
        assert set(params) == {"bias"}
        chex.assert_type(params["bias"], jnp.float32)
        np.testing.assert_array_equal(params["bias"], np.full((3, 5), 0.1, np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_iterations": 0}, "num_iterations is 0, expected at least 1"),
        ({"num_iterations": -2}, "num_iterations is -2, expected at least 1"),
        ({"semantics": "code"}, "semantics is 'code', expected 'paper' or 'official'"),
        ({"semantics": "official", "bias": False}, "semantics='official' always has its bias"),
    ],
)
def test_a_config_out_of_range_raises(options, message):
    with pytest.raises(ValueError, match=message):
        bare_config(dynamic.Config, **options)


def test_the_implicit_gradient_is_refused_and_that_of_the_last_iteration_taken():
    with pytest.raises(ValueError, match="gradient='implicit' needs a fixed point"):
        dynamic.Config(loop=convergence.Loop(gradient="implicit", tolerance=1e-5))
    dynamic.Config(loop=convergence.Loop(gradient="last_iteration"))


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 0), (0, 4, 5), (3, 0, 5)])
def test_votes_of_too_few_or_empty_axes_raise(shape):
    pattern = rf"shape \({', '.join(map(str, shape))}\), expected .*parents, dim, children"
    with pytest.raises(ValueError, match=pattern):
        bare(dynamic.route)(jnp.ones(shape))


@pytest.mark.parametrize("params", [None, {}])
def test_a_missing_bias_raises(params):
    with pytest.raises(ValueError, match=r"bias is missing: pass params=init"):
        dynamic.route(jnp.ones((3, 4, 5)), None, params, dynamic.Config(bias=True))


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (4,), (3, 4, 1)])
def test_a_bias_of_other_parents_raises(shape):
    config = dynamic.Config(bias=True)
    with pytest.raises(ValueError, match=r"bias is float32 .*, expected float \(3, 4\)"):
        dynamic.route(jnp.ones((3, 4, 5)), None, {"bias": jnp.ones(shape)}, config)


def test_leaky_together_with_compete_raises():
    with pytest.raises(ValueError, match="pass either leaky or compete"):
        dynamic.route(
            jnp.ones((3, 4, 5)), config=dynamic.Config(leaky=True), compete=jax.nn.softmax
        )


def test_finish_before_any_step_raises():
    votes = jnp.ones((3, 4, 5))
    state = dynamic.start(votes, None, {}, dynamic.Config(), None)
    with pytest.raises(ValueError, match="after at least one step"):
        dynamic.finish(state, votes, None, {}, dynamic.Config())


def test_what_is_no_config_and_no_size_is_refused(own_answers):
    sizes = {"parents": 3, "dim": 5, "children": 7, "child_dim": 2}
    with pytest.raises(TypeError, match="config is 3, expected"):
        dynamic.init(3, jax.random.key(0), **sizes)
    with pytest.raises(TypeError, match="config is 3, expected"):
        dynamic.route(jnp.ones((3, 4, 5)), None, None, 3)
    with pytest.raises(ValueError, match="dim is 0, expected 1 to"):
        dynamic.init(dynamic.Config(), jax.random.key(0), **{**sizes, "dim": 0})
