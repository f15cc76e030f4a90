"""The one place that decides how a convolution is lowered on each platform.

GPU and TPU get ``lax.conv_general_dilated``. XLA's CPU back end runs a convolution at a fraction of
a matrix product's speed, and the input gradient of a strided one many times slower still, so there
a convolution is made of matrix products, of patches or of polynomials' values, by the rules of
``rule``. ``python -m experiments.benchmarks.convolutions`` measures what they are read from.

Who wants plain sums only, and their rounding, asks for it by JAX's own
``jax.default_matmul_precision("highest")``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from capsjax import checks
from capsjax.ops import patches, winograd

Padding = Literal["SAME", "VALID"]
Direction = Literal["forward", "kernel_gradient", "images_gradient"]


class Lowering(NamedTuple):
    """One way to compute an unpadded convolution and its gradients.

    Attributes:
        forward: ``(images, kernel, stride) -> output``.
        kernel_gradient: ``(images, kernel's shape, gradient, stride) -> gradient``.
        images_gradient: ``(images' shape, kernel, gradient, stride) -> gradient``.
    """

    forward: Callable[..., Array]
    kernel_gradient: Callable[..., Array]
    images_gradient: Callable[..., Array]


@checks.arguments(together=False)
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
        ValueError: channels disagree, a stride below 1, an unknown padding, or an image smaller
            than an unpadded kernel.

    Example:
        >>> import jax.numpy as jnp
        >>> images, kernel = jnp.ones((1, 3, 3, 1)), jnp.ones((2, 2, 1, 1))
        >>> conv2d(images, kernel)[0, :, :, 0].tolist()
        [[4.0, 4.0], [4.0, 4.0]]
        >>> conv2d(images, kernel, stride=2, padding="SAME").shape
        (1, 2, 2, 1)
    """
    if images.ndim != 4 or kernel.ndim != 4 or images.shape[3] != kernel.shape[2]:
        raise ValueError(
            "conv2d takes images [batch, height, width, channels] and a kernel "
            f"[rows, columns, channels, features], got {images.shape} and {kernel.shape}"
        )
    if images.dtype != kernel.dtype:
        raise TypeError(f"images are {images.dtype}, the kernel {kernel.dtype}, expected one dtype")
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


@checks.arguments(together=False)
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
    if images.dtype != kernel.dtype:
        raise TypeError(f"images are {images.dtype}, the kernel {kernel.dtype}, expected one dtype")
    rows, columns, _, channels = kernel.shape
    if stride < 1 or images.shape[1] < rows or images.shape[2] < columns:
        raise ValueError(
            f"a kernel of {rows}x{columns} slides over images of "
            f"{images.shape[1]}x{images.shape[2]} by {stride}, expected one that fits and a stride "
            "of at least 1"
        )
    if patches.output_size(images.shape, kernel.shape, stride) == (1, 1):
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


def _library_forward(images: Array, kernel: Array, stride: int) -> Array:
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _library_kernel_gradient(
    images: Array, kernel: tuple[int, ...], gradient: Array, stride: int
) -> Array:
    kept = jax.ShapeDtypeStruct(kernel, gradient.dtype)
    pull = jax.linear_transpose(partial(_library_forward, images, stride=stride), kept)
    return pull(gradient)[0]


def _library_images_gradient(
    images: tuple[int, ...], kernel: Array, gradient: Array, stride: int
) -> Array:
    kept = jax.ShapeDtypeStruct(images, gradient.dtype)
    pull = jax.linear_transpose(lambda x: _library_forward(x, kernel, stride), kept)
    return pull(gradient)[0]


def _winograd(outputs: int) -> Lowering:
    return Lowering(
        partial(winograd.forward, outputs=outputs),
        partial(winograd.kernel_gradient, outputs=outputs),
        partial(winograd.images_gradient, outputs=outputs),
    )


_LIBRARY = Lowering(_library_forward, _library_kernel_gradient, _library_images_gradient)

LOWERINGS = {
    "library": _LIBRARY,
    "patches": Lowering(patches.forward, patches.kernel_gradient, patches.images_gradient),
    "winograd 2": _winograd(2),
    "winograd 4": _winograd(4),
}


# Of polynomials' values: channels and features have to be this many for the matrix products to pay
# for making them, and tiles for making the kernel's.
_CHANNELS = {"forward": 32, "kernel_gradient": 16, "images_gradient": 32}
_TILES = 128
# Outputs computed together, by folded kernel size and stride.
_OUTPUTS = {(3, 1): 4, (5, 1): 2, (5, 2): 2}


@checks.arguments
def rule(
    direction: Direction,
    images: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: int,
    dtype: Any,
) -> str:
    """Which lowering a CPU gets.

    ================  =========================  ===================  =======================
    direction         wide: 3x3 or 5x5 of        3x3 and less         all others
                      stride 1, 9x9 of stride 2
    ================  =========================  ===================  =======================
    forward           winograd                   library              patches, or library for
                                                                      less than 32 channels
    kernel_gradient   winograd                   patches              patches
    images_gradient   winograd                   library              patches
    ================  =========================  ===================  =======================

    Wide is a convolution of 32 channels and features (16 for the kernel's gradient) and 128 tiles
    at least, in float32 or float64, where nobody asked for the precision "highest". The library's
    kernel gradient is as fast as patches, but not inside a loop (a 3x3 one 505 ms there, outside
    9), and its images' gradient of a large strided kernel takes half a minute.

    Args:
        direction: of the three.
        images: their shape, padding included.
        kernel: its shape.
        stride: of both axes.
        dtype: of both.

    Returns:
        A name in ``LOWERINGS``.
    """
    rows, columns, channels, features = kernel
    outputs = _OUTPUTS.get((-(-max(rows, columns) // stride), stride)) if rows == columns else None
    precision = cast(Any, jax.config).jax_default_matmul_precision
    plain = precision in ("highest", "float32") or dtype not in (jnp.float32, jnp.float64)
    if outputs is not None and not plain and min(channels, features) >= _CHANNELS[direction]:
        height, width = patches.output_size(images, kernel, stride)
        if images[0] * -(-height // outputs) * -(-width // outputs) >= _TILES:
            return f"winograd {outputs}"
    if direction == "kernel_gradient":
        return "patches"
    if max(rows, columns) <= 3:
        return "library"
    return "library" if direction == "forward" and channels < 32 else "patches"


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(images: Array, kernel: Array, stride: int) -> Array:
    name = rule("forward", images.shape, kernel.shape, stride, images.dtype)
    return lax.platform_dependent(
        images,
        kernel,
        cpu=lambda x, k: LOWERINGS[name].forward(x, k, stride),
        default=lambda x, k: _LIBRARY.forward(x, k, stride),
    )


def _forward(images: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _conv(images, kernel, stride), (images, kernel)


def _backward(stride: int, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    images, kernel = residuals
    shapes = (images.shape, kernel.shape)

    def by(of_kernel: Lowering, of_images: Lowering) -> Callable[..., tuple[Array, Array]]:
        return lambda x, k, g: (
            of_images.images_gradient(shapes[0], k, g, stride),
            of_kernel.kernel_gradient(x, shapes[1], g, stride),
        )

    chosen = [
        LOWERINGS[rule(direction, *shapes, stride, images.dtype)]
        for direction in ("kernel_gradient", "images_gradient")
    ]
    return lax.platform_dependent(
        images, kernel, gradient, cpu=by(*chosen), default=by(_LIBRARY, _LIBRARY)
    )


_conv.defvjp(_forward, _backward)
