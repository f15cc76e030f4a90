"""Capsules that see all capsules below: a matrix for each pair, then a routing."""

from typing import Any

import jax
from flax import nnx

from capsjax import routing
from capsjax.layers.primary import Initializer
from capsjax.ops.votes import dense_votes
from capsjax.types import Capsules, Routed

_WEIGHTS_STDDEV = 0.1


class DenseCapsules(nnx.Module):
    """Fully connected capsule layer.

    Args:
        children: number of capsules below.
        child_dim: dimension of their poses.
        parents: number of capsules here.
        dim: dimension of their poses.
        config: a routing's config; its type chooses the algorithm.
        weights_init: initializer of the weights ``[child_dim, parents, dim, children]``; None is
            a truncated normal of the standard deviation that the routing names as
            ``WEIGHTS_STDDEV``, or of 0.1 as in the authors' code.
        rngs: takes one key of the stream ``params`` for the weights and one for the routing.

    Raises:
        ValueError: ``config`` belongs to no routing.

    Source: Sabour, Frosst and Hinton 2017, section 4 (DigitCaps).
    """

    def __init__(
        self,
        children: int,
        child_dim: int,
        parents: int,
        dim: int,
        *,
        config: Any,
        weights_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        self.config = config
        if weights_init is None:
            stddev = getattr(routing.algorithm_of(config), "WEIGHTS_STDDEV", _WEIGHTS_STDDEV)
            weights_init = nnx.initializers.truncated_normal(stddev)
        self.weights = nnx.Param(weights_init(rngs.params(), (child_dim, parents, dim, children)))
        params = routing.algorithm_of(config).init(
            config, rngs.params(), parents=parents, dim=dim, children=children, child_dim=child_dim
        )
        self.params = nnx.Dict({name: nnx.Param(value) for name, value in params.items()})

    def __call__(self, children: Capsules, *, trace: bool = False) -> Routed:
        """Route a batch of capsules; every array of the result has a leading batch axis."""
        votes = dense_votes(children.poses, self.weights[...])
        params = {name: param[...] for name, param in self.params.items()}
        algorithm = routing.algorithm_of(self.config)

        def route(votes: jax.Array, children: Capsules) -> Routed:
            return algorithm.route(votes, children, params, self.config, trace=trace)

        return jax.vmap(route)(votes, children)
