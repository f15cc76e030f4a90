"""Matrix capsules with EM routing (Hinton, Sabour and Frosst 2018).

Convolution 5x5 of stride 2, ReLU (A features) -> primary capsules at every position, each a linear
4x4 pose and an activation of its own (B types) -> two convolutional capsule layers of 3x3 windows,
the first of stride 2 (C and D types) -> one capsule per class, whose matrices are shared over
positions and whose votes carry their children's coordinates. All parents of a child, at all
positions, compete for it. A class is predicted by the most active capsule.

The paper's network has A = B = C = D = 32, its small one 64, 8, 16, 16. The paper leaves out how it
is initialised; here convolutions have He's (ReLU) and LeCun's initializations and matrices keep
votes as large as poses. Coordinates are shares of the grid below, from 0 to 1; the paper says
"scaled", of the receptive field's centre. The inverse temperature and the least variance of the
default routing are ours too: ``ROUTING``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jax import Array

from capsjax import checks
from capsjax.layers.conv import ConvolutionalCapsules
from capsjax.layers.convolution import Convolution, output_shape
from capsjax.layers.dense import ClassCapsules
from capsjax.layers.norm import BatchNorm
from capsjax.layers.primary import MatrixPrimaryCapsules
from capsjax.layers.router import capsules_of
from capsjax.layers.votes import check_matrix
from capsjax.models import network
from capsjax.models.checks import at_least_one, one_of
from capsjax.models.published import Form, Model
from capsjax.ops.convolution import Padding
from capsjax.routing import algorithm_of, em
from capsjax.routing.competition import Over
from capsjax.types import Routed

# The paper names neither. With the authors' 0.01 and 5e-4 activations stay at one half, assignments
# are hard from the first step on, and nothing is learned in 3,200 digits (narrow form).
ROUTING = em.Config(final_inverse_temperature=1.0, minimum_variance=0.5)


@dataclass(frozen=True)
class Config:
    """Choices of matrix capsules; the defaults are the paper's, but for ``ROUTING``.

    Attributes:
        features: of the convolution, A.
        kernel_size: of the convolution.
        stride: of the convolution.
        primary_types: capsule types of the primary layer, B.
        types: of each convolutional capsule layer, C and D.
        kernel_sizes: of each of these.
        strides: of each of these.
        padding: of the convolution and these, "VALID" or "SAME".
        dim: dimension of every pose, 16 for a 4x4 matrix.
        matrix: poses are square matrices; else vectors, with a full matrix for each pair.
        coordinates: add the children's coordinates to the class capsules' votes.
        competition: what a child's parents in a convolutional layer compete over: "all", or one
            "position" or one "type"; see ``routing.competition``.
        normalise: batch-normalise the convolution, the primary capsules and the routed poses.
        routing: a routing's config; its type chooses the algorithm.

    Raises:
        ValueError: a size below 1, lists of different lengths, a pose that is no square matrix, an
            unknown name, or no routing's config.
    """

    features: int = 32
    kernel_size: int = 5
    stride: int = 2
    primary_types: int = 32
    types: tuple[int, ...] = (32, 32)
    kernel_sizes: tuple[int, ...] = (3, 3)
    strides: tuple[int, ...] = (2, 1)
    padding: Padding = "VALID"
    dim: int = 16
    matrix: bool = True
    coordinates: bool = True
    competition: Over = "all"
    normalise: bool = False
    routing: Any = ROUTING

    def __post_init__(self) -> None:
        one_of(self, "padding", ("VALID", "SAME"))
        one_of(self, "competition", ("all", "position", "type"))
        checks.fields(self)
        at_least_one(self, "features", "kernel_size", "stride", "primary_types", "dim")
        lists = ("types", "kernel_sizes", "strides")
        if any(getattr(self, name) for name in lists):
            at_least_one(self, *lists)
        if len({len(getattr(self, name)) for name in lists}) > 1:
            raise ValueError(
                f"types are {self.types}, kernel_sizes {self.kernel_sizes} and strides "
                f"{self.strides}, expected as many of each, one for every convolutional layer"
            )
        if self.matrix:
            check_matrix(self.dim, self.dim)
        if self.coordinates and self.dim < 2:
            raise ValueError(
                f"dim is {self.dim}, expected at least 2 for two coordinates: raise it, or use "
                "coordinates=False"
            )
        algorithm_of(self.routing)


class Network(network.Network):
    """Matrix capsules for images of any shape and any number of classes.

    Args:
        config: its choices.
        image_shape: height, width and channels.
        num_classes: number of class capsules.
        rngs: takes keys of the stream ``params``.

    Raises:
        ValueError: fewer than two classes, or an image that is too small for the layers.
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
        self.convolution = Convolution(
            image_shape[2],
            config.features,
            kernel_size=config.kernel_size,
            stride=config.stride,
            padding=config.padding,
            use_bias=not config.normalise,
            rngs=rngs,
        )
        self.convolution_norm = (
            BatchNorm(config.features, momentum=0.9, rngs=rngs) if config.normalise else None
        )
        self.primary = MatrixPrimaryCapsules(
            config.features,
            config.primary_types,
            config.dim,
            normalise=config.normalise,
            rngs=rngs,
        )
        height, width, _ = output_shape(self.convolution, image_shape)[0]
        shape = (height, width, config.primary_types)
        options = {"config": config.routing, "matrix": config.matrix, "rngs": rngs}
        layers = []
        rows = zip(config.types, config.kernel_sizes, config.strides, strict=True)
        for types, kernel_size, stride in rows:
            layers.append(
                ConvolutionalCapsules(
                    shape,
                    config.dim,
                    types,
                    config.dim,
                    kernel_size=kernel_size,
                    stride=stride,
                    padding=config.padding,
                    over=config.competition,
                    normalise=config.normalise,
                    **options,
                )
            )
            shape = layers[-1].out_shape
        self.capsules = nnx.List(layers)
        self.classes = ClassCapsules(
            shape,
            config.dim,
            num_classes,
            config.dim,
            coordinates=config.coordinates,
            normalise=config.normalise,
            **options,
        )

    def forward(self, images: Array, *, trace: bool) -> tuple[Sequence[Routed], Array | None]:
        """As in ``models.network``."""
        features = self.convolution(images)
        if self.convolution_norm is not None:
            features = self.convolution_norm(features)
        capsules = self.primary(jax.nn.relu(features))
        routed = []
        for layer in (*self.capsules, self.classes):
            routed.append(layer(capsules, trace=trace))
            capsules = capsules_of(routed[-1])
        logits = self.classes.routing.readout.logits(routed[-1])
        return routed, logits


_SMALL = Config(features=64, primary_types=8, types=(16, 16))
_SOURCE = "Hinton, Sabour and Frosst 2018"
_TRAINING = {"loss": {"kind": "spread"}}
_ROUNDED = "the paper rounds to {}; conv biases and two betas a type are counted here"

MODEL = Model(
    Network,
    Config(),
    _SOURCE,
    forms=(
        Form(
            "smallnorb", Config(), (32, 32, 2), 5, 317_194, "1.8 % error", _ROUNDED.format("310 K")
        ),
        Form("mnist", Config(), (28, 28, 1), 10, 318_964, "0.44 % error"),
    ),
    training=_TRAINING,
)
SMALL = Model(
    Network,
    _SMALL,
    _SOURCE,
    forms=(
        Form("smallnorb", _SMALL, (32, 32, 2), 5, 68_754, "2.2 % error", _ROUNDED.format("68 K")),
        Form("mnist", _SMALL, (28, 28, 1), 10, 68_444),
    ),
    training=_TRAINING,
)
