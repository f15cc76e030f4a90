"""Residual networks (He, Zhang, Ren and Sun 2016) below the capsules, or without any.

A convolution of stride 2 is framed by one row and column of zeros on each side, whatever the size
of its input, so that its windows are centred on the places that the strided shortcut takes.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from capsjax.layers.convolution import Convolution
from capsjax.layers.norm import BatchNorm

Shortcut = Literal["A", "B"]
Stage = tuple[int, int, int]

_MOMENTUM = 0.9


class NormalisedConvolution(nnx.Module):
    """A convolution over a frame of zeros, then batch normalisation of each channel.

    Args:
        channels: of the input.
        features: of the output.
        kernel_size: rows and columns of the kernel, an odd number.
        stride: of both spatial axes.
        use_bias: whether the convolution has a bias.
        rngs: takes keys of the stream ``params``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> def forward(x):
        ...     layer = NormalisedConvolution(1, 4, kernel_size=3, stride=2, rngs=nnx.Rngs(0))
        ...     return layer(x)
        >>> jax.eval_shape(forward, jnp.ones((2, 7, 7, 1))).shape  # nothing is computed
        (2, 4, 4, 4)
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        kernel_size: int,
        stride: int = 1,
        use_bias: bool = False,
        rngs: nnx.Rngs,
    ):
        self.convolution = Convolution(
            channels,
            features,
            kernel_size=kernel_size,
            stride=stride,
            use_bias=use_bias,
            rngs=rngs,
        )
        self.normalisation = BatchNorm(features, momentum=_MOMENTUM, rngs=rngs)
        self.frame = kernel_size // 2

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        """``[batch, height / stride, width / stride, features]``, sizes rounded up."""
        frame = (self.frame, self.frame)
        out = self.convolution(jnp.pad(x, ((0, 0), frame, frame, (0, 0))))
        # The running statistics are float32, whatever the parameters are.
        return self.normalisation(out).astype(out.dtype)


class ResidualBlock(nnx.Module):
    """Two 3x3 convolutions, each batch-normalised, added to what came in; a ReLU after each.

    Args:
        channels: of the input.
        features: of the output.
        stride: of the first convolution.
        shortcut: what came in where stride or width change. "A": every ``stride``-th place, with
            as many channels of zeros on both sides as are missing, without parameters; "B": a 1x1
            convolution, batch-normalised.
        rngs: takes keys of the stream ``params``.

    Raises:
        ValueError: an unknown shortcut, or "A" to fewer features than channels.

    Source: He, Zhang, Ren and Sun 2016, figure 2 and section 3.3, options A and B.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> def forward(x):
        ...     block = ResidualBlock(4, 8, stride=2, shortcut="A", rngs=nnx.Rngs(0))
        ...     return block(x)
        >>> jax.eval_shape(forward, jnp.ones((2, 7, 7, 4))).shape  # nothing is computed
        (2, 4, 4, 8)
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        stride: int = 1,
        shortcut: Shortcut = "B",
        rngs: nnx.Rngs,
    ):
        if shortcut not in ("A", "B"):
            raise ValueError(f"shortcut is {shortcut!r}, expected 'A' or 'B'")
        if shortcut == "A" and features < channels:
            raise ValueError(
                f"shortcut 'A' adds channels of zeros to {channels}, and {features} are asked for: "
                "use at least as many, or shortcut='B'"
            )
        self.first = NormalisedConvolution(
            channels, features, kernel_size=3, stride=stride, rngs=rngs
        )
        self.second = NormalisedConvolution(features, features, kernel_size=3, rngs=rngs)
        changes = stride != 1 or channels != features
        self.projection = (
            NormalisedConvolution(channels, features, kernel_size=1, stride=stride, rngs=rngs)
            if changes and shortcut == "B"
            else None
        )
        self.stride = stride
        self.missing = features - channels

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        """``[batch, height / stride, width / stride, features]``, sizes rounded up."""
        return jax.nn.relu(self.second(jax.nn.relu(self.first(x))) + self._shortcut(x))

    def _shortcut(self, x: Array) -> Array:
        if self.projection is not None:
            return self.projection(x)
        before = self.missing // 2
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, self.missing - before)))


class ResidualTrunk(nnx.Module):
    """A convolution and stages of residual blocks.

    Args:
        channels: of the images.
        stages: width, number of blocks and first stride of each; the first convolution, 3x3 of
            stride 1, has the first one's width.
        shortcut: as for ``ResidualBlock``.
        rngs: takes keys of the stream ``params``.

    Raises:
        ValueError: no stage, a number below 1, or what ``ResidualBlock`` refuses.

    Attributes:
        features: channels of the output.

    Example:
        >>> from flax import nnx
        >>> stages = halving((4, 8), (1, 1))
        >>> trunk = nnx.eval_shape(lambda: ResidualTrunk(1, stages, rngs=nnx.Rngs(0)))
        >>> trunk.out_shape((28, 28, 1)), trunk.features
        ((14, 14, 8), 8)
    """

    def __init__(
        self,
        channels: int,
        stages: Sequence[Stage],
        *,
        shortcut: Shortcut = "B",
        rngs: nnx.Rngs,
    ):
        if not stages or min(map(min, stages)) < 1:
            raise ValueError(
                f"stages are {tuple(stages)}, expected at least one, each of (width, blocks, "
                "stride) from 1 on"
            )
        self.first = NormalisedConvolution(channels, stages[0][0], kernel_size=3, rngs=rngs)
        blocks, channels = [], stages[0][0]
        for width, count, stride in stages:
            for number in range(count):
                blocks.append(
                    ResidualBlock(
                        channels,
                        width,
                        stride=1 if number else stride,
                        shortcut=shortcut,
                        rngs=rngs,
                    )
                )
                channels = width
        self.blocks = nnx.List(blocks)
        self.features = channels

    def __call__(self, images: Float[Array, "batch height width channels"]) -> Array:
        """``[batch, *out_shape(images' shape)]``."""
        x = jax.nn.relu(self.first(images))
        for block in self.blocks:
            x = block(x)
        return x

    def out_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Height, width and channels that images of some shape leave."""
        height, width, _ = image_shape
        for block in self.blocks:
            height, width = -(-height // block.stride), -(-width // block.stride)
        return height, width, self.features


def halving(widths: Sequence[int], blocks: Sequence[int]) -> tuple[Stage, ...]:
    """Stages of which the first keeps the images' size and each later one halves it.

    Args:
        widths: of each stage.
        blocks: of each stage.

    Returns:
        Stages for ``ResidualTrunk``.

    Raises:
        ValueError: other than one number of blocks for each width.

    Example:
        >>> halving((16, 32), (3, 3))
        ((16, 3, 1), (32, 3, 2))
    """
    if len(widths) != len(blocks):
        raise ValueError(
            f"widths are {tuple(widths)} and blocks {tuple(blocks)}, expected as many of each"
        )
    rows = zip(widths, blocks, strict=True)
    return tuple((width, count, 2 if stage else 1) for stage, (width, count) in enumerate(rows))
