"""Convolutions as modules: for the layers below the capsules."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from capsjax.ops.convolution import Padding, conv2d

Initializer = Callable[..., Array]

HE_NORMAL = nnx.initializers.he_normal()
LECUN_NORMAL = nnx.initializers.lecun_normal()


class Convolution(nnx.Module):
    """A convolution, lowered as ``ops.convolution`` decides.

    Args:
        channels: of the input.
        features: of the output.
        kernel_size: rows and columns of the kernel.
        stride: of both spatial axes.
        padding: "VALID" or "SAME".
        kernel_init: initializer of the kernel ``[rows, columns, channels, features]``.
        bias_init: initializer of the bias ``[features]``.
        use_bias: whether there is one; a normalisation behind it would only take it away again.
        rngs: takes one key of the stream ``params`` for each array.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> def forward(images):
        ...     layer = Convolution(1, 4, kernel_size=3, stride=2, rngs=nnx.Rngs(0))
        ...     return layer(images)
        >>> jax.eval_shape(forward, jnp.ones((2, 9, 9, 1))).shape  # nothing is computed
        (2, 4, 4, 4)
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
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, channels, features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.bias = nnx.Param(bias_init(rngs.params(), (features,))) if use_bias else None
        self.stride = stride
        self.padding = padding

    def __call__(self, images: Float[Array, "batch height width channels"]) -> Array:
        """``[batch, out_height, out_width, features]``."""
        out = conv2d(images, self.kernel[...], stride=self.stride, padding=self.padding)
        return out if self.bias is None else out + jnp.reshape(self.bias[...], (1, 1, 1, -1))


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
