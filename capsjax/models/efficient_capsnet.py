"""Efficient-CapsNet (Mazzia, Salvetti and Chiaberge 2021): few parameters, one pass of routing.

Four convolutions, each followed by an activation and a normalisation -> a depthwise convolution,
whose channels are cut into 16 primary capsules of 8 dimensions -> one 16-dimensional capsule per
class by self-attention routing -> a decoder that sees the labelled class only, dense or for
smallNORB convolutional. A class is predicted by the longest capsule. Any other routing may take its
place.

``Config()`` is the form for MNIST; ``MULTI_MNIST`` and ``SMALLNORB`` (48 x 48 stereo) are those for
these. Convolutions have He's initialization, as in the authors' code; the capsules' matrices have a
truncated normal of 0.1, as in ``capsnet``, or of what the routing asks for. Instance normalisation
starts at scale 1 and offset 0, where the authors' code draws both from a uniform distribution.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
from flax import nnx
from jax import Array

from capsjax import checks
from capsjax.layers.convolution import Convolution, output_shape
from capsjax.layers.decoder import ConvolutionalDecoder, DenseDecoder
from capsjax.layers.dense import DenseCapsules
from capsjax.layers.norm import BatchNorm
from capsjax.layers.primary import DepthwisePrimaryCapsules
from capsjax.models import network
from capsjax.models.checks import at_least_one, one_of
from capsjax.models.published import Form, Model
from capsjax.routing import algorithm_of, self_attention
from capsjax.types import Routed

# Keras' own, which the authors' code keeps.
_EPSILON, _MOMENTUM = 1e-3, 0.99
# In float32, which the released weights were trained with.
_SLOPE = 0.30000001192092896


@dataclass(frozen=True)
class Config:
    """Choices of Efficient-CapsNet; the defaults are the paper's for MNIST.

    Attributes:
        features: of each convolution.
        kernel_sizes: of each.
        strides: of each.
        activation: after each convolution: "relu" or "leaky_relu" (slope 0.3).
        normalisation: after that: "batch" or "instance" (each image and channel by itself).
        primary_kernel: of the depthwise convolution; None is as large as its input.
        primary_stride: of the depthwise convolution.
        primary_dim: dimension of a primary capsule.
        class_dim: dimension of a class capsule.
        weights_stddev: of the class capsules' matrices at first; None is the routing's own, or 0.1.
        decoder: "dense", "convolutional" or "none".
        decoder_widths: hidden layers of a dense decoder.
        decoder_features: of a convolutional decoder's convolutions but the last.
        routing: a routing's config; its type chooses the algorithm.

    Raises:
        ValueError: a size below 1, lists of different lengths, features that cannot be cut into
            primary capsules, an unknown name, or no routing's config.
    """

    features: tuple[int, ...] = (32, 64, 64, 128)
    kernel_sizes: tuple[int, ...] = (5, 3, 3, 3)
    strides: tuple[int, ...] = (1, 1, 1, 2)
    activation: Literal["relu", "leaky_relu"] = "relu"
    normalisation: Literal["batch", "instance"] = "batch"
    primary_kernel: int | None = None
    primary_stride: int = 1
    primary_dim: int = 8
    class_dim: int = 16
    weights_stddev: float | None = None
    decoder: Literal["none", "dense", "convolutional"] = "dense"
    decoder_widths: tuple[int, ...] = (512, 1024)
    decoder_features: tuple[int, ...] = (64, 128, 128)
    routing: Any = self_attention.Config()

    def __post_init__(self) -> None:
        one_of(self, "decoder", ("none", "dense", "convolutional"))
        one_of(self, "activation", ("relu", "leaky_relu"))
        one_of(self, "normalisation", ("batch", "instance"))
        checks.fields(self)
        lists = {"features": self.features, "kernel_sizes": self.kernel_sizes}
        for name, values in {**lists, "strides": self.strides}.items():
            if len(values) != len(self.features) or not values or min(values) < 1:
                raise ValueError(
                    f"{name} are {values}, expected at least 1 each, one for every of the "
                    f"{len(self.features)} convolutions"
                )
        at_least_one(self, "primary_stride", "primary_dim", "class_dim")
        if self.primary_kernel is not None and self.primary_kernel < 1:
            raise ValueError(
                f"primary_kernel is {self.primary_kernel}, expected at least 1 or None"
            )
        if self.weights_stddev is not None and not 0 < self.weights_stddev < math.inf:
            raise ValueError(
                f"weights_stddev is {self.weights_stddev}, expected a positive number or None"
            )
        at_least_one(self, "decoder_features")
        if self.decoder_widths:
            at_least_one(self, "decoder_widths")
        if self.features[-1] % self.primary_dim:
            raise ValueError(
                f"the last of features is {self.features[-1]}, expected a multiple of primary_dim, "
                f"{self.primary_dim}"
            )
        algorithm_of(self.routing)


MULTI_MNIST = Config(strides=(1, 1, 2, 2), primary_kernel=5, primary_stride=2)
SMALLNORB = Config(
    kernel_sizes=(7, 3, 3, 3),
    strides=(2, 1, 1, 2),
    activation="leaky_relu",
    normalisation="instance",
    decoder="convolutional",
)


class Network(network.Network):
    """Efficient-CapsNet for images of any shape and any number of classes.

    Args:
        config: its choices.
        image_shape: height, width and channels.
        num_classes: number of class capsules.
        rngs: takes keys of the stream ``params``.

    Raises:
        ValueError: fewer than two classes, or an image that is too small for the convolutions.
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
        convolutions, shape = [], image_shape
        rows = zip(config.features, config.kernel_sizes, config.strides, strict=True)
        for features, kernel_size, stride in rows:
            _check_size(shape, kernel_size, image_shape)
            convolutions.append(
                Convolution(shape[2], features, kernel_size=kernel_size, stride=stride, rngs=rngs)
            )
            height, width, _ = output_shape(convolutions[-1], shape)[0]
            shape = (height, width, features)
        self.convolutions = nnx.List(convolutions)
        self.normalisations = nnx.List(_normalisation(config, n, rngs) for n in config.features)
        kernel = config.primary_kernel or shape[:2]
        _check_size(shape, config.primary_kernel or 1, image_shape)
        self.primary = DepthwisePrimaryCapsules(
            shape[2],
            config.primary_dim,
            kernel_size=kernel,
            stride=config.primary_stride,
            rngs=rngs,
        )
        num_primary = math.prod(output_shape(self.primary, shape)[1])
        self.classes = DenseCapsules(
            num_primary,
            config.primary_dim,
            num_classes,
            config.class_dim,
            config=config.routing,
            weights_init=None
            if config.weights_stddev is None
            else nnx.initializers.truncated_normal(config.weights_stddev),
            rngs=rngs,
        )
        self.decoder = _decoder(config, (num_classes, config.class_dim, image_shape), rngs)

    def forward(self, images: Array, *, trace: bool) -> tuple[Sequence[Routed], Array | None]:
        """As in ``models.network``."""
        x = images
        for number in range(len(self.convolutions)):
            x = self.block(number, x)
        routed = self.classes(self.primary(x), trace=trace)
        logits = self.classes.routing.readout.logits(routed)
        return [routed], logits

    def block(self, number: int, x: Array) -> Array:
        """Convolution, activation and normalisation of that number, from 0."""
        x = self.convolutions[number](x)
        relu = self.config.activation == "relu"
        x = jax.nn.relu(x) if relu else jax.nn.leaky_relu(x, _SLOPE)
        normalised: Array = self.normalisations[number](x)
        return normalised


