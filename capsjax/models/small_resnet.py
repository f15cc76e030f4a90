"""A small residual network without capsules: what any of these has to be compared with.

The 20 layers that He, Zhang, Ren and Sun 2016 made for CIFAR-10: three stages of three residual
blocks, 16, 32 and 64 features wide -> the mean over the map -> one linear layer. Shortcuts that
change their width are batch-normalised 1x1 convolutions ("B"), as in later networks, or strided
with zeros for the new channels ("A"), as in theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax import Array

from capsjax import checks
from capsjax.layers.convolution import LECUN_NORMAL
from capsjax.layers.residual import ResidualTrunk, Shortcut, halving
from capsjax.models import network
from capsjax.models.checks import at_least_one, one_of
from capsjax.models.published import Form, Model
from capsjax.types import Routed


@dataclass(frozen=True)
class Config:
    """Choices of the small residual network.

    Attributes:
        widths: features of each stage; each but the first halves the map.
        blocks: residual blocks of each stage.
        shortcut: "A" or "B", as for ``layers.ResidualBlock``.

    Raises:
        ValueError: a size below 1, lists of different lengths, or an unknown shortcut.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    blocks: tuple[int, ...] = (3, 3, 3)
    shortcut: Shortcut = "B"

    def __post_init__(self) -> None:
        one_of(self, "shortcut", ("A", "B"))
        checks.fields(self)
        at_least_one(self, "widths", "blocks")
        halving(self.widths, self.blocks)


class Network(network.Network):
    """The small residual network for images of any shape and any number of classes.

    Args:
        config: its choices.
        image_shape: height, width and channels.
        num_classes: number of classes.
        rngs: takes keys of the stream ``params``.

    Raises:
        ValueError: fewer than two classes.
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
        stages = halving(config.widths, config.blocks)
        self.trunk = ResidualTrunk(image_shape[2], stages, shortcut=config.shortcut, rngs=rngs)
        self.linear = nnx.Linear(
            self.trunk.features, num_classes, kernel_init=LECUN_NORMAL, rngs=rngs
        )

    def forward(self, images: Array, *, trace: bool) -> tuple[Sequence[Routed], Array | None]:
        """As in ``models.network``."""
        del trace
        logits = self.linear(jnp.mean(self.trunk(images), axis=(1, 2)))
        return (), logits


MODEL = Model(
    Network,
    Config(),
    "He, Zhang, Ren and Sun 2016",
    forms=(
        Form("cifar10", Config(), (32, 32, 3), 10, 272_474),
        Form(
            "cifar10",
            Config(shortcut="A"),
            (32, 32, 3),
            10,
            269_722,
            "8.75 % error (reported)",
            "the paper rounds to 0.27 M",
        ),
    ),
    training={"loss": {"kind": "cross_entropy"}},
)
