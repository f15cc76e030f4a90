"""Capsules that see a window of the capsules below."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from capsjax.layers.convolution import Initializer
from capsjax.layers.router import Router
from capsjax.layers.votes import Votes
from capsjax.ops.convolution import Padding
from capsjax.ops.votes import add_coordinates
from capsjax.ops.windows import coordinates_of, slots_of, windows_of
from capsjax.routing.competition import Over, across
from capsjax.types import Capsules, Routed


class ConvolutionalCapsules(nnx.Module):
    """Convolutional capsule layer: each window's children vote for the parents at its place.

    Args:
        shape: height, width and types of the grid below.
        child_dim: dimension of its poses.
        parents: types of capsules here.
        dim: dimension of their poses.
        kernel_size: rows and columns of a window.
        stride: from one window to the next.
        padding: "VALID" or "SAME"; slots of padding take no part.
        config: a routing's config.
        matrix: poses are square matrices.
        shared: all windows have the same weights.
        coordinates: add a child's row and column, as shares of the grid, to its votes.
        over: what a child's parents are in competition: "all" of every position and type, those of
            one "position", or those of one "type"; see ``competition.across``.
        normalise: batch-normalise the parents' poses.
        weights_init: as for ``Votes``.
        readout: whether activations are the readout's; see ``Router``.
        rngs: takes one key of the stream ``params`` for the weights and one for the routing.

    Raises:
        ValueError: ``config`` belongs to no routing, no window fits the grid, or matrix poses that
            are not square.

    Attributes:
        out_shape: height, width and types of the grid here.

    Source: Hinton, Sabour and Frosst 2018, section 3 and figure 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from capsjax.routing import dynamic
        >>> def forward(children):
        ...     options = {"kernel_size": 3, "stride": 2, "config": dynamic.Config()}
        ...     layer = ConvolutionalCapsules((5, 5, 2), 4, 3, 6, **options, rngs=nnx.Rngs(0))
        ...     return layer(children)
        >>> children = Capsules(jnp.ones((1, 5, 5, 2, 4)), jnp.ones((1, 5, 5, 2)))
        >>> jax.eval_shape(forward, children).poses.shape  # nothing is computed
        (1, 2, 2, 3, 6)
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        child_dim: int,
        parents: int,
        dim: int,
        *,
        kernel_size: int,
        stride: int = 1,
        padding: Padding = "VALID",
        config: Any,
        matrix: bool = False,
        shared: bool = True,
        coordinates: bool = False,
        over: Over = "all",
        normalise: bool = False,
        weights_init: Initializer | None = None,
        readout: bool = True,
        rngs: nnx.Rngs,
    ):
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.shape = shape
        height, width, slots = slots_of(shape, **self._window).shape
        self.out_shape = (height, width, parents)
        self.over = over
        self.coordinates = coordinates
        self.votes = Votes(
            slots,
            child_dim,
            parents,
            dim,
            config=config,
            matrix=matrix,
            positions=() if shared else (height, width),
            weights_init=weights_init,
            rngs=rngs,
        )
        sizes: dict[str, Any] = {
            "parents": parents,
            "dim": dim,
            "children": slots,
            "child_dim": child_dim,
        }
        self.routing = Router(config, **sizes, normalise=normalise, readout=readout, rngs=rngs)

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
            The parents, a grid ``[batch, *out_shape, dim]``, as windows of the routing contract.
        """
        seen = jax.tree.map(lambda x: windows_of(x, **self._window), children)

        def vote(seen: Capsules) -> Array:
            votes = self.votes(seen.poses)
            if self.coordinates:
                places = jnp.asarray(coordinates_of(self.shape, **self._window))
                votes = add_coordinates(votes, places, rows=self.votes.rows)
            return votes

        compete = across(slots_of(self.shape, **self._window), over=self.over)
        return self.routing(vote, seen, compete=compete, initial=initial, trace=trace)

    @property
    def _window(self) -> dict[str, Any]:
        return {"kernel_size": self.kernel_size, "stride": self.stride, "padding": self.padding}
