"""Transformations of images on the device: pure functions of one example and a key.

This file moves whole pixels, ``warp`` moves what lies between them, ``colour`` changes values. Rows
count downwards, so positions and displacements are (y, x) pairs.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Integer, Shaped, UInt8

from capsjax import checks

# Rows and columns of an image, and pixels that it is moved by.
_LARGEST = 4096


@checks.arguments
def shift(key: Array, image: Shaped[Array, "h w c"], *, limit: int) -> Array:
    """Move an image by whole pixels, drawn uniformly from [-limit, limit] for each axis.

    Args:
        key: a JAX random key.
        image: ``[height, width, channels]`` of any dtype.
        limit: largest shift in pixels; 0 leaves the image as it is.

    Returns:
        The shifted image, same shape and dtype; what comes in from outside is 0.

    Source: Sabour, Frosst and Hinton 2017, section 5 (2 pixels for MNIST).
    """
    checks.sizes(least=0, most=max(image.shape), limit=limit)
    if limit == 0:
        return image
    drawn = jax.random.randint(key, (2,), 0, 2 * limit + 1, jnp.int32)
    return place(image, limit - drawn, limit=limit)


@checks.arguments
def place(
    image: Shaped[Array, "h w c"], offset: Integer[Array, "2"], *, limit: int, pad: int = 0
) -> Array:
    """An image on a larger canvas, moved by whole pixels.

    Args:
        image: ``[height, width, channels]`` of any dtype.
        offset: int32 ``[2]``, how far down and to the right, each from -limit to limit.
        limit: largest offset in pixels, known when compiling.
        pad: pixels that the canvas has more than the image on each of its four sides.

    Returns:
        ``[height + 2 pad, width + 2 pad, channels]``, same dtype. The rest of the canvas is 0, and
        what an offset beyond ``pad`` moves over its edge is cut off.
    """
    checks.sizes(least=0, most=_LARGEST, limit=limit, pad=pad)
    height, width, channels = image.shape
    border = pad + limit
    padded = jnp.pad(image, ((border, border), (border, border), (0, 0)))
    row, column = limit - jnp.asarray(offset, jnp.int32)
    size = (height + 2 * pad, width + 2 * pad, channels)
    return lax.dynamic_slice(padded, (row, column, jnp.int32(0)), size)


@checks.arguments
def random_crop(key: Array, image: Shaped[Array, "h w c"], *, size: tuple[int, int]) -> Array:
    """Cut a window out of an image, all positions equally likely.

    Args:
        key: a JAX random key.
        image: ``[height, width, channels]`` of any dtype.
        size: rows and columns of the window.

    Returns:
        ``[*size, channels]``, same dtype.

    Raises:
        ValueError: the window is larger than the image.
    """
    room = jnp.array(_room(image, size), jnp.int32)
    row, column = jax.random.randint(key, (2,), 0, room + 1, jnp.int32)
    return lax.dynamic_slice(image, (row, column, jnp.int32(0)), (*size, image.shape[2]))


@checks.arguments
def central_crop(image: Shaped[Array, "h w c"], *, size: tuple[int, int]) -> Array:
    """Cut out the middle of an image.

    Where an odd number of rows or columns is left over, the smaller part of it is cut off at the
    top or left.

    Args:
        image: ``[height, width, channels]`` of any dtype.
        size: rows and columns of the window.

    Returns:
        ``[*size, channels]``, same dtype.

    Raises:
        ValueError: the window is larger than the image.
    """
    row, column = (room // 2 for room in _room(image, size))
    return image[row : row + size[0], column : column + size[1]]


@checks.arguments
def random_flip(key: Array, image: Shaped[Array, "h w c"]) -> Array:
    """Mirror an image, left to right, with probability 1/2.

    Args:
        key: a JAX random key.
        image: ``[height, width, channels]`` of any dtype.

    Returns:
        The image or its mirror image, same shape and dtype.
    """
    return jnp.where(jax.random.bernoulli(key, jnp.float32(0.5)), image[:, ::-1], image)


@checks.arguments
def resize(
    image: Float[Array, "h w c"], *, size: tuple[int, int]
) -> Float[Array, "rows columns c"]:
    """Resize an image by bilinear interpolation between pixel centres, without antialiasing.

    At exactly half the size every pixel is the mean of 2x2 pixels, so that from 96 to 48
    "bilinear" and "area" are the same.

    Args:
        image: ``[height, width, channels]``, floating.
        size: rows and columns of the result.

    Returns:
        ``[*size, channels]``, same dtype.

    Raises:
        ValueError: the image is not floating (rounding is left to the caller).
    """
    check_floating(image)
    checks.sizes(most=_LARGEST, rows=size[0], columns=size[1])
    return jax.image.resize(image, (*size, image.shape[2]), "linear", antialias=False)


@checks.arguments
def composite(
    first: UInt8[Array, "*shape"], second: UInt8[Array, "*shape"]
) -> UInt8[Array, "*shape"]:
    """Two images in one, their pixels added and cut off at 255.

    Args:
        first: uint8, any shape.
        second: uint8, the same shape.

    Returns:
        uint8 min(first + second, 255), the same shape.

    Raises:
        ValueError: they are not uint8 or their shapes differ.
    """
    if first.dtype != jnp.uint8 or second.dtype != jnp.uint8 or first.shape != second.shape:
        raise ValueError(
            f"images are {first.dtype} {first.shape} and {second.dtype} {second.shape}, expected "
            "two of uint8 and of one shape"
        )
    return first + jnp.minimum(second, 255 - first)


@checks.arguments
def to_unit_interval(images: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """Pixels from 0 to 255 as float32 from 0 to 1."""
    return images.astype(jnp.float32) / 255


@checks.arguments
def check_floating(image: Array) -> None:
    """Refuse an image of integers.

    Args:
        image: of any shape.

    Raises:
        ValueError: its dtype is not floating.
    """
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(
            f"image is {image.dtype}, expected a floating dtype: convert it with to_unit_interval"
        )


def _room(image: Array, size: tuple[int, int]) -> tuple[int, int]:
    checks.sizes(most=_LARGEST, rows=size[0], columns=size[1])
    room = image.shape[0] - size[0], image.shape[1] - size[1]
    if min(room) < 0:
        raise ValueError(f"crop has size {size}, expected at most the image's {image.shape[:2]}")
    return room
