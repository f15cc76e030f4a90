"""What every routed layer does with its votes, whatever it makes them of."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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

    Attributes:
        votes_at_once: of how many examples votes exist at a time; None is all of a batch. The
            others' are made when these have been routed, and again in the backward pass, which
            needs less memory and more time. ``network.set_attributes(votes_at_once=16)`` sets it in
            all layers.

    Raises:
        ValueError: ``config`` belongs to no routing.
    """

    votes_at_once: int | None = None

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
        vote: Callable[[Capsules], Array],
        children: Capsules,
        *,
        compete: Compete | None = None,
        initial: Routed | None = None,
        trace: bool = False,
    ) -> Routed:
        """Route a batch.

        Args:
            vote: from some of the batch's children to their votes, ``[examples, *windows, parents,
                dim, children]``.
            children: those that vote, every array with a leading batch axis.
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

        def route_all(children: Capsules, initial: Routed | None) -> Routed:
            return jax.vmap(route)(vote(children), children, initial)

        routed = in_parts(route_all, self.votes_at_once, children, initial)
        if self.pose_norm is not None:
            routed = routed._replace(poses=self.pose_norm(routed.poses))
        return routed._replace(activations=self.readout(routed))


def in_parts(call: Callable[..., Any], size: int | None, *arguments: Any) -> Any:
    """A function of a batch, so many examples at a time, and again so in the backward pass.

    Args:
        call: its arguments' and its result's arrays have a leading batch axis.
        size: how many at a time; None is all.
        arguments: of ``call``.

    Returns:
        What ``call(*arguments)`` gives.
    """
    count = len(jax.tree.leaves(arguments)[0])
    if size is None or size >= count:
        return call(*arguments)
    even = count - count % size

    def cut(x: Array) -> Array:
        return x[:even].reshape(-1, size, *x.shape[1:])

    once_more = jax.checkpoint(call)
    parts = jax.lax.map(lambda part: once_more(*part), jax.tree.map(cut, arguments))
    result = jax.tree.map(lambda x: x.reshape(even, *x.shape[2:]), parts)
    if even == count:
        return result
    rest = once_more(*jax.tree.map(lambda x: x[even:], arguments))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), result, rest)


def capsules_of(routed: Routed) -> Capsules:
    """A layer's result as the children of the next one; without activations where it has none."""
    activations: Any = routed.activations
    return Capsules(routed.poses, activations)