def _normalisation(config: Config, features: int, rngs: nnx.Rngs) -> nnx.Module:
    if config.normalisation == "batch":
        return BatchNorm(features, momentum=_MOMENTUM, epsilon=_EPSILON, rngs=rngs)
    return nnx.InstanceNorm(features, epsilon=_EPSILON, rngs=rngs)


def _decoder(
    config: Config, sizes: tuple[int, int, tuple[int, int, int]], rngs: nnx.Rngs
) -> DenseDecoder | ConvolutionalDecoder | None:
    if config.decoder == "dense":
        return DenseDecoder(*sizes, widths=config.decoder_widths, rngs=rngs)
    if config.decoder == "convolutional":
        return ConvolutionalDecoder(*sizes, features=config.decoder_features, rngs=rngs)
    return None


def _check_size(shape: tuple[int, ...], kernel: int, image_shape: tuple[int, ...]) -> None:
    if min(shape[:2]) < kernel:
        raise ValueError(
            f"images of {image_shape[0]}x{image_shape[1]} leave a map of {shape[0]}x{shape[1]} for "
            f"a kernel of {kernel}x{kernel}: use larger images, or smaller kernel_sizes or strides"
        )


_NOTE = "{:,} without the decoder, which the authors leave out of the count"

MODEL = Model(
    Network,
    Config(),
    "Mazzia, Salvetti and Chiaberge 2021",
    forms=(
        Form(
            "mnist",
            Config(),
            (28, 28, 1),
            10,
            1_573_168,
            "0.26 % error (reported)",
            _NOTE.format(161_824),
        ),
        Form(
            "multi_mnist",
            MULTI_MNIST,
            (36, 36, 1),
            10,
            2_090_800,
            "5.1 % error, of each digit by itself (reported)",
            _NOTE.format(154_656),
        ),
        Form(
            "smallnorb",
            SMALLNORB,
            (48, 48, 2),
            5,
            381_234,
            "2.54 % error (reported)",
            _NOTE.format(151_664),
        ),
    ),
)
