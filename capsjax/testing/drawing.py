"""Votes and children for tests: drawn from seeds, and as hypothesis strategies."""

import functools
from typing import Any

import numpy as np

from capsjax.types import Capsules

try:
    from hypothesis import strategies as st
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "capsjax.testing draws examples with hypothesis: pip install 'capsjax[test]'"
    ) from error

# All different, and no dimension whose root is its half.
PARENTS, DIM, CHILDREN, CHILD_DIM = 3, 7, 6, 5
KINDS = ("clustered", "uniform", "tiny", "huge", "duplicated", "zeros")
TINY, HUGE = 1e-15, 1e15


def draw_votes(
    kind: str,
    seed: int,
    *,
    parents: int = PARENTS,
    dim: int = DIM,
    children: int = CHILDREN,
    huge: float = HUGE,
) -> np.ndarray:
    """Votes of one kind, from a seed.

    Args:
        kind: "clustered" (a random half of the children agrees about each parent), "uniform" (in
            [-1, 1]), "tiny" and "huge" (normal, times 1e-15 and ``huge``), "duplicated" (all
            children vote alike) or "zeros".
        seed: of the draw.
        parents: number of parents.
        dim: dimension of a parent's pose.
        children: number of children.
        huge: scale of the huge ones.

    Returns:
        float64 ``[parents, dim, children]``.

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> draw_votes("uniform", 0).shape
        (3, 7, 6)
    """
    random = np.random.default_rng(seed)
    shape = (parents, dim, children)
    if kind == "clustered":
        centres = random.normal(size=(parents, dim, 1))
        agree = random.integers(0, 2, size=(parents, 1, children))
        return np.where(agree, centres, 0) + random.normal(size=shape) * np.where(agree, 0.05, 1.0)
    if kind == "uniform":
        return random.uniform(-1, 1, size=shape)
    if kind in ("tiny", "huge"):
        return random.normal(size=shape) * (TINY if kind == "tiny" else huge)
    if kind == "duplicated":
        return np.repeat(random.normal(size=(parents, dim, 1)), children, axis=2)
    if kind == "zeros":
        return np.zeros(shape)
    raise ValueError(f"unknown kind {kind!r}, expected one of: {', '.join(KINDS)}")


def votes(*kinds: str, **sizes: Any) -> st.SearchStrategy[np.ndarray]:
    """Hypothesis strategy for votes of some kinds; see ``draw_votes``.

    Args:
        kinds: which; none means all.
        sizes: ``parents``, ``dim``, ``children`` and ``huge``, as for ``draw_votes``.

    Returns:
        A strategy of float64 arrays ``[parents, dim, children]``, of one shape, so that a compiled
        function compiles once.

    Example:
        >>> from hypothesis import given, settings
        >>> @settings(max_examples=5, deadline=None, database=None)
        ... @given(votes("clustered", "zeros", parents=2))
        ... def test_finite(drawn):
        ...     assert drawn.shape == (2, 7, 6) and np.isfinite(drawn).all()
        >>> test_finite()
    """
    seeds = st.integers(0, 2**32 - 1)
    return st.builds(functools.partial(draw_votes, **sizes), st.sampled_from(kinds or KINDS), seeds)


def draw_children(seed: int, *, children: int = CHILDREN, child_dim: int = CHILD_DIM) -> Capsules:
    """Children with normal poses and activations from 0.05 to 0.95, from a seed.

    Args:
        seed: of the draw.
        children: number of children.
        child_dim: dimension of their poses.

    Returns:
        float64 ``Capsules`` in NumPy.

    Example:
        >>> children = draw_children(0, children=4)
        >>> children.poses.shape, children.activations.shape
        ((4, 5), (4,))
    """
    random = np.random.default_rng([seed, 1])
    poses: Any = random.normal(size=(children, child_dim))
    activations: Any = random.uniform(0.05, 0.95, size=children)
    return Capsules(poses, activations)
