"""The one place that decides how a convolution is lowered on each platform.

GPU and TPU get ``lax.conv_general_dilated``. XLA's CPU back end runs a convolution at a fraction of
a matrix product's speed, and the input gradient of a strided one many times slower still, so there
all three directions are patches and matrix products, a few kernel rows at a time: the patches of
one product stay small where those of the whole convolution would not (CapsNet's second, batch 128:
956 MB).

Measured on a CPU (float32, 2 cores, 2048^3 matrix product 153-172 GFLOP/s), 9x9 stride 2,
256 -> 256, 20x20 input, batch 64: forward 832 ms by ``lax.conv``, 925 ms by space-to-depth, 306 ms
with all patches at once, 235 ms here; weight gradient 301 ms with all patches, 266 ms here; input
gradient 288 ms here. 9x9, 1 -> 256, 28x28: forward 15.5 ms by ``lax.conv`` and 10.7 here, weight
gradient 53.6 and 13.1.
"""

from collections.abc import Iterator
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

Padding = Literal["SAME", "VALID"]

# Terms of the sum in one matrix product: enough to keep it busy (81 for a 9x9 kernel on one channel
# is all there is), few enough that its patches stay near the cache.
_TERMS_PER_PRODUCT = 1024

# Kernels up to here are cut into patches by their own columns: as fast as by the output's, and the
# fewer copies compile in a fifth of the time (3x3, 64 -> 128, 28x28: 4.9 s become 0.8).
_FEW_COLUMNS = 5


def conv2d(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns channels features"],
    *,
    stride: int = 1,
    padding: Padding = "VALID",
) -> Float[Array, "batch out_height out_width features"]:
    """Two-dimensional convolution (cross-correlation), differentiable in both arguments.

    Args:
        images: the input.
        kernel: the filters.
        stride: of both spatial axes.
        padding: "VALID" (none) or "SAME" (zeros, output size = input size / stride, rounded up).

    Returns:
        The output, in the inputs' dtype.

    Raises:
        ValueError: channels disagree, a stride below 1, or an image smaller than an unpadded
            kernel.
    """
    if images.ndim != 4 or kernel.ndim != 4 or images.shape[3] != kernel.shape[2]:
        raise ValueError(
            "conv2d takes images [batch, height, width, channels] and a kernel "
            f"[rows, columns, channels, features], got {images.shape} and {kernel.shape}"
        )
    if stride < 1:
        raise ValueError(f"stride is {stride}, expected at least 1")
    if padding not in ("VALID", "SAME"):
        raise ValueError(f"padding is {padding!r}, expected 'VALID' or 'SAME'")
    if padding == "SAME":
        pads = lax.padtype_to_pads(images.shape[1:3], kernel.shape[:2], (stride, stride), padding)
        images = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    if images.shape[1] < kernel.shape[0] or images.shape[2] < kernel.shape[1]:
        raise ValueError(
            f"images of {images.shape[1]}x{images.shape[2]} are smaller than the kernel of "
            f"{kernel.shape[0]}x{kernel.shape[1]}; use larger images or padding='SAME'"
        )
    return _conv(images, kernel, stride)


def depthwise_conv2d(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns 1 channels"],
    *,
    stride: int = 1,
) -> Float[Array, "batch out_height out_width channels"]:
    """Unpadded convolution of each channel with a filter of its own.

    Where the kernel has one place only, as in Efficient-CapsNet, it is one contraction.

    Args:
        images: the input.
        kernel: the filters.
        stride: of both spatial axes.

    Returns:
        The output, in the inputs' dtype.

    Raises:
        ValueError: channels disagree, a stride below 1, or an image smaller than the kernel.
    """
    if images.ndim != 4 or kernel.ndim != 4 or kernel.shape[2:] != (1, images.shape[3]):
        raise ValueError(
            "depthwise_conv2d takes images [batch, height, width, channels] and a kernel "
            f"[rows, columns, 1, channels], got {images.shape} and {kernel.shape}"
        )
    rows, columns, _, channels = kernel.shape
    if stride < 1 or images.shape[1] < rows or images.shape[2] < columns:
        raise ValueError(
            f"a kernel of {rows}x{columns} slides over images of "
            f"{images.shape[1]}x{images.shape[2]} by {stride}, expected one that fits and a stride "
            "of at least 1"
        )
    if _output_size(images.shape, kernel.shape, stride) == (1, 1):
        seen = images[:, :rows, :columns]
        return jnp.einsum("bhwc,hwc->bc", seen, kernel[:, :, 0])[:, None, None]
    return lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(images: Array, kernel: Array, stride: int) -> Array:
    return lax.platform_dependent(
        images,
        kernel,
        cpu=partial(_forward_by_products, stride=stride),
        default=partial(_library_convolution, stride=stride),
    )


def _forward(images: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _conv(images, kernel, stride), (images, kernel)


def _backward(stride: int, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    images, kernel = residuals

    def library(images: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        _, pull = jax.vjp(partial(_library_convolution, stride=stride), images, kernel)
        return pull(gradient)

    def products(images: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        return (
            _images_gradient_by_products(images.shape, kernel, gradient, stride),
            _kernel_gradient_by_products(images, kernel.shape, gradient, stride),
        )

    return lax.platform_dependent(images, kernel, gradient, cpu=products, default=library)


_conv.defvjp(_forward, _backward)


def _library_convolution(images: Array, kernel: Array, *, stride: int) -> Array:
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _output_size(images: tuple[int, ...], kernel: tuple[int, ...], stride: int) -> tuple[int, int]:
    return (images[1] - kernel[0]) // stride + 1, (images[2] - kernel[1]) // stride + 1


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


def _forward_by_products(images: Array, kernel: Array, *, stride: int) -> Array:
    size = _output_size(images.shape, kernel.shape, stride)
    features = kernel.shape[3]
    products = [
        _patches(images, rows, kernel.shape[1], size, stride)
        @ kernel[slice(*rows)].reshape(-1, features)
        for rows in _row_groups(kernel.shape)
    ]
    return sum(products[1:], start=products[0]).reshape(images.shape[0], *size, features)


def _kernel_gradient_by_products(
    images: Array, kernel: tuple[int, ...], gradient: Array, stride: int
) -> Array:
    flat = gradient.reshape(-1, kernel[3])
    parts = [
        _patches(images, rows, kernel[1], gradient.shape[1:3], stride).T @ flat
        for rows in _row_groups(kernel)
    ]
    return jnp.concatenate(parts).reshape(kernel)


def _images_gradient_by_products(
    images: tuple[int, ...], kernel: Array, gradient: Array, stride: int
) -> Array:
    batch, height, width, features = gradient.shape
    flat = gradient.reshape(-1, features)
    total = jnp.zeros(images, gradient.dtype)
    _, columns, channels, _ = kernel.shape
    for start, stop in _row_groups(kernel.shape):
        patches = flat @ kernel[start:stop].reshape(-1, features).T
        patches = patches.reshape(batch, height, width, stop - start, columns, channels)
        for row in range(start, stop):
            for column in range(columns):
                total = total.at[
                    :,
                    row : row + stride * (height - 1) + 1 : stride,
                    column : column + stride * (width - 1) + 1 : stride,
                ].add(patches[:, :, :, row - start, column])
    return total
