"""A routing under test: its compiled functions, and comparisons that say what differs."""

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

# Of the noise on drawn parameters.
_NOISE = 0.3


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
        compiler_options: as ``jax.jit`` takes them.
    """

    def __init__(
        self,
        module: Any,
        config: Any,
        examples: int,
        compiler_options: dict[str, Any] | None = None,
    ):
        self.module, self.config, self.examples = module, config, examples
        self.compiler_options = compiler_options
        self.huge = getattr(module, "HUGE", HUGE)
        self.iterative = hasattr(module, "State")
        self.traced: list[None] = []  # grows whenever the next is traced anew
        self.differentiated = self.jit(
            jax.value_and_grad(self._total, argnums=(0, 1, 2), has_aux=True)
        )
        self.plain = self.jit(lambda *inputs: outcome(self.route(*inputs)))

    def jit(self, function: Callable) -> Callable:
        """A compiled function."""
        return jax.jit(function, compiler_options=self.compiler_options)

    def configured(self, config: Any) -> "Subject":
        """The same routing with another config."""
        return Subject(self.module, config, self.examples, self.compiler_options)

    def __call__(
        self, votes: Any, children: Capsules, dtype: Any = jnp.float64, *, drawn: bool = False
    ) -> Outcome:
        """Route votes ``[parents, dim, children]``, compiled (once, together with the gradient)."""
        (_, (found, _)), _ = self.differentiated(*self.inputs(votes, children, dtype, drawn=drawn))
        return found

    def once(self, votes: Any, children: Capsules) -> Outcome:
        """Route votes of a shape that needs no gradient: float64, compiled on its own."""
        return self.plain(*self.inputs(votes, children, jnp.float64))

    def inputs(
        self, votes: Any, children: Capsules, dtype: Any, *, drawn: bool = False
    ) -> tuple[Any, Any, Any]:
        """Votes, children and parameters in a dtype: fresh ones, or drawn around these."""
        sizes = {"parents": votes.shape[-3], "dim": votes.shape[-2], "children": votes.shape[-1]}
        params = self.module.init(self.config, jax.random.key(0), child_dim=CHILD_DIM, **sizes)
        if drawn:
            random = np.random.default_rng(4)
            params = jax.tree.map(
                lambda x: np.asarray(x, np.float64) + _NOISE * random.normal(size=x.shape), params
            )
        return jax.tree.map(lambda x: jnp.asarray(x, dtype), (votes, children, params))

    def route(self, votes: Any, children: Any, params: Any, **options: Any) -> Routed:
        """The module's own, with the config filled in."""
        return self.module.route(votes, children, params, self.config, **options)

    def _total(self, votes: Any, children: Any, params: Any) -> tuple[Array, Any]:
        """Sum of all poses and activations; beside it the outcome and the state."""
        self.traced.append(None)
        routed = self.route(votes, children, params)
        found = outcome(routed)
        total = jnp.sum(found.poses)
        if found.activations is not None:
            total = total + jnp.sum(found.activations)
        return total, (found, routed.state)

    def on_drawn(self, check: Callable, *kinds: str, **options: Any) -> None:
        """Run ``check(votes, children, **options)`` on drawn votes ``[parents, DIM, children]``."""

        def one(drawn: np.ndarray, children: Capsules) -> None:
            check(drawn, children, **options)

        settings = hypothesis.settings(
            max_examples=self.examples,
            deadline=None,
            derandomize=True,
            database=None,
            # What fails is a seed, which has no simpler form.
            phases=(hypothesis.Phase.generate,),
            report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        children = st.integers(0, 2**32 - 1).map(draw_children)
        settings(hypothesis.given(votes(*kinds, huge=self.huge), children)(one))()


def mapped(found: Outcome, function: Callable) -> Outcome:
    """A function of every array, None left as it is."""
    return Outcome(*(None if value is None else function(np.asarray(value)) for value in found))


def same_outcome(
    found: Outcome, expected: Outcome, what: str, *, tolerance: float = TOLERANCE
) -> None:
    """Refuse outcomes that differ, with the name of what does."""
    for name, ours, theirs in zip(Outcome._fields, found, expected, strict=True):
        assert (ours is None) == (theirs is None), f"{name} {what}: None in one of them"
        if ours is not None:
            same(ours, theirs, f"{name} {what}", tolerance=tolerance)


def same_state(found: Any, expected: Any, what: str) -> None:
    """Refuse states that differ."""
    ours, theirs = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(ours) == len(theirs), f"the state {what} has {len(ours)} and {len(theirs)} arrays"
    for one, other in zip(ours, theirs, strict=True):
        if _is_float(one):
            same(one, other, f"states {what}")


def same(found: Any, expected: Any, what: str, *, tolerance: float = TOLERANCE) -> None:
    """Refuse arrays of other shapes, or that differ by more than rounding."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, f"{what} have shapes {found.shape} and {expected.shape}"
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    worst = float(np.abs(found - expected).max(initial=0))
    assert worst <= tolerance * scale, f"{what} differ by {worst:.3g}"


def all_finite(tree: Any, what: str) -> None:
    """Refuse NaN and Inf anywhere in a tree of arrays."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not _is_float(leaf):
            continue
        values = np.asarray(leaf, np.float64)
        bad = values[~np.isfinite(values)]
        place = jax.tree_util.keystr(path)
        assert not bad.size, f"a value or gradient is {bad[:1]} {what} (at {place})"


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
