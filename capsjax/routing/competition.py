"""Competition: how a child's logits become its shares among its parents.

In a dense layer a child has one logit for each parent, and a softmax over them makes the shares. In
a convolutional layer a child lies in several windows, each with parents of its own; ``across``
makes the ``compete`` of the routing contract for that case.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from capsjax import checks

Compete = Callable[[Array], Array]
Over = Literal["all", "position", "type"]


def shares(
    logits: Array | None, shape: tuple[int, ...], compete: Compete | None, dtype: Any
) -> Array:
    """Coefficients from logits: by ``compete``, or by a softmax over parents.

    Args:
        logits: ``[*windows, parents, children]`` float, or None for constant ones (a softmax of
            constants is one that XLA would fold for seconds at compile time).
        shape: of the logits.
        compete: ``compete(logits) -> coefficients``, or None.
        dtype: of the coefficients where ``logits`` is None.

    Returns:
        ``[*windows, parents, children]`` float.
    """
    if compete is not None:
        if logits is None:  # behind a barrier, or XLA computes the softmax while it compiles
            logits = jax.lax.optimization_barrier(jnp.zeros(shape, dtype))
        return compete(logits)
    if logits is None:
        return jnp.full(shape, 1 / shape[-2], dtype)
    return jax.nn.softmax(logits, axis=-2)


@checks.arguments
def across(index: np.ndarray, *, over: Over = "all") -> Compete:
    """Competition among the windows of a convolutional layer.

    Args:
        index: integer ``[*windows, children]``, which child of the layer below fills each slot of
            each window, from 0; negative for a slot that holds none (padding), whose coefficients
            are 0.
        over: what a child's coefficients sum to 1 over. "all": all its parents, those at other
            positions and of other types included (Hinton, Sabour and Frosst 2018, section 3;
            Gritzman 2019 shows what goes wrong otherwise). "position": the types within each
            window, as in SR-CapsNet's release, so that its sum is the number of windows it lies in.
            "type": all positions, for each parent type on its own, as in the release of EM's
            authors, so that its sum is the number of types.

    Returns:
        ``compete(logits [*windows, parents, children]) -> coefficients`` of the same shape.

    Raises:
        ValueError: an index that is no table of integers, or an unknown ``over``.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> compete = across(np.array([[0, 1], [1, 2]]))  # two windows of two; child 1 is in both
        >>> (1 / compete(jnp.zeros((2, 3, 2)))[0, 0]).tolist()  # one of 3 parents, one of 6
        [3.0, 6.0]
    """
    index = np.asarray(index)
    if index.ndim < 1 or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(
            f"index has shape {index.shape} and dtype {index.dtype}, expected integers "
            "[*windows, children]"
        )
    if over not in ("all", "position", "type"):
        raise ValueError(f"over is {over!r}, expected 'all', 'position' or 'type'")
    held = index >= 0
    # Of 32 bits, as indices are: those of NumPy's are 64, of which some of JAX's parts make 32.
    slots = np.where(held, index, 0).ravel().astype(np.int32)
    count = int(slots.max(initial=0)) + 1

    def compete(logits: Array) -> Array:
        if (*logits.shape[:-2], logits.shape[-1]) != index.shape:
            raise ValueError(
                f"logits have shape {logits.shape}, expected [*windows, parents, children] for an "
                f"index of shape {index.shape}"
            )
        valid = jnp.asarray(held)[..., None, :]
        if over == "position":
            return jnp.where(valid, jax.nn.softmax(logits, axis=-2), 0)
        # Children first, parents last: [slots of all windows, parents].
        flat = jnp.moveaxis(logits, -2, -1).reshape(len(slots), -1)
        there = jnp.broadcast_to(jnp.asarray(held).reshape(-1, 1), flat.shape)
        flat = jnp.where(there, flat, -jnp.inf)
        axis = None if over == "type" else -1
        largest = flat if axis is None else jnp.max(flat, axis, keepdims=True)
        largest = jax.ops.segment_max(jax.lax.stop_gradient(largest), slots, count)
        largest = jnp.where(jnp.isfinite(largest), largest, 0)  # a child that only padding names
        differences = jnp.where(there, flat, 0) - jnp.where(there, largest[slots], 0)
        exponentials = jnp.where(there, jnp.exp(differences), 0)
        total = exponentials if axis is None else jnp.sum(exponentials, axis, keepdims=True)
        total = jax.ops.segment_sum(total, slots, count)
        total = jnp.where(total > 0, total, 1)
        result = (exponentials / total[slots]).reshape(*index.shape, -1)
        return jnp.moveaxis(result, -1, -2)

    return compete
