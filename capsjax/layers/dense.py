"""Capsules that see all capsules below."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from capsjax.layers.convolution import Initializer
from capsjax.layers.router import Router
from capsjax.layers.votes import Votes
from capsjax.ops.votes import add_coordinates
from capsjax.ops.windows import coordinates_of
from capsjax.types import Capsules, Routed


class DenseCapsules(nnx.Module):
    """Fully connected capsule layer: a matrix for each pair of child and parent, then a routing.

    Args:
        children: number of capsules below.
        child_dim: dimension of their poses.
        parents: number of capsules here.
        dim: dimension of their poses.
        config: a routing's config; its type chooses the algorithm.
        matrix: poses are square matrices.
        weights_init: as for ``Votes``.
        transform: whether there are matrices; see ``Votes``.
        readout: whether activations are the readout's; see ``Router``.
        rngs: takes one key of the stream ``params`` for the weights and one for the routing.

    Raises:
        ValueError: ``config`` belongs to no routing, matrix poses that are not square, or parents
            of another dimension without a transformation.

    Source: Sabour, Frosst and Hinton 2017, section 4 (DigitCaps).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from capsjax.routing import dynamic
        >>> def forward(children):
        ...     layer = DenseCapsules(6, 8, 3, 4, config=dynamic.Config(), rngs=nnx.Rngs(0))
        ...     return layer(children)
        >>> children = Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6)))
        >>> routed = jax.eval_shape(forward, children)  # nothing is computed
        >>> routed.poses.shape, routed.activations.shape, routed.coefficients.shape
        ((2, 3, 4), (2, 3), (2, 3, 6))
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
        weights_init: Initializer | None = None,
        transform: bool = True,
        readout: bool = True,
        rngs: nnx.Rngs,
    ):
        self.votes = Votes(
            children,
            child_dim,
            parents,
            dim,
            config=config,
            matrix=matrix,
            weights_init=weights_init,
            transform=transform,
            rngs=rngs,
        )
        sizes: dict[str, Any] = {"parents": parents, "dim": dim, "children": children}
        self.routing = Router(config, **sizes, child_dim=child_dim, readout=readout, rngs=rngs)

    def __call__(
        self, children: Capsules, *, initial: Routed | None = None, trace: bool = False
    ) -> Routed:
        """Route a batch of capsules, a grid of them or a plain row.

        Args:
            children: poses ``[batch, ..., child_dim]``, activations ``[batch, ...]`` or None.
            initial: an earlier result to continue from.
            trace: keep every iteration.

        Returns:
            The parents; every array has a leading batch axis.
        """

        def vote(children: Capsules) -> Array:
            return self.votes(children.poses)

        return self.routing(vote, flattened(children), initial=initial, trace=trace)


class ClassCapsules(nnx.Module):
    """Capsules that see a whole grid, whose positions share their matrices.

    Where a child is can be added to its votes, since the matrices do not tell.

    Args:
        shape: height, width and types of the grid below.
        child_dim: dimension of its poses.
        parents: number of capsules here.
        dim: dimension of their poses.
        config: a routing's config.
        matrix: poses are square matrices.
        coordinates: add a child's row and column, as shares of the grid, to its votes.
        normalise: batch-normalise the parents' poses.
        weights_init: as for ``Votes``.
        rngs: takes one key of the stream ``params`` for the weights and one for the routing.

    Raises:
        ValueError: ``config`` belongs to no routing, or matrix poses that are not square.

    Source: Hinton, Sabour and Frosst 2018, section 4 and figure 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from capsjax.routing import dynamic
        >>> def forward(children):
        ...     layer = ClassCapsules((2, 2, 3), 8, 5, 4, config=dynamic.Config(), rngs=nnx.Rngs(0))
        ...     return layer(children)
        >>> children = Capsules(jnp.ones((1, 2, 2, 3, 8)), jnp.ones((1, 2, 2, 3)))
        >>> routed = jax.eval_shape(forward, children)  # nothing is computed
        >>> routed.poses.shape, routed.coefficients.shape  # 2 x 2 x 3 children
        ((1, 5, 4), (1, 5, 12))
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        child_dim: int,
        parents: int,
        dim: int,
        *,
        config: Any,
        matrix: bool = False,
        coordinates: bool = True,
        normalise: bool = False,
        weights_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        self.votes = Votes(
            shape[2],
            child_dim,
            parents,
            dim,
            config=config,
            matrix=matrix,
            weights_init=weights_init,
            rngs=rngs,
        )
        height, width, types = shape
        children = height * width * types
        sizes: dict[str, Any] = {"parents": parents, "dim": dim, "children": children}
        self.routing = Router(config, **sizes, child_dim=child_dim, normalise=normalise, rngs=rngs)
        self.shape = shape
        self.coordinates = coordinates

    def __call__(
        self, children: Capsules, *, initial: Routed | None = None, trace: bool = False
    ) -> Routed:
        """Route a batch of grids.

        Args:
            children: poses ``[batch, height, width, types, child_dim]``, activations without the
                last axis, or None.
            initial: an earlier result to continue from.
            trace: keep every iteration.

        Returns:
            The parents; every array has a leading batch axis.
        """
        types, child_dim = children.poses.shape[-2:]

        def vote(children: Capsules) -> Array:
            poses = children.poses.reshape(len(children.poses), -1, types, child_dim)
            votes = self.votes.shared(poses)
            if self.coordinates:
                places = coordinates_of(self.shape, kernel_size=1).reshape(-1, 2)
                votes = add_coordinates(votes, jnp.asarray(places), rows=self.votes.rows)
            return votes

        return self.routing(vote, flattened(children), initial=initial, trace=trace)


def flattened(children: Capsules) -> Capsules:
    """A batch of capsules in one row: ``[batch, capsules, dim]`` and ``[batch, capsules]``."""
    batch, *grid, _ = children.poses.shape
    count = math.prod(grid)

    def row(x: Array) -> Array:
        return x.reshape(batch, count, *x.shape[1 + len(grid) :])

    return jax.tree.map(row, children)
