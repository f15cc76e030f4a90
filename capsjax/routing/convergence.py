r"""Running an iterative routing: how often, until when, and what its gradient is.

An algorithm gives ``start``, ``step`` and ``finish``; ``run`` iterates them as ``config.loop``
says. A fixed number of iterations is unrolled while it is short and a ``lax.scan`` beyond that; a
tolerance makes it a ``lax.while_loop`` that ends when no coupling coefficient changed by more.

Gradients by name:

* ``unrolled``: through all iterations. Not with a tolerance, since no reverse mode runs through a
  while loop.
* ``last_iteration``: through the last one only, the state before it taken as constant.
* ``implicit``: at a fixed point :math:`z = f(z, \theta)`, by the implicit function theorem

  .. math::
      \frac{d z}{d \theta}^T v = \frac{\partial f}{\partial \theta}^T w, \qquad
      w = v + \frac{\partial f}{\partial z}^T w,

  with w found by iterating its equation. It converges wherever the routing itself does, at the same
  rate; where ``max_iterations`` ends it before, the gradient is that of so many iterations. The map
  f is the step of the last iteration; with a tolerance an algorithm whose steps differ (EM's
  temperature rises) stays at that of its ``num_iterations``, also where it continues an earlier
  result.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from capsjax import checks
from capsjax.routing.competition import Compete
from capsjax.types import Capsules, Routed, Trace

Gradient = Literal["unrolled", "last_iteration", "implicit"]

# The implicit gradient's own iteration ends at a relative change of so many roundings.
_SOLVED = 10


@dataclass(frozen=True)
class Loop:
    """How an iterative routing is run.

    Attributes:
        gradient: "unrolled" (through all iterations), "last_iteration" (through that one only) or
            "implicit" (of the fixed point; needs a tolerance).
        tolerance: after ``num_iterations`` go on until the largest change of a coefficient in one
            iteration is below this (what changes more slowly counts as at rest); None ends there.
        max_iterations: with a tolerance, or for the implicit gradient's own iteration: end after so
            many.
        unroll: up to so many iterations are unrolled when they are traced (XLA then sees that the
            first coefficients are uniform); more are one ``lax.scan``.
        checkpoint: keep no iteration's intermediate values for the backward pass but compute them
            again (``jax.checkpoint``).

    Raises:
        ValueError: a value out of range, or the unrolled gradient with a tolerance.
    """

    gradient: Gradient = "unrolled"
    tolerance: float | None = None
    max_iterations: int = 1000
    unroll: int = 8
    checkpoint: bool = False

    def __post_init__(self) -> None:
        checks.fields(self)
        if self.gradient not in ("unrolled", "last_iteration", "implicit"):
            raise ValueError(
                f"gradient is {self.gradient!r}, expected 'unrolled', 'last_iteration' or "
                "'implicit'"
            )
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"tolerance is {self.tolerance}, expected a positive number or None")
        for name, low in (("max_iterations", 2), ("unroll", 0)):
            value = getattr(self, name)
            if value < low:
                raise ValueError(f"{name} is {value}, expected at least {low}")
        if self.tolerance is not None and self.gradient == "unrolled":
            raise ValueError(
                "gradient='unrolled' with a tolerance: no reverse mode runs through a while loop; "
                "use gradient='last_iteration' or 'implicit', or leave tolerance unset"
            )
        if self.tolerance is None and self.gradient == "implicit":
            raise ValueError(
                "gradient='implicit' without a tolerance: it holds at a fixed point only; set a "
                "tolerance, such as 1e-5"
            )


class _Routing(NamedTuple):
    """An algorithm's three functions with everything but state and inputs filled in.

    ``before`` counts the iterations of the result that this run continues.
    """

    start: Callable[[Any], Any]
    step: Callable[[Any, Any, Any], Any]  # state, inputs, iteration
    finish: Callable[[Any, Any], Routed]
    before: Any


def run(
    start: Callable[..., Any],
    step: Callable[..., Any],
    finish: Callable[..., Routed],
    votes: Array,
    children: Capsules | None,
    params: Any,
    config: Any,
    *,
    compete: Compete | None = None,
    initial: Routed | None = None,
    trace: bool = False,
) -> Routed:
    """Iterate a routing for one example.

    Args:
        start: ``start(votes, children, params, config, initial) -> State``.
        step: ``step(state, votes, children, params, config, iteration, compete) -> State``; a state
            that has been through it once has a ``coefficients`` and always the same structure.
        finish: ``finish(state, votes, children, params, config) -> Routed``.
        votes: ``[*windows, parents, dim, children]`` float.
        children: the children's own poses and activations, where the algorithm uses them.
        params: the algorithm's learned parameters, from its ``init``.
        config: the algorithm's ``Config``, with ``num_iterations`` and ``loop``.
        compete: as in the contract; None is the algorithm's own softmax over parents.
        initial: a result to continue from.
        trace: keep every iteration's coefficients, poses and activations.

    Returns:
        What ``finish`` makes of the last state, with ``trace`` (if asked for), ``iterations`` and,
        with a tolerance, ``converged`` filled in.

    Raises:
        ValueError: ``initial`` is of another routing, or of votes of another shape.
    """
    loop = config.loop
    inputs = (votes, children, params)
    if initial is not None:
        _check_initial(initial, type(start(*inputs, config, None)), votes)

    before = 0 if initial is None or initial.iterations is None else initial.iterations

    def one_step(state: Any, inputs: Any, iteration: Any) -> Any:
        return step(state, *inputs, config, iteration, compete)

    routing = _Routing(
        start=lambda inputs: start(*inputs, config, initial),
        step=jax.checkpoint(one_step) if loop.checkpoint else one_step,
        finish=lambda state, inputs: finish(state, *inputs, config),
        before=before,
    )
    if loop.gradient == "unrolled":
        state, entries = _fixed(routing, inputs, config.num_iterations, loop.unroll, trace)
        return routing.finish(state, inputs)._replace(
            trace=entries, iterations=jnp.int32(before + config.num_iterations)
        )
    return _detached(routing, inputs, config, trace)


def _check_initial(initial: Routed, state: type, votes: Array) -> None:
    if type(initial.state) is not state:
        raise ValueError(
            f"initial has a state of {type(initial.state).__module__}, expected an earlier result "
            f"of this routing, with one of {state.__module__}"
        )
    if initial.poses.shape != votes.shape[:-1]:
        raise ValueError(
            f"initial has poses of shape {initial.poses.shape}, expected {votes.shape[:-1]} for "
            f"votes of shape {votes.shape}"
        )


def _fixed(
    routing: _Routing, inputs: Any, count: int, unroll: int, trace: bool
) -> tuple[Any, Trace | None]:
    """State after ``count`` steps; only the first may change the state's structure."""
    state = routing.step(routing.start(inputs), inputs, routing.before)
    entries = [_entry(routing, state, inputs)] if trace else []
    if count <= unroll:
        for iteration in range(1, count):
            state = routing.step(state, inputs, routing.before + iteration)
            entries += [_entry(routing, state, inputs)] if trace else []
        return state, _stack(entries) if trace else None

    def body(state: Any, iteration: Array) -> tuple[Any, Trace | None]:
        state = routing.step(state, inputs, routing.before + iteration)
        return state, _entry(routing, state, inputs) if trace else None

    state, later = lax.scan(body, state, jnp.arange(1, count, dtype=jnp.int32))
    if not trace:
        return state, None
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), entries[0], later)


