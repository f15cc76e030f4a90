"""CapsNet, the network of Sabour, Frosst and Hinton 2017 ("Dynamic Routing Between Capsules").

Convolution 9x9 to 256 features, ReLU -> primary capsules by a 9x9 convolution of stride 2, 32 types
of 8 dimensions (6 x 6 x 32 = 1,152 on MNIST) -> one 16-dimensional capsule per class, routed
dynamically -> a dense decoder that sees the labelled class only. A class is predicted by the
longest capsule. Any other routing may take the dynamic one's place; ``layers.readout`` says what
then stands for the length.

Paper and official code differ, and ``semantics`` names which is meant. In the official code the
primary convolution is divided by the number of types before its bias (one routing step among the
types; one more with leaky routing), the class capsules have a bias, and all initial values are
fixed: biases 0.1, truncated normals of 0.05 (first convolution) and 0.1 (all others). The paper
states none of these; there we use He's and LeCun's initializations, zero biases, and a truncated
normal of 0.1 for the class capsules' matrices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
from flax import nnx
from jax import Array

from capsjax import checks
from capsjax.layers.convolution import HE_NORMAL, LECUN_NORMAL, Convolution, output_shape
from capsjax.layers.decoder import DenseDecoder
from capsjax.layers.dense import DenseCapsules
from capsjax.layers.norm import TypeNorm
from capsjax.layers.primary import PrimaryCapsules
from capsjax.layers.router import capsules_of
from capsjax.layers.votes import balanced
from capsjax.models import network
from capsjax.models.checks import at_least_one, one_of
from capsjax.models.published import Form, Model
from capsjax.ops.convolution import Padding
from capsjax.routing import algorithm_of, dynamic
from capsjax.types import Capsules, Routed

# Squashed poses may be short: batch normalisation's usual 1e-5 would leave them so.
_EPSILON = 1e-10


@dataclass(frozen=True)
class Config:
    """Choices of CapsNet; the defaults are the paper's for MNIST.

    Attributes:
        features: of the first convolution.
        kernel_size: of both convolutions.
        primary_types: capsule types of the primary layer.
        primary_dim: dimension of a primary capsule.
        hidden: capsules of each layer between these and the class capsules; the paper has none.
        hidden_balanced: with hidden layers, start from weights of ``layers.votes.balanced``; else
            from those that a network without them starts from.
        hidden_normalise: batch-normalise the poses of hidden capsules before they vote, each
            capsule to a root mean square length of 1.
        hidden_residual: what votes for the layer above is a hidden layer's poses and what voted for
            it, added; from the second hidden layer on, all of one size.
        class_dim: dimension of a class capsule, and of a hidden one.
        padding: of both convolutions, "VALID" or "SAME".
        decoder_widths: hidden layers of the decoder.
        decoder: whether there is one.
        semantics: "paper" or "official", as the module's docstring says.
        routing: a routing's config; its type chooses the algorithm.

    Raises:
        ValueError: a size below 1, no routing's config, semantics that routing contradicts, or
            choices of hidden layers that are not there.
    """

    features: int = 256
    kernel_size: int = 9
    primary_types: int = 32
    primary_dim: int = 8
    hidden: tuple[int, ...] = ()
    hidden_balanced: bool = True
    hidden_normalise: bool = False
    hidden_residual: bool = False
    class_dim: int = 16
    padding: Padding = "VALID"
    decoder_widths: tuple[int, ...] = (512, 1024)
    decoder: bool = True
    semantics: Literal["paper", "official"] = "paper"
    routing: Any = dynamic.Config()

    def __post_init__(self) -> None:
        one_of(self, "padding", ("VALID", "SAME"))
        one_of(self, "semantics", ("paper", "official"))
        checks.fields(self)
        at_least_one(self, "features", "kernel_size", "primary_types", "primary_dim", "class_dim")
        for name in ("hidden", "decoder_widths"):
            if getattr(self, name):
                at_least_one(self, name)
        algorithm_of(self.routing)
        if isinstance(self.routing, dynamic.Config) and self.routing.semantics != self.semantics:
            raise ValueError(
                f"semantics is {self.semantics!r} and routing.semantics is "
                f"{self.routing.semantics!r}: set both to the same"
            )
        if self.hidden_normalise and not self.hidden:
            raise ValueError(
                "hidden_normalise is set and there are no hidden capsules: name some in hidden, or "
                "leave it out"
            )
        if self.hidden_residual and (len(self.hidden) < 2 or len({*self.hidden}) > 1):
            raise ValueError(
                f"hidden_residual adds a layer to the one below, hidden are {self.hidden}: give "
                "two layers or more, of one size, or leave it out"
            )


class Network(network.Network):
    """CapsNet for images of any shape and any number of classes.

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
        _check_size(config, image_shape)
        official = config.semantics == "official"
        bias_init = nnx.initializers.constant(0.1 if official else 0.0)
        normal = nnx.initializers.truncated_normal
        leaky = getattr(config.routing, "leaky", False)
        super().__init__(config, image_shape, num_classes)
        self.convolution = Convolution(
            image_shape[2],
            config.features,
            kernel_size=config.kernel_size,
            padding=config.padding,
            kernel_init=normal(0.05) if official else HE_NORMAL,
            bias_init=bias_init,
            rngs=rngs,
        )
        self.primary = PrimaryCapsules(
            config.features,
            config.primary_types,
            config.primary_dim,
            kernel_size=config.kernel_size,
            stride=2,
            padding=config.padding,
            scale=1 / (config.primary_types + leaky) if official else 1.0,
            kernel_init=normal(0.1) if official else LECUN_NORMAL,
            bias_init=bias_init,
            rngs=rngs,
        )
        feature_shape = output_shape(self.convolution, image_shape)[0]
        sizes = [
            math.prod(output_shape(self.primary, feature_shape)[1]),
            *config.hidden,
            num_classes,
        ]
        dims = [config.primary_dim, *(config.class_dim for _ in sizes[1:])]
        layers = [
            DenseCapsules(
                sizes[k],
                dims[k],
                sizes[k + 1],
                dims[k + 1],
                config=config.routing,
                weights_init=balanced(config.routing, sizes[k], sizes[k + 1], dims[k + 1])
                if config.hidden and config.hidden_balanced
                else None,
                rngs=rngs,
            )
            for k in range(len(sizes) - 1)
        ]
        self.hidden = nnx.List(layers[:-1])
        self.normalisations = nnx.List(
            TypeNorm(count, epsilon=_EPSILON, rngs=rngs)
            for count in (config.hidden if config.hidden_normalise else ())
        )
        self.classes = layers[-1]
        self.decoder = (
            DenseDecoder(
                num_classes,
                config.class_dim,
                image_shape,
                widths=config.decoder_widths,
                kernel_init=normal(0.1) if official else LECUN_NORMAL,
                bias_init=bias_init,
                rngs=rngs,
            )
            if config.decoder
            else None
        )

    def forward(self, images: Array, *, trace: bool) -> tuple[Sequence[Routed], Array | None]:
        """As in ``models.network``."""
        capsules = self.primary(jax.nn.relu(self.convolution(images)))
        routed = []
        for number, layer in enumerate(self.hidden):
            routed.append(layer(capsules, trace=trace))
            capsules = self._passed_on(number, routed[-1], capsules)
        routed.append(self.classes(capsules, trace=trace))
        logits = self.classes.routing.readout.logits(routed[-1])
        return routed, logits

    def _passed_on(self, number: int, routed: Routed, below: Capsules) -> Capsules:
        """What votes for the layer above the hidden one of that number, from 0."""
        capsules = capsules_of(routed)
        poses = capsules.poses
        if self.normalisations:
            poses = self.normalisations[number](poses) / math.sqrt(poses.shape[-1])
        if self.config.hidden_residual and number > 0:
            poses = poses + below.poses
        return capsules._replace(poses=poses)


