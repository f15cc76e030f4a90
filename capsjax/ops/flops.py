"""Floating-point operations of a function, counted from its jaxpr: nothing is compiled or run.

What counts:

- a product or a convolution: 2 for each multiply-add, padding included; of an input that is dilated
  (a transposed convolution) only what falls on its numbers, not on the zeros between them;
- an elementwise operation: 1 for each number that it makes, be it a sum or an exponential;
- a reduction: 1 for each number that goes into another; a running one, a sort or a search: 1 for
  each number;
- Cholesky's factor of n x n: n^3 / 3; a triangular system: n^2 for each right-hand side.

What only moves or chooses numbers is free, and so is all that has no floating-point input. A scan
counts as often as it runs, a while loop once: how often it runs depends on the data. Where the
platform decides, the branch counts that is nobody's own (the library's convolution, not the CPU's
patches); of any other branches the dearest.

XLA's own figure, ``jax.jit(f).lower(...).cost_analysis()``, is of the CPU's branches on a CPU,
counts a loop once, leaves padding out, and keeps exponentials and the like apart.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

_FREE = frozenset({
    "bitcast_convert_type", "broadcast_in_dim", "broadcast_to", "complex", "concatenate",
    "convert_element_type", "copy", "copy_p", "device_put", "dynamic_slice", "dynamic_update_slice",
    "gather", "imag", "iota", "name", "optimization_barrier", "pad", "real", "reduce_precision",
    "reshape", "rev", "scatter", "select_n", "sharding_constraint", "slice", "split", "squeeze",
    "stack", "stop_gradient", "tile", "transpose", "unstack",
})  # fmt: skip
_REDUCTIONS = frozenset({
    "argmax", "argmin", "reduce", "reduce_and", "reduce_max", "reduce_min", "reduce_or",
    "reduce_prod", "reduce_sum", "reduce_xor",
})  # fmt: skip
_FOR_EACH_INPUT = frozenset({
    "approx_top_k", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "sort", "top_k",
})  # fmt: skip


def flops(function: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations of one call.

    Args:
        function: of arrays and pytrees of them, which JAX can trace.
        args: arrays, or ``jax.ShapeDtypeStruct`` in their place.

    Returns:
        How many; the module's docstring says what counts.

    Example:
        >>> flops(lambda x, w: x @ w, jnp.ones((4, 8)), jnp.ones((8, 16)))
        1024
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    return sum(count for _, count in operations(jaxpr))


def operations(jaxpr: Any, scope: str = "") -> Iterator[tuple[str, int]]:
    """Every equation of a jaxpr, those inside of others too.

    Args:
        jaxpr: the open one, as ``jax.make_jaxpr(...)(...).jaxpr``.
        scope: of the equation that it is part of.

    Yields:
        The names of the ``jax.named_scope`` that it was traced in, outer ones first, and its
        floating-point operations times the trips of the loops around it.
    """
    for equation in jaxpr.eqns:
        here = f"{scope}/{equation.source_info.name_stack}"
        for body, trips in _bodies(equation):
            for inner, count in operations(body, here):
                yield inner, trips * count
        yield here, _count(equation)


def _bodies(equation: Any) -> list[tuple[Any, int]]:
    """What an equation runs, and how often."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        return [(_chosen(params), 1)]
    if name in _REDUCTIONS or name.startswith(("scatter", "reduce_window", "select_and_")):
        return []  # their bodies say what is done with two numbers
    trips = params["length"] if name == "scan" else 1
    return [(getattr(body, "jaxpr", body), trips) for body in jaxprs_in_params(params)]


def _chosen(params: Any) -> Any:
    bodies = [branch.jaxpr for branch in params["branches"]]
    platforms = params.get("branches_platforms")
    if platforms is not None and None in platforms:
        return bodies[platforms.index(None)]
    return max(bodies, key=lambda body: sum(count for _, count in operations(body)))


def _count(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    ins: list[Any] = [variable.aval for variable in equation.invars]
    outs: list[Any] = [variable.aval for variable in equation.outvars]
    # A token has no dtype.
    floating = any(jnp.issubdtype(getattr(aval, "dtype", bool), jnp.inexact) for aval in ins)
    if not floating or not outs or name in _FREE or _bodies(equation):
        return 0
    size = outs[0].size
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2 * size * math.prod(ins[0].shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        features = ins[1].shape[params["dimension_numbers"].rhs_spec[0]]
        dilation = math.prod(params["lhs_dilation"])
        return 2 * size * (ins[1].size // features) // dilation
    if name in _REDUCTIONS:
        return ins[0].size - size
    if name in _FOR_EACH_INPUT:
        return ins[0].size
    if name.startswith("reduce_window"):
        return size * (math.prod(params["window_dimensions"]) - 1)
    if name.startswith("scatter"):
        return ins[2].size
    if name == "cholesky":
        return size * ins[0].shape[-1] // 3
    if name == "triangular_solve":
        return size * ins[0].shape[-1]
    return size
