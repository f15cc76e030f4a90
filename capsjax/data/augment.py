"""Transformations of images on the device: pure functions of one example and a key."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, UInt8


def shift(key: Array, image: Array, *, limit: int) -> Array:
    """Move an image by whole pixels, drawn uniformly from [-limit, limit] for each axis.

    Args:
        key: a JAX random key.
        image: ``[height, width, channels]`` of any dtype.
        limit: largest shift in pixels; 0 leaves the image as it is.

    Returns:
        The shifted image, same shape and dtype; what comes in from outside is 0.

    Source: Sabour, Frosst and Hinton 2017, section 5 (2 pixels for MNIST).
    """
    if limit == 0:
        return image
    padded = jnp.pad(image, ((limit, limit), (limit, limit), (0, 0)))
    row, column = jax.random.randint(key, (2,), 0, 2 * limit + 1)
    return lax.dynamic_slice(padded, (row, column, 0), image.shape)


def to_unit_interval(images: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """Pixels from 0 to 255 as float32 from 0 to 1."""
    return images.astype(jnp.float32) / 255