def _detached(routing: _Routing, inputs: Any, config: Any, trace: bool) -> Routed:
    """The iteration without a gradient, then its last step with one."""
    loop = config.loop
    constant = lax.stop_gradient(inputs)
    last: Any
    if loop.tolerance is None:
        count = config.num_iterations
        before = routing.start(constant)
        entries = None
        if count > 1:
            before, entries = _fixed(routing, constant, count - 1, loop.unroll, trace)
        last, converged = count - 1, None
    else:
        before, last, change, entries = _until(routing, constant, config, trace)
        converged = change < loop.tolerance
    before = lax.stop_gradient(before)
    kind = routing.before + last
    if loop.tolerance is not None:
        kind = jnp.minimum(kind, config.num_iterations - 1)
    state = routing.step(before, inputs, kind)
    if loop.gradient == "implicit":
        # As a float: an integer argument would need a gradient of a type of its own.
        arguments = (state, constant, jnp.asarray(kind, float))
        # What ``compete`` closes over becomes an argument, whose gradient the step above carries.
        step, closed_over = jax.closure_convert(routing.step, *arguments)
        state = _as_fixed_point(step, loop.max_iterations, *arguments, closed_over)
    result = routing.finish(state, inputs)
    if trace:
        ending = _entry(routing, lax.stop_gradient(state), constant)
        entries = _with_last(entries, ending, last, tolerance=loop.tolerance is not None)
    iterations = jnp.int32(routing.before + last + 1)
    return result._replace(trace=entries, iterations=iterations, converged=converged)