def _check_size(config: Config, image_shape: tuple[int, ...]) -> None:
    """Refuse images that the network cannot be built for."""
    field = 2 * config.kernel_size - 1
    if config.padding == "VALID" and min(image_shape[:2]) < field:
        raise ValueError(
            f"images of {image_shape[0]}x{image_shape[1]} are smaller than capsnet's receptive "
            f"field of {field}x{field}: use larger images, padding='SAME' or a smaller "
            "kernel_size"
        )


OFFICIAL = Config(semantics="official", routing=dynamic.Config(semantics="official", bias=True))
CIFAR10 = Config(
    primary_types=64, padding="SAME", decoder=False, routing=dynamic.Config(leaky=True)
)
SVHN = Config(features=64, primary_types=16, primary_dim=6, class_dim=8, decoder=False)


def _biased(config: Config) -> Config:
    return replace(config, routing=replace(config.routing, bias=True))


_CODE = "with the official code's bias of each class capsule"
_SEVEN = "10.6 % error (seven together)"

MODEL = Model(
    Network,
    Config(),
    "Sabour, Frosst and Hinton 2017",
    forms=(
        Form("mnist", Config(), (28, 28, 1), 10, 8_215_568, "0.25 % error"),
        Form("mnist", OFFICIAL, (28, 28, 1), 10, 8_215_728, "0.25 % error", _CODE),
        Form("multi_mnist", Config(), (36, 36, 1), 10, 11_361_808, "5.2 % error"),
        Form("multi_mnist", OFFICIAL, (36, 36, 1), 10, 11_361_968, "5.2 % error", _CODE),
        Form("cifar10", CIFAR10, (24, 24, 3), 10, 22_476_288, _SEVEN, "24x24 crops"),
        Form(
            "cifar10",
            _biased(CIFAR10),
            (24, 24, 3),
            10,
            22_476_448,
            _SEVEN,
            f"24x24 crops, {_CODE}",
        ),
        Form(
            "svhn_cropped",
            SVHN,
            (32, 32, 3),
            10,
            1_004_896,
            "4.3 % error (reported)",
            "the paper names 64 features, 16 types of 6 dimensions and 8 for a class; the kernels "
            "are taken to be 9x9 as elsewhere, and no decoder is mentioned",
        ),
        Form("smallnorb", Config(), (32, 32, 2), 5, 9_327_104, "2.7 % error", "32x32 crops"),
    ),
)
