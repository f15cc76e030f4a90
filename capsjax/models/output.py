"""From class capsules to what a network returns: the same for all with capsules for classes."""

import jax
import jax.numpy as jnp
from jax import Array

from capsjax.layers.decoder import DenseDecoder
from capsjax.layers.readout import Readout
from capsjax.types import Output, Routed


def output_of(
    routed: Routed, readout: Readout, decoder: DenseDecoder | None, targets: Array | None
) -> Output:
    """Activations and reconstructions of a batch of class capsules.

    Args:
        routed: the class capsules, each array with a leading batch axis.
        readout: gives their activations.
        decoder: None reconstructs nothing.
        targets: ``[batch, classes]``, 1 for each class whose capsule the decoder sees; None shows
            it the most active.

    Returns:
        Class capsules, their activations, reconstructions, and the routing.
    """
    activations = readout(routed)
    reconstruction = None
    if decoder is not None:
        if targets is None:
            predicted = jnp.argmax(activations, axis=-1)
            targets = jax.nn.one_hot(predicted, activations.shape[-1], dtype=activations.dtype)
        reconstruction = decoder(routed.poses, targets)
    return Output(routed.poses, activations, reconstruction, (routed,))


def check_images(images: Array, image_shape: tuple[int, int, int]) -> None:
    """Refuse images of another shape than the network was made for with a ValueError."""
    if images.ndim != 4 or images.shape[1:] != image_shape:
        raise ValueError(
            f"images have shape {images.shape}, expected [batch, height, width, channels] with "
            f"{image_shape} after the batch"
        )
