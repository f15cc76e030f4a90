"""Decoders: from class capsules back to the image.

All take poses ``[batch, capsules, dim]`` and a mask ``[batch, capsules]`` of those that they see,
and give images ``[batch, height, width, channels]`` in [0, 1] of any shape. Those that enlarge a
small map start from the least one that suffices, and cut the image out of the middle.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from capsjax.layers.convolution import HE_NORMAL, LECUN_NORMAL, Convolution, Initializer
from capsjax.layers.norm import BatchNorm

# The default of TensorFlow's leaky ReLU, and so of Efficient-CapsNet's decoder.
_SLOPE = 0.2
# Of DeepCaps' decoder: Keras' own, and the authors' choice.
_EPSILON, _MOMENTUM = 1e-3, 0.8


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

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> def forward(poses, mask):
        ...     decoder = DenseDecoder(10, 16, (8, 8, 1), widths=(32,), rngs=nnx.Rngs(0))
        ...     return decoder(poses, mask)
        >>> poses, mask = jnp.ones((2, 10, 16)), jnp.eye(10)[:2]  # one capsule of each is seen
        >>> jax.eval_shape(forward, poses, mask).shape  # nothing is computed
        (2, 8, 8, 1)
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
        x = _masked(poses, mask)
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        x = jax.nn.sigmoid(self.layers[-1](x))
        return jnp.reshape(x, (-1, *self.image_shape))


class ConvolutionalDecoder(nnx.Module):
    """A map of one channel, drawn by a linear layer, then enlarged and convolved in turns.

    Each turn doubles the map by linear interpolation and takes 2 rows and columns away by an
    unpadded 3x3 convolution with a leaky ReLU (slope 0.2). One more convolution, with a sigmoid,
    makes the image: 8 -> 14 -> 26 -> 50 -> 48.

    Args:
        num_capsules: class capsules that it sees.
        dim: dimension of their poses.
        image_shape: height, width and channels of the reconstruction.
        features: of the convolution in each turn.
        rngs: takes keys of the stream ``params``.

    Attributes:
        start: height and width of the first map.

    Source: Mazzia, Salvetti and Chiaberge 2021, their code's generator for smallNORB. Its edges are
    fixed at 8; that other shapes start from what they need is ours.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> def forward(poses, mask):
        ...     decoder = ConvolutionalDecoder(10, 16, (8, 8, 1), features=(4, 4), rngs=nnx.Rngs(0))
        ...     return decoder(poses, mask)
        >>> poses, mask = jnp.ones((2, 10, 16)), jnp.eye(10)[:2]  # one capsule of each is seen
        >>> jax.eval_shape(forward, poses, mask).shape  # nothing is computed
        (2, 8, 8, 1)
    """

    def __init__(
        self,
        num_capsules: int,
        dim: int,
        image_shape: tuple[int, int, int],
        *,
        features: Sequence[int] = (64, 128, 128),
        rngs: nnx.Rngs,
    ):
        def start(size: int) -> int:
            size = size + 2
            for _ in features:
                size = -(-(size + 2) // 2)
            return size

        self.start = (start(image_shape[0]), start(image_shape[1]))
        self.image_shape = image_shape
        self.linear = nnx.Linear(
            num_capsules * dim, math.prod(self.start), kernel_init=LECUN_NORMAL, rngs=rngs
        )
        channels = [1, *features, image_shape[2]]
        self.convolutions = nnx.List(
            Convolution(a, b, kernel_size=3, kernel_init=init, rngs=rngs)
            for (a, b), init in zip(
                itertools.pairwise(channels),
                [HE_NORMAL] * len(features) + [LECUN_NORMAL],
                strict=True,
            )
        )

    def __call__(
        self, poses: Float[Array, "batch capsules dim"], mask: Float[Array, "batch capsules"]
    ) -> Array:
        """``[batch, height, width, channels]`` in [0, 1]; capsules of mask 0 are hidden."""
        x = self.linear(_masked(poses, mask)).reshape(-1, *self.start, 1)
        for convolution in self.convolutions[:-1]:
            batch, height, width, channels = x.shape
            # Half-pixel centres; beyond the edge is the edge.
            x = jax.image.resize(x, (batch, 2 * height, 2 * width, channels), "bilinear")
            x = jax.nn.leaky_relu(convolution(x), _SLOPE)
        return _middle(jax.nn.sigmoid(self.convolutions[-1](x)), self.image_shape)


class ClassIndependentDecoder(nnx.Module):
    """Sees the chosen capsule, but not which class it is of, and draws by transposed convolutions.

    A linear layer with ReLU and batch normalisation makes a small map, which transposed 3x3
    convolutions refine: the first keeps its size, each further one doubles it, the last makes the
    image. As in the authors' code no activation is between them. Since all classes share what a
    dimension of the capsule means, changing one has the same effect on all of them.

    Where a mask shows several capsules, it sees their sum.

    Args:
        dim: dimension of the capsules' poses.
        image_shape: height, width and channels of the reconstruction.
        channels: of the first map.
        features: of each transposed convolution but the last.
        rngs: takes keys of the stream ``params``.

    Attributes:
        start: height, width and channels of the first map.

    Source: Rajasegaran et al. 2019, section 3.4, with the sizes of the authors' code. Deviation:
    the code ends in a ReLU, we in a sigmoid, since images are in [0, 1] and a ReLU has no gradient
    where it is dark.

    Transposed convolutions are the library's: on a CPU (2 cores) a 3x3 one, 64 -> 32 maps of 14x14
    doubled, batch 32, takes 5 ms and 135 ms with gradients, against 95 and 178 for doubling the map
    and ``ops.convolution``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> def forward(poses, mask):
        ...     decoder = ClassIndependentDecoder(16, (8, 8, 1), features=(4, 4), rngs=nnx.Rngs(0))
        ...     return decoder(poses, mask)
        >>> poses, mask = jnp.ones((2, 10, 16)), jnp.eye(10)[:2]  # one capsule of each is seen
        >>> jax.eval_shape(forward, poses, mask).shape  # nothing is computed
        (2, 8, 8, 1)
    """

    def __init__(
        self,
        dim: int,
        image_shape: tuple[int, int, int],
        *,
        channels: int = 16,
        features: Sequence[int] = (64, 32, 16),
        rngs: nnx.Rngs,
    ):
        scale = 2 ** (len(features) - 1)
        self.start = (-(-image_shape[0] // scale), -(-image_shape[1] // scale), channels)
        self.image_shape = image_shape
        self.linear = nnx.Linear(dim, math.prod(self.start), kernel_init=HE_NORMAL, rngs=rngs)
        self.normalisation = BatchNorm(channels, momentum=_MOMENTUM, epsilon=_EPSILON, rngs=rngs)
        strides = [1, *[2] * (len(features) - 1), 1]
        sizes = [channels, *features, image_shape[2]]
        self.convolutions = nnx.List(
            nnx.ConvTranspose(
                a, b, (3, 3), strides=stride, padding="SAME", kernel_init=LECUN_NORMAL, rngs=rngs
            )
            for (a, b), stride in zip(itertools.pairwise(sizes), strides, strict=True)
        )

    def __call__(
        self, poses: Float[Array, "batch capsules dim"], mask: Float[Array, "batch capsules"]
    ) -> Array:
        """``[batch, height, width, channels]`` in [0, 1]; capsules of mask 0 are hidden."""
        x = jax.nn.relu(self.linear(jnp.einsum("bjd,bj->bd", poses, mask.astype(poses.dtype))))
        x = self.normalisation(x.reshape(-1, *self.start))
        for convolution in self.convolutions:
            x = convolution(x)
        return _middle(jax.nn.sigmoid(x), self.image_shape)


def _masked(poses: Array, mask: Array) -> Array:
    """``[batch, capsules * dim]``, zero where the mask is."""
    return jnp.reshape(poses * mask[:, :, None], (poses.shape[0], -1))


def _middle(images: Array, image_shape: tuple[int, int, int]) -> Array:
    """Images cut to a shape; of an odd surplus more is cut at the end."""
    top, left = (a - b for a, b in zip(images.shape[1:3], image_shape[:2], strict=True))
    top, left = top // 2, left // 2
    return images[:, top : top + image_shape[0], left : left + image_shape[1]]
