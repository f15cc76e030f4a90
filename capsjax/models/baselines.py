"""Convolutional networks without capsules, which the capsule papers compare with.

Convolutions, each followed by ReLU and, where asked for, batch normalisation and max pooling ->
fully connected layers with ReLU -> dropout -> logits of the classes. One network and four choices:

- ``SABOUR``, the baseline of Sabour, Frosst and Hinton 2017 for MNIST, which has no pooling;
- ``SABOUR_POOLED``, the one in their code, which pools: what capsules are meant to improve on;
- ``HINTON``, the baseline of Hinton, Sabour and Frosst 2018 for smallNORB;
- ``EFFICIENT``, the control of Mazzia, Salvetti and Chiaberge 2021, as large as their capsules.

The papers state no initialisation: ours is He's before a ReLU and LeCun's before the logits. Nor do
they state how much is dropped: here a half, where a paper has dropout.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from capsjax import checks
from capsjax.layers.convolution import HE_NORMAL, LECUN_NORMAL, Convolution, output_shape
from capsjax.layers.dropout import Dropout
from capsjax.layers.norm import BatchNorm
from capsjax.models import network
from capsjax.models.checks import at_least_one, check_map, one_of
from capsjax.models.published import Form, Model
from capsjax.ops.convolution import Padding
from capsjax.ops.pooling import max_pool
from capsjax.types import Routed

# As in efficient_capsnet, whose convolutions EFFICIENT has.
_EPSILON, _MOMENTUM = 1e-3, 0.99


@dataclass(frozen=True)
class Config:
    """Choices of a convolutional network; the defaults are Sabour's baseline for MNIST.

    Attributes:
        features: of each convolution.
        kernel_sizes: of each.
        strides: of each.
        pools: windows of the max pooling after each; 1 pools nothing.
        padding: of all convolutions, "VALID" or "SAME".
        normalisation: after each ReLU of a convolution: "batch" or "none".
        hidden: widths of the fully connected layers before the logits; there may be none.
        dropout: share of what the last layer sees that is dropped in training.

    Raises:
        ValueError: a size below 1, lists of different lengths, an unknown name, or a share outside
            [0, 1).
    """

    features: tuple[int, ...] = (256, 256, 128)
    kernel_sizes: tuple[int, ...] = (5, 5, 5)
    strides: tuple[int, ...] = (1, 1, 1)
    pools: tuple[int, ...] = (1, 1, 1)
    padding: Padding = "SAME"
    normalisation: Literal["batch", "none"] = "none"
    hidden: tuple[int, ...] = (328, 192)
    dropout: float = 0.5

    def __post_init__(self) -> None:
        one_of(self, "padding", ("VALID", "SAME"))
        one_of(self, "normalisation", ("batch", "none"))
        checks.fields(self)
        for name in ("features", "kernel_sizes", "strides", "pools"):
            at_least_one(self, name)
            if len(getattr(self, name)) != len(self.features):
                raise ValueError(
                    f"{name} are {getattr(self, name)}, expected one for every of the "
                    f"{len(self.features)} convolutions"
                )
        if self.hidden:
            at_least_one(self, "hidden")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, expected at least 0 and below 1")


SABOUR = Config()
SABOUR_POOLED = Config(
    features=(512, 256),
    kernel_sizes=(5, 5),
    strides=(1, 1),
    pools=(2, 2),
    hidden=(1024,),
    dropout=0.0,
)
HINTON = Config(
    features=(32, 64), kernel_sizes=(5, 5), strides=(1, 1), pools=(2, 2), hidden=(1024,)
)
EFFICIENT = Config(
    features=(32, 64, 64, 128, 32),
    kernel_sizes=(5, 3, 3, 3, 3),
    strides=(1, 1, 1, 2, 2),
    pools=(1, 1, 1, 1, 1),
    padding="VALID",
    normalisation="batch",
    hidden=(),
    dropout=0.0,
)


class Network(network.Network):
    """A convolutional network for images of any shape and any number of classes.

    Args:
        config: its choices.
        image_shape: height, width and channels.
        num_classes: number of classes.
        rngs: takes keys of the stream ``params``.

    Raises:
        ValueError: fewer than two classes, or an image that is too small for the convolutions or
            the pooling.
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
        rows = zip(config.features, config.kernel_sizes, config.strides, config.pools, strict=True)
        for features, kernel_size, stride, pool in rows:
            if config.padding == "VALID":
                check_map(shape, kernel_size, image_shape, "a kernel")
            convolution = Convolution(
                shape[2],
                features,
                kernel_size=kernel_size,
                stride=stride,
                padding=config.padding,
                rngs=rngs,
            )
            height, width, _ = output_shape(convolution, shape)[0]
            check_map((height, width), pool, image_shape, "a pool")
            shape = (height // pool, width // pool, features)
            convolutions.append(convolution)
        self.convolutions = nnx.List(convolutions)
        self.normalisations = nnx.List(
            BatchNorm(features, momentum=_MOMENTUM, epsilon=_EPSILON, rngs=rngs)
            for features in (config.features if config.normalisation == "batch" else ())
        )
        sizes = [shape[0] * shape[1] * shape[2], *config.hidden]
        self.hidden = nnx.List(
            nnx.Linear(a, b, kernel_init=HE_NORMAL, rngs=rngs) for a, b in itertools.pairwise(sizes)
        )
        self.dropout = Dropout(config.dropout, rngs=rngs) if config.dropout else None
        self.classes = nnx.Linear(sizes[-1], num_classes, kernel_init=LECUN_NORMAL, rngs=rngs)

    def forward(self, images: Array, *, trace: bool) -> tuple[Sequence[Routed], Array | None]:
        """As in ``models.network``."""
        del trace
        x = self.features(images)
        if self.dropout is not None:
            x = self.dropout(x)
        logits = self.classes(x)
        return (), logits

    def features(self, images: Array) -> Array:
        """``[batch, features]``, what the logits are made of, nothing dropped."""
        x = images
        for number, convolution in enumerate(self.convolutions):
            x = jax.nn.relu(convolution(x))
            if self.normalisations:
                x = self.normalisations[number](x)
            x = max_pool(x, self.config.pools[number])
        x = jnp.reshape(x, (x.shape[0], -1))
        for layer in self.hidden:
            x = jax.nn.relu(layer(x))
        return x


_TRAINING = {"loss": {"kind": "cross_entropy"}}

SABOUR_CNN = Model(
    Network,
    SABOUR,
    "Sabour, Frosst and Hinton 2017 (baseline)",
    forms=(Form("mnist", SABOUR, (28, 28, 1), 10, 35_445_522, "0.39 % error"),),
    training=_TRAINING,
)
SABOUR_CNN_POOLED = Model(
    Network,
    SABOUR_POOLED,
    "Sabour, Frosst and Hinton 2017 (baseline in their code)",
    forms=(
        Form(
            "multi_mnist",
            SABOUR_POOLED,
            (36, 36, 1),
            10,
            24_535_306,
            "8.1 % error (reported)",
            "the layers of their code make 24.54 M, where the paper has 24.56 M (reported)",
        ),
        Form("mnist", SABOUR_POOLED, (28, 28, 1), 10, 16_146_698),
    ),
    training=_TRAINING,
)
HINTON_CNN = Model(
    Network,
    HINTON,
    "Hinton, Sabour and Frosst 2018 (baseline)",
    forms=(
        Form(
            "smallnorb",
            HINTON,
            (32, 32, 2),
            5,
            4_253_349,
            "5.2 % error",
            "the paper says 4.2 M",
        ),
    ),
    training=_TRAINING,
)
EFFICIENT_CNN = Model(
    Network,
    EFFICIENT,
    "Mazzia, Salvetti and Chiaberge 2021 (baseline)",
    forms=(
        Form(
            "mnist",
            EFFICIENT,
            (28, 28, 1),
            10,
            172_778,
            "0.48 % error without reconstruction, with 173 K parameters",
            "the paper states 173 K and no layers: its network's four convolutions are kept, and "
            "a fifth (32 features, 3x3, stride 2) with a linear layer is our choice",
        ),
    ),
    training=_TRAINING,
)
