"""The matrices through which children vote."""

import math
from typing import Any

import jax
from flax import nnx
from jax import Array

from capsjax import routing
from capsjax.layers.convolution import Initializer
from capsjax.ops.votes import dense_votes, shared_votes

_WEIGHTS_STDDEV = 0.1


class Votes(nnx.Module):
    """Weights of a capsule layer, and what they make of the children's poses.

    Args:
        children: capsules that share no weights with each other.
        child_dim: dimension of their poses.
        parents: number of parents.
        dim: dimension of their poses.
        config: the routing's config, whose algorithm may name a standard deviation.
        matrix: poses are square matrices, multiplied from the right; else vectors.
        positions: of windows that have weights of their own; none where all share them.
        weights_init: initializer of the weights ``[*positions, inner, parents, columns,
            children]``; None is a truncated normal, of standard deviation ``1 / sqrt(inner)`` for
            matrices (votes are as large as poses), else the routing's ``WEIGHTS_STDDEV``, or 0.1 as
            in the code of Sabour 2017.
        rngs: takes one key of the stream ``params``.

    Raises:
        ValueError: matrix poses that are not square, or not of one size.
    """

    def __init__(
        self,
        children: int,
        child_dim: int,
        parents: int,
        dim: int,
        *,
        config: Any,
        matrix: bool = False,
        positions: tuple[int, ...] = (),
        weights_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        self.rows = check_matrix(child_dim, dim) if matrix else 1
        self.positions = positions
        inner, columns = child_dim // self.rows, dim // self.rows
        if weights_init is None:
            named = getattr(routing.algorithm_of(config), "WEIGHTS_STDDEV", _WEIGHTS_STDDEV)
            weights_init = nnx.initializers.truncated_normal(inner**-0.5 if matrix else named)
        shape = (*positions, inner, parents, columns, children)
        self.weights = nnx.Param(weights_init(rngs.params(), shape))

    def __call__(self, poses: Array) -> Array:
        """Votes in each window.

        Args:
            poses: ``[batch, *windows, children, child_dim]``.

        Returns:
            ``[batch, *windows, parents, dim, children]``.
        """
        weights = self.weights[...]
        batch, windows = poses.shape[0], poses.shape[1:-2]
        if self.positions:
            flat = poses.reshape(batch, -1, *poses.shape[-2:])
            own = weights.reshape(-1, *weights.shape[len(self.positions) :])

            def votes_of(poses: Array, weights: Array) -> Array:
                return dense_votes(poses, weights, rows=self.rows)

            votes = jax.vmap(votes_of, in_axes=(1, 0), out_axes=1)(flat, own)
        else:
            votes = dense_votes(poses.reshape(-1, *poses.shape[-2:]), weights, rows=self.rows)
        return votes.reshape(batch, *windows, *votes.shape[-3:])

    def shared(self, poses: Array) -> Array:
        """Votes of children at all positions for the same parents.

        Args:
            poses: ``[batch, positions, children, child_dim]``.

        Returns:
            ``[batch, parents, dim, positions * children]``.
        """
        return shared_votes(poses, self.weights[...], rows=self.rows)


def balanced(config: Any, children: int, parents: int, dim: int) -> Initializer:
    """Initial weights by which stacked layers neither vanish nor saturate.

    Under uniform coupling, the sums are then as long as the children. Routing makes them longer,
    the more so the longer the votes are: with weights twice as large, which would keep children of
    length 1/2 at 1/2 if it did not, every capsule of a stack of three starts near length 1 and
    stays there. A routing that names a standard deviation of its own keeps it.

    Args:
        config: the routing's config.
        children: number of children.
        parents: number of parents.
        dim: dimension of the parents' poses.

    Returns:
        A truncated normal.
    """
    named = getattr(routing.algorithm_of(config), "WEIGHTS_STDDEV", None)
    stddev = parents / math.sqrt(children * dim) if named is None else named
    return nnx.initializers.truncated_normal(stddev)


def check_matrix(child_dim: int, dim: int) -> int:
    """Rows of a square matrix pose; a ValueError for poses that are none or of two sizes."""
    rows = math.isqrt(dim)
    if rows * rows != dim or child_dim != dim:
        raise ValueError(
            f"poses have dimension {child_dim} below and {dim} here, expected the same square "
            "number (16 for a 4x4 matrix): use that, or vectors (matrix=False)"
        )
    return rows
