"""What every routing algorithm must satisfy, whatever its mathematics."""

import dataclasses
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Capsules, routing
from tests.conftest import bare

PARENTS, DIM, CHILDREN, CHILD_DIM, BATCH = 4, 6, 9, 5, 3


@pytest.fixture(params=routing.ALGORITHMS.values(), ids=routing.ALGORITHMS)
def algorithm(request):
    return request.param


@pytest.fixture
def batch(random):
    """Votes and children of a batch of examples."""
    votes = random.normal(size=(BATCH, PARENTS, DIM, CHILDREN))
    poses = random.normal(size=(BATCH, CHILDREN, CHILD_DIM))
    activations = random.uniform(0.1, 0.9, size=(BATCH, CHILDREN))
    return votes, Capsules(poses, activations)


def cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def routed(algorithm, **options):
    """``route(votes, children)`` for the published config, and its fresh parameters."""
    config = algorithm.Config()
    params = algorithm.init(
        config,
        jax.random.key(0),
        parents=PARENTS,
        dim=DIM,
        children=CHILDREN,
        child_dim=CHILD_DIM,
    )
    return lambda votes, children: algorithm.route(votes, children, params, config, **options)


def one(batch, index, dtype=jnp.float64):
    return cast(jax.tree.map(lambda x: x[index], batch), dtype)


def without_trace(result):
    return result._replace(trace=None)


@pytest.mark.core
def test_the_file_exports_the_contract(algorithm):
    assert dataclasses.is_dataclass(algorithm.Config)
    assert algorithm.READOUT in ("length", "own", "linear")
    assert algorithm.SOURCE
    assert callable(algorithm.init)
    assert callable(algorithm.route)
    if hasattr(algorithm, "State"):
        assert all(callable(getattr(algorithm, name)) for name in ("start", "step", "finish"))


@pytest.mark.core
def test_its_config_is_frozen_hashable_and_leads_back_to_it(algorithm):
    config = algorithm.Config()
    field = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, field, getattr(config, field))
    assert hash(config) == hash(algorithm.Config())
    assert routing.algorithm_of(config) is algorithm


def test_a_stranger_is_no_routing():
    with pytest.raises(ValueError, match=r"routing is 3, expected an instance of .*\.Config"):
        bare(routing.algorithm_of)(3)


@pytest.mark.core
def test_shapes_and_dtypes(algorithm, batch, apply, dtype):
    result = apply(routed(algorithm), *one(batch, 0, dtype))
    chex.assert_shape(result.poses, (PARENTS, DIM))
    chex.assert_shape(result.coefficients, (PARENTS, CHILDREN))
    chex.assert_shape(result.votes, (PARENTS, DIM, CHILDREN))
    chex.assert_type([result.poses, result.coefficients, result.votes], dtype)
    if result.activations is not None:
        chex.assert_shape(result.activations, (PARENTS,))
        chex.assert_type(result.activations, dtype)
    assert result.trace is None


def test_votes_come_back_as_they_went_in(algorithm, batch):
    votes, children = one(batch, 0, jnp.float32)
    np.testing.assert_array_equal(jax.jit(routed(algorithm))(votes, children).votes, votes)


def test_coefficients_are_shares(algorithm, batch):
    coefficients = jax.jit(routed(algorithm))(*one(batch, 0, jnp.float32)).coefficients
    assert np.all(coefficients >= 0)
    assert np.all(coefficients.sum(axis=0) <= 1 + 1e-6)


def test_jit_changes_nothing(algorithm, batch, x64):
    route, inputs = routed(algorithm), one(batch, 0)
    chex.assert_trees_all_close(jax.jit(route)(*inputs), route(*inputs), rtol=1e-12)


@pytest.mark.core
def test_vmap_equals_a_loop_over_examples(algorithm, batch, x64):
    route = routed(algorithm)
    together = jax.jit(jax.vmap(route))(*cast(batch, jnp.float64))
    alone = [jax.jit(route)(*one(batch, index)) for index in range(BATCH)]
    chex.assert_trees_all_close(
        together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone), rtol=1e-10
    )


