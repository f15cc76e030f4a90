"""Dropout: its draws are a function of the state, and it keeps the mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax.layers.dropout import Dropout

ONES = jnp.ones((20, 50))


def dropout(rate=0.5, seed=0):
    return Dropout(rate, rngs=nnx.Rngs(params=seed))


def test_training_calls_differ_and_equal_counters_draw_the_same():
    layer = dropout()
    first, second = layer(ONES), layer(ONES)
    assert int(layer.calls[...]) == 2
    assert (first != second).any()
    layer.calls[...] = jnp.zeros((), jnp.int32)
    np.testing.assert_array_equal(layer(ONES), first)
    graph, state = nnx.split(layer)
    np.testing.assert_array_equal(nnx.merge(graph, state, copy=True)(ONES), second)
    assert (dropout(seed=1)(ONES) != first).any()


def test_compiled_calls_draw_what_others_do():
    plain, compiled = dropout(), dropout()
    call = nnx.jit(lambda layer: layer(ONES))
    for _ in range(2):
        np.testing.assert_array_equal(call(compiled), plain(ONES))
    assert int(compiled.calls[...]) == 2


def test_the_state_is_plain_integers():
    leaves = jax.tree.leaves(nnx.state(dropout()))
    assert sorted((str(leaf.dtype), leaf.shape) for leaf in leaves) == [
        ("int32", ()),
        ("uint32", ()),
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_evaluation_changes_and_counts_nothing(dtype):
    layer = dropout()
    assert layer(ONES.astype(dtype)).dtype == dtype
    layer.eval()
    np.testing.assert_array_equal(layer(ONES.astype(dtype)), ONES.astype(dtype))
    assert int(layer.calls[...]) == 1
    layer.train()
    assert (layer(ONES) != ONES).any()
    nothing = dropout(0.0)
    np.testing.assert_array_equal(nothing(ONES), ONES)


def test_a_share_is_dropped_and_the_mean_stays():
    x = jnp.full((400, 500), 3.0)
    out = np.asarray(dropout(0.2)(x), float)
    np.testing.assert_allclose(np.unique(out), [0, 3.75], rtol=1e-6)
    # Of 200,000 draws: a standard deviation of 0.0009 in the share, 0.0034 in the mean.
    assert abs((out == 0).mean() - 0.2) < 0.005
    assert abs(out.mean() - 3) < 0.02
    gradient = jax.grad(lambda x: jnp.sum(dropout(0.2)(x)))(x)
    np.testing.assert_allclose(gradient, out / 3, rtol=1e-6)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_outside_the_range_are_refused(rate):
    with pytest.raises(ValueError, match=r"rate is .*, expected at least 0 and below 1"):
        dropout(rate)
