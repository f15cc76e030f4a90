"""Running an iterative routing: the one loop behind every ``route``."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from capsjax.types import Capsules, Routed, Trace

Compete = Callable[[Array], Array]


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
    """Run ``config.num_iterations`` steps of a routing for one example.

    The loop is unrolled when it is traced: iterations are few, and XLA then sees that the first
    one has uniform coefficients and that nobody reads the last update.

    Args:
        start: ``start(votes, children, params, config, initial) -> State``.
        step: ``step(state, votes, children, params, config, iteration, compete) -> State``.
        finish: ``finish(state, votes, children, params, config) -> Routed``.
        votes: ``[*windows, parents, dim, children]`` float.
        children: the children's own poses and activations, where the algorithm uses them.
        params: the algorithm's learned parameters, from its ``init``.
        config: the algorithm's ``Config``.
        compete: as in the contract; None is the algorithm's own softmax over parents.
        initial: a result to continue from.
        trace: keep every iteration's coefficients, poses and activations.

    Returns:
        What ``finish`` makes of the last state, with ``trace`` filled in if asked for.
    """
    state = start(votes, children, params, config, initial)
    results = []
    for iteration in range(config.num_iterations):
        state = step(state, votes, children, params, config, iteration, compete)
        if trace:
            results.append(finish(state, votes, children, params, config))
    result = finish(state, votes, children, params, config)
    if not trace:
        return result
    entries = [Trace(r.coefficients, r.poses, r.activations) for r in results]
    return result._replace(trace=jax.tree.map(lambda *leaves: jnp.stack(leaves), *entries))
