"""A routing of one's own, complete: votes near the mean of all votes for a parent count more."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from capsjax.routing import sums

SOURCE = "made up for these tests"
READOUT = "own"
NOT_PROMISED = {"two groups": "both groups pull at the one mean that each parent has"}
HUGE = 1e6


@dataclass(frozen=True)
class Config:
    sharpness: float = 1.0


def init(config, key, *, parents, dim, children, child_dim):
    return {}


def route(votes, children, params, config, *, compete=None, initial=None, trace=False):
    wide = votes.astype(jnp.promote_types(votes.dtype, jnp.float32))
    active = children.activations.astype(wide.dtype)[..., None, :]
    total = active.sum(-1, keepdims=True)
    mean = sums.ratio((wide * active[..., None, :]).sum(-1, keepdims=True), total[..., None])
    distances = jnp.square(wide - mean).sum(-2)
    scale = (active * distances).mean((-2, -1), keepdims=True)
    logits = -config.sharpness * sums.ratio(distances, scale)
    coefficients = compete(logits) if compete else jax.nn.softmax(logits, axis=-2)
    weights = coefficients * active
    mass = weights.sum(-1)
    poses = sums.ratio(sums.weighted(weights, wide), mass[..., None])
    return sums.once(votes, poses, sums.ratio(mass, total[..., 0]), coefficients, trace=trace)
