"""Counted operations, against counts by hand and XLA's own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from capsjax.ops.convolution import conv2d
from capsjax.ops.flops import flops, operations
from capsjax.ops.votes import dense_votes


def ones(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def scanned(x: Any) -> Any:
    return lax.scan(lambda carry, _: (carry @ carry, None), x, None, length=10)[0]


def nested(x: Any) -> Any:
    return lax.fori_loop(0, 3, lambda _, y: scanned(y), x)


@jax.custom_vjp
def tripled(x: Any) -> Any:
    return 3.0 * x


tripled.defvjp(lambda x: (tripled(x), None), lambda _, gradient: (3.0 * gradient,))

convolve = partial(lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))
max_pool = partial(
    lax.reduce_window,
    init_value=-jnp.inf,
    computation=lax.max,
    window_dimensions=(1, 2, 2, 1),
    window_strides=(1, 2, 2, 1),
    padding="VALID",
)

COUNTS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]] = {
    "a dense layer": (
        lambda x, w, b: jax.nn.relu(x @ w + b[None]),
        (ones(1, 160), ones(160, 512), ones(512)),
        2 * 160 * 512 + 512 + 512,
    ),
    "a batched product": (
        lambda x, w: jnp.einsum("bij,bjk->bik", x, w),
        (ones(7, 2, 3), ones(7, 3, 5)),
        2 * 7 * 2 * 3 * 5,
    ),
    "a product for each example": (
        jax.vmap(lambda x, w: x @ w),
        (ones(7, 2, 3), ones(7, 3, 5)),
        2 * 7 * 2 * 3 * 5,
    ),
    # 20 - 9 + 1 = 12 places, every second one: 6.
    "a convolution of ours": (
        partial(conv2d, stride=2),
        (ones(1, 20, 20, 256), ones(9, 9, 256, 256)),
        2 * 36 * 20_736 * 256,
    ),
    "a padded convolution": (
        partial(conv2d, padding="SAME"),
        (ones(2, 5, 5, 3), ones(3, 3, 3, 4)),
        2 * 2 * 25 * 27 * 4,
    ),
    "a depthwise convolution": (
        partial(convolve, window_strides=(1, 1), padding="VALID", feature_group_count=6),
        (ones(1, 5, 5, 6), ones(3, 3, 1, 6)),
        2 * 9 * 9 * 6,
    ),
    # Each of 5x5 inputs meets 2x2 weights of 3 -> 4 channels once.
    "a transposed convolution": (
        partial(convolve, window_strides=(1, 1), padding=((1, 1), (1, 1)), lhs_dilation=(2, 2)),
        (ones(1, 5, 5, 3), ones(2, 2, 3, 4)),
        2 * 25 * 4 * 3 * 4,
    ),
    "votes": (
        dense_votes,
        (ones(1, 1152, 8), ones(8, 10, 16, 1152)),
        2 * 1152 * 8 * 10 * 16,
    ),
    "an exponential": (jnp.exp, (ones(3, 4),), 12),
    "a softmax": (partial(jax.nn.softmax, axis=0), (ones(5),), 4 + 1 + 5 + 5 + 4 + 5),
    "a sum": (lambda x: jnp.sum(x, 1), (ones(3, 4),), 9),
    "a search": (jnp.argmax, (ones(12),), 11),
    "a running sum": (jnp.cumsum, (ones(12),), 12),
    "pooling": (max_pool, (ones(1, 4, 4, 2),), 2 * 2 * 2 * 3),
    "numbers added at places": (lambda x: x.at[jnp.array([0, 2])].add(1.0), (ones(9),), 2),
    "moving": (lambda x: jnp.tile(x.T.reshape(2, 6)[:, ::2], (1, 2)), (ones(3, 4),), 0),
    "whole numbers": (lambda x: jnp.arange(9) * 2 + len(x), (ones(3),), 0),
    "a loop": (scanned, (ones(4, 4),), 10 * 2 * 4**3),
    "a loop in a loop": (nested, (ones(4, 4),), 3 * 10 * 2 * 4**3),
    "a compiled function": (jax.jit(scanned), (ones(4, 4),), 10 * 2 * 4**3),
    "one with a gradient of its own": (tripled, (ones(7),), 7),
    "one that is computed again": (jax.checkpoint(jnp.tanh), (ones(7),), 7),
    "the dearest branch": (
        lambda x: lax.cond(x[0, 0] > 0, lambda y: y @ y, lambda y: y + 1, x),
        (ones(4, 4),),
        1 + 2 * 4**3,
    ),
    "a loop that the data ends": (
        lambda x: lax.while_loop(lambda y: y[0] > 1, lambda y: y / 2, x),
        (ones(6),),
        1 + 6,
    ),
    "a factor and a system": (
        lambda x, y: lax.linalg.triangular_solve(lax.linalg.cholesky(x), y, left_side=True),
        (ones(6, 6), ones(6, 2)),
        # Both triangles' mean is taken first.
        2 * 36 + 6**3 // 3 + 6**2 * 2,
    ),
}


@pytest.mark.core
@pytest.mark.parametrize("what", COUNTS)
def test_counts_are_those_by_hand(what: str) -> None:
    function, arguments, count = COUNTS[what]
    assert flops(function, *arguments) == count


def network(x: Any, kernel: Any, weights: Any) -> Any:
    """Without loops, padding and what the platforms do in ways of their own."""
    x = jax.nn.relu(convolve(x, kernel, window_strides=(2, 2), padding="VALID"))
    x = jnp.reshape(x, (x.shape[0], -1)) @ weights
    x = x - jnp.mean(x, 1, keepdims=True)
    return jax.nn.softmax(jnp.tanh(x), -1)


def test_the_count_is_near_xla_s() -> None:
    arguments = (ones(2, 11, 11, 3), ones(3, 3, 3, 8), ones(200, 32))
    cost: Any = jax.jit(network).lower(*arguments).cost_analysis()
    count = flops(network, *arguments)
    assert count == pytest.approx(cost["flops"] + cost["transcendentals"], rel=0.02)
    assert count > 2 * 2 * 25 * 27 * 8 + 2 * 2 * 200 * 32


def test_operations_are_told_apart_by_their_scopes() -> None:
    def layered(x: Any) -> Any:
        with jax.named_scope("outer"):
            x = jnp.tanh(x)
            with jax.named_scope("inner"):
                x = scanned(x)
        return -x

    found: dict[str, int] = {}
    for scope, count in operations(jax.make_jaxpr(layered)(ones(4, 4)).jaxpr):
        place = "inner" if "inner" in scope else "outer" if "outer" in scope else "none"
        found[place] = found.get(place, 0) + count
    assert found == {"outer": 16, "inner": 10 * 2 * 4**3, "none": 16}
