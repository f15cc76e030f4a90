"""Dropout whose draws a checkpoint brings back."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax


class Dropout(nnx.Module):
    """Sets values to 0 at random in training, and scales the others so that the mean stays.

    The draw of a call is a function of a seed and of the number of training calls before it. Both
    are plain integers in the network's state: a run that was stopped draws what it would have
    drawn, and a function that maps over networks maps over their draws. Where devices share a batch
    each takes its part of what is drawn for all of it.

    Args:
        rate: share of values that are dropped, from 0 to below 1; 0 changes nothing.
        rngs: takes one key of the stream ``params`` for the seed.

    Raises:
        ValueError: a rate outside [0, 1).

    Attributes:
        seed: uint32 ``[]``.
        calls: int32 ``[]``, how many training calls there were.
        axis_name: of the axis along which devices share the batch; None where there is one.
        deterministic: whether nothing is dropped; ``network.eval()`` sets it.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014.
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        if not 0 <= rate < 1:
            raise ValueError(f"rate is {rate}, expected at least 0 and below 1")
        self.rate = rate
        self.seed = nnx.BatchStat(jax.random.bits(rngs.params(), (), jnp.uint32))
        self.calls = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.axis_name: str | None = None
        self.deterministic = False

    def __call__(self, x: Array) -> Array:
        """The same shape and dtype; counts the call, in training."""
        if self.deterministic or self.rate == 0:
            return x
        key = jax.random.fold_in(jax.random.key(self.seed[...]), self.calls[...])
        self.calls[...] = self.calls[...] + 1
        count = len(x)
        devices = 1 if self.axis_name is None else lax.axis_size(self.axis_name)
        share = jnp.float32(1 - self.rate)  # with 64 bits turned on other ones would be drawn
        kept = jax.random.bernoulli(key, share, (count * devices, *x.shape[1:]))
        if self.axis_name is not None:
            kept = lax.dynamic_slice_in_dim(kept, lax.axis_index(self.axis_name) * count, count)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))
