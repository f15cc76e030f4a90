"""Convolutions as patches and matrix products, a few kernel rows at a time.

The patches of one product stay small where those of the whole convolution would not (CapsNet's
second, batch 128: 956 MB).

Measured on a CPU (float32, 2 cores, 2048^3 matrix product 153-172 GFLOP/s), 9x9 stride 2,
256 -> 256, 20x20 input, batch 64: forward 832 ms by ``lax.conv``, 925 ms by space-to-depth, 306 ms
with all patches at once, 235 ms here; weight gradient 301 ms with all patches, 266 ms here; input
gradient 288 ms here. 9x9, 1 -> 256, 28x28: forward 15.5 ms by ``lax.conv`` and 10.7 here, weight
gradient 53.6 and 13.1.
"""

from collections.abc import Iterator

import jax.numpy as jnp
from jax import Array

from capsjax.ops.precision import working_dtype

# Terms of the sum in one matrix product: enough to keep it busy (81 for a 9x9 kernel on one channel
# is all there is), few enough that its patches stay near the cache.
_TERMS_PER_PRODUCT = 1024

# Kernels up to here are cut into patches by their own columns: as fast as by the output's, and the
# fewer copies compile in a fifth of the time (3x3, 64 -> 128, 28x28: 4.9 s become 0.8).
_FEW_COLUMNS = 5


def output_size(images: tuple[int, ...], kernel: tuple[int, ...], stride: int) -> tuple[int, int]:
    """Height and width of an unpadded convolution's output."""
    return (images[1] - kernel[0]) // stride + 1, (images[2] - kernel[1]) // stride + 1


def forward(images: Array, kernel: Array, stride: int) -> Array:
    """The convolution of ``ops.convolution``, unpadded."""
    size = output_size(images.shape, kernel.shape, stride)
    features = kernel.shape[3]
    products = [
        _product(
            _patches(images, rows, kernel.shape[1], size, stride),
            kernel[slice(*rows)].reshape(-1, features),
        )
        for rows in _row_groups(kernel.shape)
    ]
    total = sum(products[1:], start=products[0]).astype(images.dtype)
    return total.reshape(images.shape[0], *size, features)


def kernel_gradient(images: Array, kernel: tuple[int, ...], gradient: Array, stride: int) -> Array:
    """What the output's gradient is for a kernel of this shape."""
    flat = gradient.reshape(-1, kernel[3])
    parts = [
        _product(_patches(images, rows, kernel[1], gradient.shape[1:3], stride).T, flat)
        for rows in _row_groups(kernel)
    ]
    return jnp.concatenate(parts).reshape(kernel).astype(gradient.dtype)


def images_gradient(images: tuple[int, ...], kernel: Array, gradient: Array, stride: int) -> Array:
    """What the output's gradient is for images of this shape."""
    batch, height, width, features = gradient.shape
    flat = gradient.reshape(-1, features)
    total = jnp.zeros(images, working_dtype(gradient.dtype))
    _, columns, channels, _ = kernel.shape
    for start, stop in _row_groups(kernel.shape):
        patches = _product(flat, kernel[start:stop].reshape(-1, features).T)
        patches = patches.reshape(batch, height, width, stop - start, columns, channels)
        for row in range(start, stop):
            for column in range(columns):
                total = total.at[
                    :,
                    row : row + stride * (height - 1) + 1 : stride,
                    column : column + stride * (width - 1) + 1 : stride,
                ].add(patches[:, :, :, row - start, column])
    return total.astype(gradient.dtype)


def _product(left: Array, right: Array) -> Array:
    """Summed in float32 at least: also the only form in which a CPU is faster in two bytes."""
    wide = working_dtype(left.dtype)
    return jnp.matmul(left, right, preferred_element_type=wide)


def _row_groups(kernel: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Ranges of kernel rows that share one product."""
    rows, columns, channels, _ = kernel
    size = max(1, -(-_TERMS_PER_PRODUCT // (columns * channels)))
    for start in range(0, rows, size):
        yield start, min(start + size, rows)


def _patches(
    images: Array, rows: tuple[int, int], columns: int, size: tuple[int, ...], stride: int
) -> Array:
    """Patches [batch * out_height * out_width, rows * columns * channels] of some kernel rows."""
    batch, _, _, channels = images.shape
    height, width = size
    parts = []
    for row in range(*rows):
        lines = images[:, row : row + stride * (height - 1) + 1 : stride]
        if columns <= _FEW_COLUMNS:
            parts += [
                lines[:, :, column : column + stride * (width - 1) + 1 : stride]
                for column in range(columns)
            ]
            continue
        # The columns of one patch are neighbours in memory: one copy moves columns * channels.
        windows = [lines[:, :, x * stride : x * stride + columns] for x in range(width)]
        parts.append(jnp.stack(windows, 2).reshape(batch, height, width, columns * channels))
    return jnp.concatenate(parts, -1).reshape(batch * height * width, -1)
