"""Decoders: from class capsules back to the image."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from capsjax.layers.convolution import LECUN_NORMAL, Initializer


class DenseDecoder(nnx.Module):
    """Fully connected decoder with ReLU layers and a sigmoid output.

    Args:
        num_capsules: class capsules that it sees.
        dim: dimension of their poses.
        image_shape: height, width and channels of the reconstruction.
        widths: of the hidden layers; the paper has 512 and 1,024.
        kernel_init: initializer of all kernels.
        bias_init: initializer of all biases.
        rngs: takes keys of the stream ``params``.

    Source: Sabour, Frosst and Hinton 2017, section 4.1 and figure 2.
    """

    def __init__(
        self,
        num_capsules: int,
        dim: int,
        image_shape: tuple[int, int, int],
        *,
        widths: Sequence[int] = (512, 1024),
        kernel_init: Initializer = LECUN_NORMAL,
        bias_init: Initializer = nnx.initializers.zeros,
        rngs: nnx.Rngs,
    ):
        sizes = [num_capsules * dim, *widths, math.prod(image_shape)]
        self.layers = nnx.List(
            nnx.Linear(a, b, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs)
            for a, b in itertools.pairwise(sizes)
        )
        self.image_shape = image_shape

    def __call__(
        self, poses: Float[Array, "batch capsules dim"], mask: Float[Array, "batch capsules"]
    ) -> Array:
        """``[batch, height, width, channels]`` in [0, 1]; capsules of mask 0 are hidden."""
        x = jnp.reshape(poses * mask[:, :, None], (poses.shape[0], -1))
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        x = jax.nn.sigmoid(self.layers[-1](x))
        return jnp.reshape(x, (-1, *self.image_shape))
