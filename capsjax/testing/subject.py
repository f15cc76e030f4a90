"""A routing under test: its compiled functions, and comparisons that say what differs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import Array

from capsjax.testing.drawing import CHILD_DIM, HUGE, draw_children, votes
from capsjax.types import Capsules, Routed

TOLERANCE = 1e-9  # of float64 results, relative to the largest


class Outcome(NamedTuple):
    """What a routing returned that can be compared."""

    poses: Any
    activations: Any
    coefficients: Any


def outcome(routed: Routed) -> Outcome:
    """The comparable part of a result."""
    return Outcome(routed.poses, routed.activations, routed.coefficients)


class Subject:
    """A routing with a config; its functions compile once for each shape and dtype.

    Args:
        module: the routing's module.
        config: an instance of its ``Config``.
        examples: how many votes each property draws.
    """

    def __init__(self, module: Any, config: Any, examples: int):
        self.module, self.config, self.examples = module, config, examples
        self.huge = getattr(module, "HUGE", HUGE)
        self.iterative = hasattr(module, "State")
        self.differentiated = jax.jit(
            jax.value_and_grad(self._total, argnums=(0, 1, 2), has_aux=True)
        )

    def __call__(self, votes: Any, children: Capsules, dtype: Any = jnp.float64) -> Outcome:
        """Route votes ``[*windows, parents, dim, children]``, compiled."""
        (_, found), _ = self.with_gradient(votes, children, dtype)
        return found

    def with_gradient(self, votes: Any, children: Capsules, dtype: Any) -> Any:
        """Value and gradients of the sum of all poses and activations, and the outcome."""
        return self.differentiated(*self.inputs(votes, children, dtype))

    def inputs(self, votes: Any, children: Capsules, dtype: Any) -> tuple[Any, Any, Any]:
        """Votes, children and fresh parameters in a dtype."""
        sizes = {"parents": votes.shape[-3], "dim": votes.shape[-2], "children": votes.shape[-1]}
        params = self.module.init(self.config, jax.random.key(0), child_dim=CHILD_DIM, **sizes)
        return jax.tree.map(lambda x: jnp.asarray(x, dtype), (votes, children, params))

    def route(self, votes: Any, children: Any, params: Any, **options: Any) -> Routed:
        """The module's own, with the config filled in."""
        return self.module.route(votes, children, params, self.config, **options)

    def _total(self, votes: Any, children: Any, params: Any) -> tuple[Array, Outcome]:
        found = outcome(self.route(votes, children, params))
        total = jnp.sum(found.poses)
        if found.activations is not None:
            total = total + jnp.sum(found.activations)
        return total, found

    def on_drawn(self, check: Callable, *kinds: str, **options: Any) -> None:
        """Run ``check(votes, children, **options)`` on drawn votes ``[parents, DIM, children]``."""

        def one(drawn: np.ndarray, children: Capsules) -> None:
            check(drawn, children, **options)

        settings = hypothesis.settings(
            max_examples=self.examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        children = st.integers(0, 2**32 - 1).map(draw_children)
        settings(hypothesis.given(votes(*kinds, huge=self.huge), children)(one))()


def mapped(found: Outcome, function: Callable) -> Outcome:
    """A function of every array, None left as it is."""
    return Outcome(*(None if value is None else function(np.asarray(value)) for value in found))


def same_outcome(found: Outcome, expected: Outcome, what: str) -> None:
    """Refuse outcomes that differ, with the name of what does."""
    for name, ours, theirs in zip(Outcome._fields, found, expected, strict=True):
        assert (ours is None) == (theirs is None), f"{name} {what}: None in one of them"
        if ours is not None:
            same(ours, theirs, f"{name} {what}")


def same(found: Any, expected: Any, what: str, *, tolerance: float = TOLERANCE) -> None:
    """Refuse arrays that differ by more than rounding."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    worst = float(np.abs(found - expected).max(initial=0))
    assert worst <= tolerance * scale, f"{what} differ by {worst:.3g}"


def all_finite(tree: Any, what: str) -> None:
    """Refuse NaN and Inf anywhere in a tree of arrays."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        values = np.asarray(leaf, np.float64)
        bad = values[~np.isfinite(values)]
        place = jax.tree_util.keystr(path)
        assert not bad.size, f"a value or gradient is {bad[:1]} {what} (at {place})"


def traces(function: Callable) -> tuple[Callable, list[None]]:
    """A compiled function, and a list that grows whenever it is traced anew."""
    seen: list[None] = []

    @functools.wraps(function)
    def counted(*arguments: Any) -> Any:
        seen.append(None)
        return function(*arguments)

    return jax.jit(counted), seen
