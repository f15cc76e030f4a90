"""From class capsules to what a network returns: the same for all with capsules for classes."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from capsjax.types import Output, Routed

Decoder = Callable[[Array, Array], Array]


def output_of(
    routed: Sequence[Routed],
    decoder: Decoder | None,
    targets: Array | None,
    *,
    longest: int = 1,
    logits: Array | None = None,
) -> Output:
    """What a network returns for its routed layers.

    Args:
        routed: of every routing layer, batched; the last are the class capsules.
        decoder: from poses and a mask of them to images; None reconstructs nothing.
        targets: ``[batch, classes]``, 1 for each class whose capsule the decoder sees, or
            ``[batch, k, classes]`` for as many reconstructions of each image. None shows it the
            most active.
        longest: without targets, how many of the most active, each by itself where it is not 1.
        logits: of the classes, where the activations are a function of them.

    Returns:
        Class capsules, their activations, reconstructions, and the routing.

    Raises:
        ValueError: ``longest`` is not from 1 to the number of classes.
    """
    classes = routed[-1]
    assert classes.activations is not None
    reconstruction = None
    if decoder is not None:
        masks = longest_of(classes.activations, longest) if targets is None else targets
        if masks.ndim == 3:
            # One batch of all: a decoder's batch statistics are of every image that it makes.
            batch, count = masks.shape[:2]
            poses = jnp.repeat(classes.poses, count, axis=0)
            images = decoder(poses, masks.reshape(batch * count, -1))
            reconstruction = images.reshape(batch, count, *images.shape[1:])
        else:
            reconstruction = decoder(classes.poses, masks)
    return Output(classes.poses, classes.activations, reconstruction, tuple(routed), logits)


def longest_of(activations: Array, count: int) -> Array:
    """Masks of the most active capsules, one for each of them.

    Args:
        activations: ``[batch, classes]``.
        count: how many.

    Returns:
        1 for the capsule, ``[batch, count, classes]``, without the axis of 1 for one.

    Raises:
        ValueError: ``count`` is not from 1 to the number of classes.
    """
    classes = activations.shape[-1]
    if not 1 <= count <= classes:
        raise ValueError(f"longest is {count}, expected 1 to {classes}, the number of classes")
    _, which = jax.lax.top_k(activations, count)
    masks = jax.nn.one_hot(which, classes, dtype=activations.dtype)
    return masks[:, 0] if count == 1 else masks
