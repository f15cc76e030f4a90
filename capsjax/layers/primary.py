"""From feature maps to the first capsules.

All give a grid: poses ``[batch, height, width, types, dim]`` and activations without the last axis.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from capsjax.layers.convolution import HE_NORMAL, LECUN_NORMAL, Convolution, Initializer
from capsjax.layers.norm import BatchNorm, TypeNorm
from capsjax.ops.convolution import Padding, conv2d, depthwise_conv2d
from capsjax.ops.squash import safe_norm, squash, squash_exponential
from capsjax.types import Capsules

# Of linear poses and their activations' logits at the start. The code of Hinton 2018 has 0.5, 3 and
# -1 (added for good). Measured with matrix capsules of 32, 4, 8 and 8 types on MNIST: the narrower
# initial values of ``LECUN_NORMAL`` learn nothing in 3,200 images.
_POSE_STDDEV, _ACTIVATION_STDDEV, _ACTIVATION_BIAS = 0.5, 1.5, -3.0


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

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> def forward(features):
        ...     layer = PrimaryCapsules(4, 2, dim=8, kernel_size=3, stride=2, rngs=nnx.Rngs(0))
        ...     return layer(features)
        >>> capsules = jax.eval_shape(forward, jnp.ones((1, 9, 9, 4)))  # nothing is computed
        >>> capsules.poses.shape, capsules.activations.shape
        ((1, 4, 4, 2, 8), (1, 4, 4, 2))
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
        """Poses ``[batch, height, width, types, dim]`` and their lengths."""
        out = conv2d(features, self.kernel[...], stride=self.stride, padding=self.padding)
        out = out * self.scale + jnp.reshape(self.bias[...], (1, 1, 1, -1))
        poses = squash(jnp.reshape(out, (*out.shape[:3], -1, self.dim)))
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

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> def forward(features):
        ...     layer = DepthwisePrimaryCapsules(16, dim=8, kernel_size=3, rngs=nnx.Rngs(0))
        ...     return layer(features)
        >>> jax.eval_shape(forward, jnp.ones((1, 3, 3, 16))).poses.shape  # nothing is computed
        (1, 1, 1, 2, 8)
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
        """Poses ``[batch, height, width, channels / dim, dim]`` and their lengths."""
        out = depthwise_conv2d(features, self.kernel[...], stride=self.stride)
        out = out + jnp.reshape(self.bias[...], (1, 1, 1, -1))
        poses = squash_exponential(jnp.reshape(out, (*out.shape[:3], -1, self.dim)))
        return Capsules(poses, safe_norm(poses))


class MatrixPrimaryCapsules(nnx.Module):
    """Linear poses, and activations of their own, from two convolutions of the same features.

    Without a normalisation poses start wide and activations low, so that an empty background, whose
    poses all agree, does not rule the routing from the first step on.

    Args:
        channels: of the input feature maps.
        types: capsule types.
        dim: of each capsule's pose; 16 for a 4x4 matrix, row after row.
        kernel_size: rows and columns of both kernels.
        stride: of both spatial axes.
        padding: "VALID" or "SAME".
        normalise: batch-normalise poses and the activations' logits, each type by itself.
        rngs: takes one key of the stream ``params`` for each array.

    Source: Hinton, Sabour and Frosst 2018, section 4; Ribeiro, Leontidis and Kollias 2020, section
    4 (the normalisation).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> def forward(features):
        ...     layer = MatrixPrimaryCapsules(4, types=2, dim=16, rngs=nnx.Rngs(0))
        ...     return layer(features)
        >>> capsules = jax.eval_shape(forward, jnp.ones((1, 5, 5, 4)))  # nothing is computed
        >>> capsules.poses.shape, capsules.activations.shape
        ((1, 5, 5, 2, 16), (1, 5, 5, 2))
    """

    def __init__(
        self,
        channels: int,
        types: int,
        dim: int,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        padding: Padding = "VALID",
        normalise: bool = False,
        rngs: nnx.Rngs,
    ):
        self.dim = dim

        def convolution(features: int, stddev: float, bias: float) -> Convolution:
            return Convolution(
                channels,
                features,
                kernel_size=kernel_size,
                stride=stride,
                padding=padding,
                kernel_init=LECUN_NORMAL
                if normalise
                else nnx.initializers.truncated_normal(stddev),
                bias_init=nnx.initializers.constant(bias),
                use_bias=not normalise,
                rngs=rngs,
            )

        self.poses = convolution(types * dim, _POSE_STDDEV, 0.0)
        self.activations = convolution(types, _ACTIVATION_STDDEV, _ACTIVATION_BIAS)
        self.pose_norm = TypeNorm(types, affine=True, rngs=rngs) if normalise else None
        self.activation_norm = BatchNorm(types, momentum=0.9, rngs=rngs) if normalise else None

    def __call__(self, features: Float[Array, "batch height width channels"]) -> Capsules:
        """Poses ``[batch, height, width, types, dim]`` and activations in [0, 1]."""
        poses, logits = self.poses(features), self.activations(features)
        poses = poses.reshape(*poses.shape[:3], -1, self.dim)
        if self.pose_norm is not None and self.activation_norm is not None:
            poses, logits = self.pose_norm(poses), self.activation_norm(logits)
        return Capsules(poses, jax.nn.sigmoid(logits))
