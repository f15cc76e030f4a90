"""How active a routed capsule is: by its length, by its routing, or by a learned readout."""

from typing import Any

import jax
from flax import nnx
from jax import Array

from capsjax import routing
from capsjax.layers.convolution import LECUN_NORMAL
from capsjax.layers.norm import BatchNorm
from capsjax.ops.squash import safe_norm
from capsjax.types import Routed


class Readout(nnx.Module):
    """Activations of routed capsules, as their routing's ``READOUT`` says.

    "length": the pose's length; "own": what the routing itself gives, batch-normalised for each
    capsule and then through the logistic function where the routing gives logits
    (``activation="identity"``); "linear": the logistic function of one linear map, shared by all
    capsules, for routings whose poses all have the same length.

    Args:
        capsules: of one window.
        dim: dimension of a capsule's pose.
        config: the routing's config.
        used: without it nothing is learned, and activations stay what the routing gave, which may
            be None.
        rngs: takes one key of the stream ``params`` for a linear readout.

    Raises:
        ValueError: ``config`` belongs to no routing, or to one with an unknown ``READOUT``.

    Source: Tsai, Srivastava, Goh and Salakhutdinov 2020, section 3 (the linear one; the logistic
    function in place of their softmax over classes is ours, for losses on each class alone);
    Ribeiro, Leontidis and Kollias 2020, section 3 (the normalised one).
    """

    def __init__(self, capsules: int, dim: int, *, config: Any, used: bool = True, rngs: nnx.Rngs):
        kind = getattr(routing.algorithm_of(config), "READOUT", None)
        if kind not in ("length", "own", "linear"):
            raise ValueError(
                f"the routing's READOUT is {kind!r}, expected 'length', 'own' or 'linear'"
            )
        self.kind = kind if used else None
        logits = used and getattr(config, "activation", "sigmoid") == "identity"
        self.linear = (
            nnx.Linear(dim, 1, kernel_init=LECUN_NORMAL, rngs=rngs)
            if self.kind == "linear"
            else None
        )
        self.normalisation = (
            BatchNorm(capsules, momentum=0.9, use_scale=False, use_bias=False, rngs=rngs)
            if logits
            else None
        )

    def logits(self, routed: Routed) -> Array | None:
        """What the linear readout says before the logistic function; None of the other two."""
        return None if self.linear is None else self.linear(routed.poses)[..., 0]

    def __call__(self, routed: Routed) -> Array | None:
        """Activations ``[batch, ..., capsules]`` of batched capsules."""
        if self.kind is None:
            return routed.activations
        logits = self.logits(routed)
        if logits is not None:
            return jax.nn.sigmoid(logits)
        if self.kind == "length":
            return safe_norm(routed.poses)
        assert routed.activations is not None
        if self.normalisation is not None:
            return jax.nn.sigmoid(self.normalisation(routed.activations))
        return routed.activations
