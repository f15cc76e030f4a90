"""What every routed layer does with its votes, whatever it made them of."""

from typing import Any

import jax
from flax import nnx
from jax import Array

from capsjax import routing
from capsjax.layers.norm import TypeNorm
from capsjax.layers.readout import Readout
from capsjax.routing.competition import Compete
from capsjax.types import Capsules, Routed


class Router(nnx.Module):
    """A routing with its learned parameters, for a batch.

    Args:
        config: a routing's config; its type chooses the algorithm.
        parents: capsules of one window.
        dim: dimension of their poses.
        children: children of one window.
        child_dim: dimension of their poses.
        normalise: batch-normalise the parents' poses, all of one type together.
        readout: whether activations are the readout's; else they stay what the routing gave, which
            may be None. A layer whose activations nobody looks at needs no readout to learn.
        rngs: takes one key of the stream ``params`` for the routing, and one for its readout.

    Raises:
        ValueError: ``config`` belongs to no routing.
    """

    def __init__(
        self,
        config: Any,
        *,
        parents: int,
        dim: int,
        children: int,
        child_dim: int,
        normalise: bool = False,
        readout: bool = True,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.pose_norm = TypeNorm(parents, rngs=rngs) if normalise else None
        sizes = {"parents": parents, "dim": dim, "children": children, "child_dim": child_dim}
        params = routing.algorithm_of(config).init(config, rngs.params(), **sizes)
        self.params = nnx.Dict({name: nnx.Param(value) for name, value in params.items()})
        self.readout = Readout(parents, dim, config=config, used=readout, rngs=rngs)

    def __call__(
        self,
        votes: Array,
        children: Capsules,
        *,
        compete: Compete | None = None,
        initial: Routed | None = None,
        trace: bool = False,
    ) -> Routed:
        """Route a batch.

        Args:
            votes: ``[batch, *windows, parents, dim, children]``.
            children: those that cast them, ``[batch, *windows, children, child_dim]`` and
                ``[batch, *windows, children]``.
            compete: as in the routing contract.
            initial: an earlier result to continue from, batched.
            trace: keep every iteration.

        Returns:
            The result, every array with a leading batch axis, and with the readout's activations.
        """
        params = {name: param[...] for name, param in self.params.items()}
        algorithm = routing.algorithm_of(self.config)

        def route(votes: Array, children: Capsules, initial: Routed | None) -> Routed:
            return algorithm.route(
                votes,
                children,
                params,
                self.config,
                compete=compete,
                initial=initial,
                trace=trace,
            )

        routed = jax.vmap(route)(votes, children, initial)
        if self.pose_norm is not None:
            routed = routed._replace(poses=self.pose_norm(routed.poses))
        return routed._replace(activations=self.readout(routed))


def capsules_of(routed: Routed) -> Capsules:
    """A layer's result as the children of the next one; without activations where it has none."""
    activations: Any = routed.activations
    return Capsules(routed.poses, activations)
