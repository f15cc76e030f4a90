"""From images to the first capsules."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from capsjax.ops.convolution import Padding, conv2d, depthwise_conv2d
from capsjax.ops.squash import safe_norm, squash, squash_exponential
from capsjax.types import Capsules

Initializer = Callable[..., Array]

HE_NORMAL = nnx.initializers.he_normal()
LECUN_NORMAL = nnx.initializers.lecun_normal()


class Convolution(nnx.Module):
    """A convolution with bias, lowered as ``ops.convolution`` decides.

    Args:
        channels: of the input.
        features: of the output.
        kernel_size: rows and columns of the kernel.
        stride: of both spatial axes.
        padding: "VALID" or "SAME".
        kernel_init: initializer of the kernel ``[rows, columns, channels, features]``.
        bias_init: initializer of the bias ``[features]``.
        rngs: takes one key of the stream ``params`` for each array.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        kernel_size: int,
        stride: int = 1,
        padding: Padding = "VALID",
        kernel_init: Initializer = HE_NORMAL,
        bias_init: Initializer = nnx.initializers.zeros,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, channels, features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.bias = nnx.Param(bias_init(rngs.params(), (features,)))
        self.stride = stride
        self.padding = padding

    def __call__(self, images: Float[Array, "batch height width channels"]) -> Array:
        """``[batch, out_height, out_width, features]``."""
        out = conv2d(images, self.kernel[...], stride=self.stride, padding=self.padding)
        return out + jnp.reshape(self.bias[...], (1, 1, 1, -1))


class PrimaryCapsules(nnx.Module):
    """Convolutional capsules: at each position ``types`` vectors of ``dim``, squashed.

    Args:
        channels: of the input feature maps.
        types: capsule types.
        dim: of each capsule's pose.
        kernel_size: rows and columns of the kernel.
        stride: of both spatial axes.
        padding: "VALID" or "SAME".
        scale: the convolution is multiplied by it before its bias; the official code of Sabour
            2017 has 1/32 there, from one routing step among its 32 types.
        kernel_init: initializer of the kernel.
        bias_init: initializer of the bias.
        rngs: takes one key of the stream ``params`` for each array.

    Source: Sabour, Frosst and Hinton 2017, section 4.
    """

    def __init__(
        self,
        channels: int,
        types: int,
        dim: int,
        *,
        kernel_size: int,
        stride: int,
        padding: Padding = "VALID",
        scale: float = 1.0,
        kernel_init: Initializer = LECUN_NORMAL,
        bias_init: Initializer = nnx.initializers.zeros,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, channels, types * dim)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.bias = nnx.Param(bias_init(rngs.params(), (types * dim,)))
        self.dim = dim
        self.stride = stride
        self.padding = padding
        self.scale = scale

    def __call__(self, features: Float[Array, "batch height width channels"]) -> Capsules:
        """Poses ``[batch, positions * types, dim]`` and their lengths."""
        out = conv2d(features, self.kernel[...], stride=self.stride, padding=self.padding)
        out = out * self.scale + jnp.reshape(self.bias[...], (1, 1, 1, -1))
        poses = squash(jnp.reshape(out, (out.shape[0], -1, self.dim)))
        return Capsules(poses, safe_norm(poses))


class DepthwisePrimaryCapsules(nnx.Module):
    """Capsules from a depthwise convolution: each channel by itself, then cut into capsules.

    Args:
        channels: of the input feature maps, a multiple of ``dim``.
        dim: of each capsule's pose.
        kernel_size: rows and columns of the kernel; one number for both.
        stride: of both spatial axes.
        kernel_init: initializer of the kernel ``[rows, columns, 1, channels]``.
        bias_init: initializer of the bias ``[channels]``.
        rngs: takes one key of the stream ``params`` for each array.

    Source: Mazzia, Salvetti and Chiaberge 2021, section "Primary capsules".
    """

    def __init__(
        self,
        channels: int,
        dim: int,
        *,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        kernel_init: Initializer = HE_NORMAL,
        bias_init: Initializer = nnx.initializers.zeros,
        rngs: nnx.Rngs,
    ):
        sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.kernel = nnx.Param(kernel_init(rngs.params(), (*sides, 1, channels)))
        self.bias = nnx.Param(bias_init(rngs.params(), (channels,)))
        self.dim = dim
        self.stride = stride

    def __call__(self, features: Float[Array, "batch height width channels"]) -> Capsules:
        """Poses ``[batch, positions * channels / dim, dim]`` and their lengths."""
        out = depthwise_conv2d(features, self.kernel[...], stride=self.stride)
        out = out + jnp.reshape(self.bias[...], (1, 1, 1, -1))
        poses = squash_exponential(jnp.reshape(out, (out.shape[0], -1, self.dim)))
        return Capsules(poses, safe_norm(poses))


def output_shape(
    module: Callable[[Array], object], image_shape: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """Shapes of a module's output leaves for one image, without computing anything.

    Args:
        module: takes images ``[batch, *image_shape]``.
        image_shape: height, width, channels.

    Returns:
        The shapes of all output arrays, without the batch axis.

    Raises:
        ValueError: whatever the module refuses about the shape.
    """
    out = jax.eval_shape(module, jax.ShapeDtypeStruct((1, *image_shape), jnp.zeros(()).dtype))
    return tuple(leaf.shape[1:] for leaf in jax.tree.leaves(out))
