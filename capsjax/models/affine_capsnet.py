"""CapsNet with one transformation for all children and no routing (Gu and Tresp 2020).

Convolution 9x9 to 256 features, ReLU -> primary capsules by a 9x9 convolution of stride 2, 32 types
of 8 dimensions -> one 16-dimensional capsule per class, whose one matrix transforms every primary
capsule, whatever its type and position -> a dense decoder. Coupling is uniform by default; any
routing may take its place. What a shared matrix cannot learn is where a part was: the paper's claim
is that this makes the network robust to affine transformations that it has not seen.

The paper does not say how the votes are summed. Here it is as in ``routing.uniform``: each class
has the same share of a child, 1 / classes, and the sum is squashed. There is no bias.

Nor does it give initial values. Through one matrix all votes point the same way as soon as the
children agree, so the sum grows with their number where that of Sabour's network grows with its
root. The matrices' standard deviation is chosen so that 1,152 children of length 1/2 that agree
give a sum of length 1: 0.0043 on MNIST. Measured after one epoch on 2,000 digits (batch 32, cosine
schedule, 500 test images): the loss falls steadily from 0.78 to 0.49. With ten times as much it
rises to 3.6 first and needs 40 of the 62 steps to come back; with Sabour's 0.1 it stays at 3.66 and
the error at chance. One epoch of so few is short for this network all the same (73 % error): a
class sees nothing but the sum of all children, 8 numbers.

What comes before is a choice: ``Config.stem`` puts smaller convolutions, each with ReLU and batch
normalisation, in front of the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
from flax import nnx
from jax import Array

from capsjax import checks
from capsjax.layers.convolution import Convolution, output_shape
from capsjax.layers.decoder import DenseDecoder
from capsjax.layers.dense import ClassCapsules
from capsjax.layers.norm import BatchNorm
from capsjax.layers.primary import PrimaryCapsules
from capsjax.layers.votes import balanced
from capsjax.models import network
from capsjax.models.checks import at_least_one, check_map, one_of
from capsjax.models.published import Form, Model
from capsjax.ops.convolution import Padding
from capsjax.routing import algorithm_of, uniform
from capsjax.types import Capsules, Routed

# Of the stem, as in efficient_capsnet.
_EPSILON, _MOMENTUM = 1e-3, 0.99


@dataclass(frozen=True)
class Config:
    """Choices of the affine CapsNet; the defaults are the paper's.

    Attributes:
        stem: features, kernel size and stride of each convolution in front, which ReLU and batch
            normalisation follow; the paper has none.
        features: of the first convolution.
        kernel_size: of both convolutions.
        primary_types: capsule types of the primary layer.
        primary_dim: dimension of a primary capsule.
        class_dim: dimension of a class capsule.
        padding: of both convolutions, "VALID" or "SAME".
        share: who shares a class's matrix: "all" primary capsules, or those of one type at all
            "positions".
        decoder_widths: hidden layers of the decoder.
        decoder: whether there is one.
        routing: a routing's config; its type chooses the algorithm.

    Raises:
        ValueError: a size below 1, an unknown name, or no routing's config.
    """

    stem: tuple[tuple[int, int, int], ...] = ()
    features: int = 256
    kernel_size: int = 9
    primary_types: int = 32
    primary_dim: int = 8
    class_dim: int = 16
    padding: Padding = "VALID"
    share: Literal["all", "positions"] = "all"
    decoder_widths: tuple[int, ...] = (512, 1024)
    decoder: bool = True
    routing: Any = uniform.Config()

    def __post_init__(self) -> None:
        one_of(self, "padding", ("VALID", "SAME"))
        one_of(self, "share", ("all", "positions"))
        checks.fields(self)
        at_least_one(self, "features", "kernel_size", "primary_types", "primary_dim", "class_dim")
        if self.decoder_widths:
            at_least_one(self, "decoder_widths")
        if any(len(each) != 3 or min(each) < 1 for each in self.stem):
            raise ValueError(
                f"stem is {self.stem}, expected features, kernel size and stride of each "
                "convolution, all at least 1"
            )
        algorithm_of(self.routing)


class Network(network.Network):
    """The affine CapsNet for images of any shape and any number of classes.

    Args:
        config: its choices.
        image_shape: height, width and channels.
        num_classes: number of class capsules.
        rngs: takes keys of the stream ``params``.

    Raises:
        ValueError: fewer than two classes, or an image smaller than the receptive field of one
            primary capsule (17x17 for the published network).
    """

    def __init__(
        self,
        config: Config,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        rngs: nnx.Rngs,
    ):
        super().__init__(config, image_shape, num_classes)
        stem, shape = [], image_shape
        for features, kernel_size, stride in config.stem:
            if config.padding == "VALID":
                check_map(shape, kernel_size, image_shape, "a kernel")
            stem.append(
                Convolution(
                    shape[2],
                    features,
                    kernel_size=kernel_size,
                    stride=stride,
                    padding=config.padding,
                    rngs=rngs,
                )
            )
            height, width, channels = output_shape(stem[-1], shape)[0]
            shape = (height, width, channels)
        self.stem = nnx.List(stem)
        self.normalisations = nnx.List(
            BatchNorm(features, momentum=_MOMENTUM, epsilon=_EPSILON, rngs=rngs)
            for features, _, _ in config.stem
        )
        if config.padding == "VALID":
            field = 2 * config.kernel_size - 1
            check_map(shape, field, image_shape, "a receptive field")
        self.convolution = Convolution(
            shape[2],
            config.features,
            kernel_size=config.kernel_size,
            padding=config.padding,
            rngs=rngs,
        )
        self.primary = PrimaryCapsules(
            config.features,
            config.primary_types,
            config.primary_dim,
            kernel_size=config.kernel_size,
            stride=2,
            padding=config.padding,
            rngs=rngs,
        )
        feature_shape = output_shape(self.convolution, shape)[0]
        height, width, types = output_shape(self.primary, feature_shape)[1]
        # One type of capsules at every place, where all share: types are then so many more places.
        grid = (height, width, types) if config.share == "positions" else (height, width * types, 1)
        children, sharing = height * width * types, height * width * types // grid[2]
        self.classes = ClassCapsules(
            grid,
            config.primary_dim,
            num_classes,
            config.class_dim,
            config=config.routing,
            coordinates=False,
            # Votes through one matrix agree where votes through many cancel: as if there were so
            # many more children. A quarter of them: twice as wide as in a stack, since uniform
            # coupling makes no sum longer.
            weights_init=balanced(
                config.routing, -(-children * sharing // 4), num_classes, config.class_dim
            ),
            rngs=rngs,
        )
        self.decoder = (
            DenseDecoder(
                num_classes,
                config.class_dim,
                image_shape,
                widths=config.decoder_widths,
                rngs=rngs,
            )
            if config.decoder
            else None
        )

    def forward(self, images: Array, *, trace: bool) -> tuple[Sequence[Routed], Array | None]:
        """As in ``models.network``."""
        x = images
        for convolution, normalisation in zip(self.stem, self.normalisations, strict=True):
            x = normalisation(jax.nn.relu(convolution(x)))
        poses, activations = self.primary(jax.nn.relu(self.convolution(x)))
        grid = (len(images), *self.classes.shape)
        capsules = Capsules(poses.reshape(*grid, -1), activations.reshape(grid))
        routed = self.classes(capsules, trace=trace)
        logits = self.classes.routing.readout.logits(routed)
        return [routed], logits


MODEL = Model(
    Network,
    Config(),
    "Gu and Tresp 2020",
    forms=(
        Form("mnist", Config(), (28, 28, 1), 10, 6_742_288),
        Form(
            "translated_mnist",
            Config(),
            (40, 40, 1),
            10,
            7_578_688,
            "93.21 % accuracy on affNIST",
        ),
    ),
)