def _until(
    routing: _Routing, inputs: Any, config: Any, trace: bool
) -> tuple[Any, Array, Array, Trace | None]:
    """State before the last step, that step's index, its change, and the trace of all steps."""
    loop = config.loop
    last_kind = config.num_iterations - 1  # of a result that is continued as well
    first = routing.step(routing.start(inputs), inputs, jnp.minimum(routing.before, last_kind))
    entries = None
    if trace:
        entry = _entry(routing, first, inputs)
        entries = jax.tree.map(
            lambda leaf: jnp.zeros((loop.max_iterations, *leaf.shape), leaf.dtype).at[0].set(leaf),
            entry,
        )

    def advance(carry: Any) -> Any:
        _, state, iteration, _, entries = carry
        kind = jnp.minimum(routing.before + iteration, last_kind)
        after = routing.step(state, inputs, kind)
        change = jnp.max(jnp.abs(after.coefficients - state.coefficients))
        if trace:
            entries = jax.tree.map(
                lambda all_, leaf: all_.at[iteration].set(leaf),
                entries,
                _entry(routing, after, inputs),
            )
        return state, after, iteration + 1, change, entries

    def goes_on(carry: Any) -> Array:
        _, _, iteration, change, _ = carry
        # Until then an algorithm's steps may differ, so that standing still proves nothing.
        differing = routing.before + iteration < config.num_iterations
        return ((change >= loop.tolerance) | differing) & (iteration < loop.max_iterations)

    start = advance((first, first, jnp.int32(1), jnp.inf, entries))
    before, _, iteration, change, entries = lax.while_loop(goes_on, advance, start)
    return before, iteration - 1, change, entries


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _as_fixed_point(
    step: Callable,
    max_iterations: int,
    state: Any,
    inputs: Any,
    iteration: Array,
    closed_over: list[Array],
) -> Any:
    """The state as it is; its gradient v becomes the implicit function theorem's w.

    Applied to the outcome of one step, whose own gradient then turns w into the inputs'.
    """
    del step, max_iterations, inputs, iteration, closed_over
    return state


def _fixed_point_forward(
    step: Callable,
    max_iterations: int,
    state: Any,
    inputs: Any,
    iteration: Array,
    closed_over: list[Array],
) -> tuple[Any, Any]:
    del step, max_iterations
    return state, (state, inputs, iteration, closed_over)


def _fixed_point_backward(
    step: Callable, max_iterations: int, residuals: Any, gradient: Any
) -> tuple[Any, Any, Array, list[Array]]:
    state, inputs, iteration, closed_over = residuals
    _, pull = jax.vjp(lambda state: step(state, inputs, iteration, *closed_over), state)

    def improve(carry: Any) -> Any:
        weights, _, count = carry
        better = jax.tree.map(jnp.add, gradient, pull(weights)[0])
        change = _largest(jax.tree.map(jnp.subtract, better, weights))
        return better, change / (_largest(better) + tiny), count + 1

    infinite = jnp.full_like(_largest(gradient), jnp.inf)
    eps, tiny = jnp.finfo(infinite.dtype).eps, jnp.finfo(infinite.dtype).tiny
    weights, _, _ = lax.while_loop(
        lambda carry: (carry[1] > _SOLVED * eps) & (carry[2] < max_iterations),
        improve,
        (gradient, infinite, 0),
    )
    return weights, *jax.tree.map(jnp.zeros_like, (inputs, iteration, closed_over))


_as_fixed_point.defvjp(_fixed_point_forward, _fixed_point_backward)


def _largest(tree: Any) -> Array:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))


def _entry(routing: _Routing, state: Any, inputs: Any) -> Trace:
    result = routing.finish(state, inputs)
    return Trace(result.coefficients, result.poses, result.activations)


def _stack(entries: list[Trace]) -> Trace:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *entries)


def _with_last(entries: Trace | None, ending: Trace, last: Any, *, tolerance: bool) -> Trace:
    """The trace completed by the step that carries the gradient."""
    if entries is None:
        return _stack([ending])
    if not tolerance:
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), entries, ending)

    def fill(leaf: Array, value: Array) -> Array:
        index = jnp.arange(leaf.shape[0], dtype=jnp.int32).reshape(-1, *(1 for _ in value.shape))
        return jnp.where(index < last, leaf, value[None])

    return jax.tree.map(fill, entries, ending)


@checks.arguments
def extrapolate(config: Any, num_iterations: int) -> Any:
    """A routing's config with another number of iterations.

    With ``trace=True`` one pass then holds the result of every number of iterations up to it: entry
    k of the trace is what k + 1 iterations give.

    Args:
        config: an iterative algorithm's ``Config``.
        num_iterations: how many to run.

    Returns:
        A ``Config`` of the same algorithm.

    Raises:
        ValueError: the algorithm has no iterations, or fewer than one is asked for.

    Example:
        >>> from capsjax.routing import dynamic
        >>> extrapolate(dynamic.Config(), 50).num_iterations
        50
    """
    if isinstance(config, type) or not hasattr(config, "num_iterations"):
        kind = config if isinstance(config, type) else type(config)
        raise ValueError(
            f"{kind.__module__} is not iterative, expected a config with num_iterations"
        )
    return dataclasses.replace(config, num_iterations=num_iterations)