def test_an_example_does_not_feel_the_others(algorithm, batch, x64):
    route = jax.jit(jax.vmap(routed(algorithm)))
    votes, children = cast(batch, jnp.float64)
    before = route(votes, children)
    after = route(votes.at[1:].multiply(-7.0), children)
    chex.assert_trees_all_equal(*(jax.tree.map(lambda x: x[0], r) for r in (before, after)))


def test_permuting_children_leaves_the_parents(algorithm, batch, random, x64):
    route = jax.jit(routed(algorithm))
    votes, children = one(batch, 0)
    order = random.permutation(CHILDREN)
    plain = route(votes, children)
    permuted = route(votes[..., order], jax.tree.map(lambda x: x[order], children))
    chex.assert_trees_all_close(permuted.poses, plain.poses, rtol=1e-10, atol=1e-12)
    chex.assert_trees_all_close(permuted.activations, plain.activations, rtol=1e-10)
    chex.assert_trees_all_close(permuted.coefficients, plain.coefficients[:, order], rtol=1e-10)


def test_permuting_parents_permutes_the_result(algorithm, batch, random, x64):
    route = jax.jit(routed(algorithm))
    votes, children = one(batch, 0)
    order = random.permutation(PARENTS)
    plain, permuted = route(votes, children), route(votes[order], children)
    for name in ("poses", "activations", "coefficients"):
        expected = jax.tree.map(lambda x: x[order], getattr(plain, name))
        chex.assert_trees_all_close(getattr(permuted, name), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.core
def test_value_and_gradient_are_finite(algorithm, batch, dtype):
    route = routed(algorithm)

    @jax.jit
    def results(votes, children):
        def total(votes):
            result = route(votes, children)
            activations = 0 if result.activations is None else jnp.sum(result.activations)
            return jnp.sum(result.poses) + activations, without_trace(result)

        return jax.value_and_grad(total, has_aux=True)(votes)

    votes, children = one(batch, 0, dtype)
    for scale in (0.0, 1e-15, 1.0, 1e15):
        chex.assert_tree_all_finite(results(votes * scale, children))


def test_a_trace_ends_in_the_result_and_does_not_change_it(algorithm, batch, x64):
    inputs = one(batch, 0)
    plain = jax.jit(routed(algorithm))(*inputs)
    traced = jax.jit(routed(algorithm, trace=True))(*inputs)
    assert plain.trace is None
    chex.assert_trees_all_close(without_trace(traced), plain, rtol=1e-12)
    iterations = getattr(algorithm.Config(), "num_iterations", 1)
    for name in ("poses", "activations", "coefficients"):
        entries, last = getattr(traced.trace, name), getattr(traced, name)
        if last is None:
            assert entries is None
            continue
        chex.assert_shape(entries, (iterations, *last.shape))
        chex.assert_trees_all_close(entries[-1], last, rtol=1e-12)


def test_windows_equal_a_loop_over_windows(algorithm, random, x64):
    route = jax.jit(routed(algorithm))
    windows = (2, 3)
    votes = jnp.asarray(random.normal(size=(*windows, PARENTS, DIM, CHILDREN)))
    children = Capsules(
        jnp.asarray(random.normal(size=(*windows, CHILDREN, CHILD_DIM))),
        jnp.asarray(random.uniform(0.1, 0.9, size=(*windows, CHILDREN))),
    )
    together = route(votes, children)
    for row, column in itertools.product(*map(range, windows)):
        alone = route(votes[row, column], Capsules(*(x[row, column] for x in children)))
        chex.assert_trees_all_close(together.poses[row, column], alone.poses, rtol=1e-10)
        chex.assert_trees_all_close(
            together.coefficients[row, column], alone.coefficients, rtol=1e-10
        )


def test_a_second_batch_does_not_compile_again(algorithm, batch):
    route = jax.jit(jax.vmap(routed(algorithm)))
    for scale in (1.0, 2.0):
        route(*cast(jax.tree.map(lambda x, s=scale: s * x, batch), jnp.float32))
    assert route._cache_size() == 1
