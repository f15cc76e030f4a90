"""Brightness, contrast and standardisation on the device: pure functions of one example.

They follow TensorFlow's image operations, with which the papers' official code is written. Nothing
is cut off at 0 or 255, and the images are floating, on whichever scale the caller's numbers mean:
the official code works from 0 to 255, where its brightness changes by up to 63.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from capsjax import checks
from capsjax.data.augment import check_floating


@checks.arguments
def random_brightness(
    key: Array, image: Float[Array, "h w c"], *, limit: float
) -> Float[Array, "h w c"]:
    """Add one number to all pixels, drawn uniformly from [-limit, limit).

    Args:
        key: a JAX random key.
        image: ``[height, width, channels]``, floating.
        limit: largest change, on the image's own scale.

    Returns:
        The brighter or darker image, same shape and dtype.

    Raises:
        ValueError: the image is not floating.

    Source: TensorFlow's ``random_brightness`` (``max_delta`` is ``limit``).
    """
    check_floating(image)
    return image + jax.random.uniform(key, (), image.dtype, -limit, limit)


@checks.arguments
def random_contrast(
    key: Array, image: Float[Array, "h w c"], *, lower: float, upper: float
) -> Float[Array, "h w c"]:
    """Change the contrast by a factor drawn uniformly from [lower, upper).

    Args:
        key: a JAX random key.
        image: ``[height, width, channels]``, floating.
        lower: smallest factor.
        upper: largest factor.

    Returns:
        ``contrast(image, factor)``, same shape and dtype.

    Raises:
        ValueError: the image is not floating.

    Source: TensorFlow's ``random_contrast``.
    """
    check_floating(image)
    return contrast(image, jax.random.uniform(key, (), image.dtype, lower, upper))


@checks.arguments
def contrast(
    image: Float[Array, "h w c"], factor: Float[Array, ""] | float
) -> Float[Array, "h w c"]:
    """Move every pixel from its channel's mean: (image - mean) * factor + mean.

    Args:
        image: ``[height, width, channels]``, floating.
        factor: 0 leaves the mean alone, 1 the image as it is.

    Returns:
        Same shape and dtype; each channel keeps its mean.

    Raises:
        ValueError: the image is not floating.

    Source: TensorFlow's ``adjust_contrast``.
    """
    check_floating(image)
    mean = jnp.mean(image, axis=(0, 1), keepdims=True)
    return (image - mean) * factor + mean


@checks.arguments
def standardise(image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Shift and scale an image to mean 0 and standard deviation 1, over all pixels and channels.

    The divisor is at least 1 / sqrt(number of values), so that a uniform image becomes all 0.

    Args:
        image: ``[height, width, channels]``, floating.

    Returns:
        Same shape and dtype.

    Raises:
        ValueError: the image is not floating.

    Source: TensorFlow's ``per_image_standardization``.
    """
    check_floating(image)
    deviation = jnp.maximum(jnp.std(image), 1 / math.sqrt(image.size))
    return (image - jnp.mean(image)) / deviation
