"""Self-routing on a residual network (Hahn, Pyeon and Kim 2019), and what it was compared with.

ResNet-20 -> a 3x3 convolution to 32 types of 16-dimensional poses, and another to their
activations, both batch-normalised -> one capsule per class that sees the whole map (2,048 children
on 32 x 32 images). A class is predicted by the most active capsule.

Config says what stands on the residual network. ``head="capsules"`` takes any routing. One that
looks at its children's activations gets those of the second convolution; for all others, dynamic
routing among them, poses are squashed, their lengths are the activations, and there is no such
convolution. Under EM and variational Bayes, poses are 4x4 matrices. Self-routing's activations do
not depend on votes, so its class capsules have no matrices: a child's vote is its pose. "average",
"max" and "dense" are heads without capsules: the map's mean or maximum, or a wide convolution and
the whole map, then one linear layer.

``depth`` counts capsule layers. Those below the last are convolutional, 3x3; the first of them
halves the map.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from capsjax import checks
from capsjax.layers.conv import ConvolutionalCapsules
from capsjax.layers.convolution import LECUN_NORMAL
from capsjax.layers.dense import DenseCapsules
from capsjax.layers.norm import BatchNorm
from capsjax.layers.residual import NormalisedConvolution, ResidualTrunk, halving
from capsjax.layers.router import capsules_of
from capsjax.layers.votes import balanced, check_matrix
from capsjax.models import network
from capsjax.models.checks import (
    at_least_one,
    one_of,
    uses_activations,
)
from capsjax.models.published import Form, Model
from capsjax.ops.squash import safe_norm, squash
from capsjax.routing import algorithm_of, dynamic, em, self_routing, variational_bayes
from capsjax.routing.competition import Over
from capsjax.types import Capsules, Routed

Head = Literal["capsules", "average", "max", "dense"]


@dataclass(frozen=True)
class Config:
    """Choices of the network; the defaults are the paper's for CIFAR-10 and SVHN.

    Attributes:
        head: "capsules", "average", "max" or "dense", as the module's docstring says.
        widths: features of each stage of the residual network; each but the first halves the map.
        blocks: residual blocks of each stage.
        types: capsule types of each layer but the last; times ``dim`` it is the dense head's width.
        dim: dimension of every capsule.
        depth: capsule layers above the primary capsules; the paper has 1 to 3.
        matrix: whether poses are square matrices; None is yes for EM and variational Bayes.
        over: what a child's parents compete over in the layers below the last, as for
            ``layers.ConvolutionalCapsules``; the authors' code has "position".
        routing: a routing's config; its type chooses the algorithm.

    Raises:
        ValueError: a size below 1, lists of different lengths, an unknown name, no routing's
            config, matrix poses that are not square, or choices of capsules for another head.
    """

    head: Head = "capsules"
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: tuple[int, ...] = (3, 3, 3)
    types: int = 32
    dim: int = 16
    depth: int = 1
    matrix: bool | None = None
    over: Over = "position"
    routing: Any = self_routing.Config()

    def __post_init__(self) -> None:
        one_of(self, "head", ("capsules", "average", "max", "dense"))
        one_of(self, "over", ("all", "position", "type"))
        checks.fields(self)
        at_least_one(self, "widths", "blocks", "types", "dim", "depth")
        halving(self.widths, self.blocks)
        algorithm_of(self.routing)
        if self.has_matrices:
            check_matrix(self.dim, self.dim)
        if self.head != "capsules" and (self.depth > 1 or self.routing != self_routing.Config()):
            raise ValueError(
                f"head is {self.head!r}, which has no capsules to route, beside depth "
                f"{self.depth} and routing {self.routing!r}: use head='capsules', or leave depth "
                "at 1 and routing as it is"
            )

    @property
    def has_matrices(self) -> bool:
        """Whether poses are matrices, after the routing's default."""
        if self.matrix is None:
            return isinstance(self.routing, em.Config | variational_bayes.Config)
        return self.matrix


class Network(network.Network):
    """The network for images of any shape and any number of classes.

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
        self.trunk = ResidualTrunk(image_shape[2], stages, shortcut="A", rngs=rngs)
        head = _CapsuleHead if config.head == "capsules" else _PlainHead
        self.head = head(config, self.trunk.out_shape(image_shape), num_classes, rngs)

    def forward(self, images: Array, *, trace: bool) -> tuple[Sequence[Routed], Array | None]:
        """As in ``models.network``."""
        return self.head(self.trunk(images), trace=trace)


class _CapsuleHead(nnx.Module):
    """From features to class capsules."""

    def __init__(
        self, config: Config, shape: tuple[int, int, int], num_classes: int, rngs: nnx.Rngs
    ):
        types, dim, routing = config.types, config.dim, config.routing
        matrix = config.has_matrices
        normalised = uses_activations(routing, unknown=True)
        self.dim = dim
        self.poses = NormalisedConvolution(shape[2], types * dim, kernel_size=3, rngs=rngs)
        self.activations = (
            NormalisedConvolution(shape[2], types, kernel_size=3, rngs=rngs) if normalised else None
        )

        def weights_init(children: int, parents: int) -> Any:
            """Of vectors in a stack; one layer alone, and matrices, have the layers' own."""
            stacked = config.depth > 1 and not matrix
            return balanced(routing, children, parents, dim) if stacked else None

        grid = (shape[0], shape[1], types)
        hidden = []
        for number in range(config.depth - 1):
            hidden.append(
                ConvolutionalCapsules(
                    grid,
                    dim,
                    types,
                    dim,
                    kernel_size=3,
                    stride=1 if number else 2,
                    padding="SAME",
                    config=routing,
                    matrix=matrix,
                    over=config.over,
                    weights_init=weights_init(9 * types, types),
                    rngs=rngs,
                )
            )
            grid = hidden[-1].out_shape
        self.hidden = nnx.List(hidden)
        self.norms = nnx.List(
            BatchNorm(types * dim, momentum=0.9, rngs=rngs) for _ in hidden if normalised
        )
        children = math.prod(grid)
        self.classes = DenseCapsules(
            children,
            dim,
            num_classes,
            dim,
            config=routing,
            matrix=matrix,
            weights_init=weights_init(children, num_classes),
            transform=not isinstance(routing, self_routing.Config),
            rngs=rngs,
        )

    def __call__(self, features: Array, *, trace: bool) -> tuple[Sequence[Routed], Array | None]:
        capsules = self._primary(features)
        routed: list[Routed] = []
        for number, layer in enumerate(self.hidden):
            routed.append(layer(capsules, trace=trace))
            capsules = capsules_of(routed[-1])
            if self.norms:
                flat = capsules.poses.reshape(*capsules.poses.shape[:3], -1)
                poses = self.norms[number](flat).astype(flat.dtype)
                capsules = capsules._replace(poses=poses.reshape(capsules.poses.shape))
        routed.append(self.classes(capsules, trace=trace))
        logits = self.classes.routing.readout.logits(routed[-1])
        return routed, logits

    def _primary(self, features: Array) -> Capsules:
        poses = self.poses(features)
        poses = poses.reshape(*poses.shape[:3], -1, self.dim)
        if self.activations is None:
            poses = squash(poses)
            return Capsules(poses, safe_norm(poses))
        return Capsules(poses, jax.nn.sigmoid(self.activations(features)))


class _PlainHead(nnx.Module):
    """From features to logits, without capsules."""

    def __init__(
        self, config: Config, shape: tuple[int, int, int], num_classes: int, rngs: nnx.Rngs
    ):
        height, width, channels = shape
        self.kind = config.head
        wide = config.types * config.dim
        self.convolution = (
            NormalisedConvolution(channels, wide, kernel_size=3, use_bias=True, rngs=rngs)
            if config.head == "dense"
            else None
        )
        inputs = channels if self.convolution is None else height * width * wide
        self.linear = nnx.Linear(inputs, num_classes, kernel_init=LECUN_NORMAL, rngs=rngs)

    def __call__(self, features: Array, *, trace: bool) -> tuple[Sequence[Routed], Array | None]:
        del trace
        if self.convolution is not None:
            features = jax.nn.relu(self.convolution(features))
            seen = features.reshape(features.shape[0], -1)
        elif self.kind == "average":
            seen = jnp.mean(features, axis=(1, 2))
        else:
            seen = jnp.max(features, axis=(1, 2))
        logits = self.linear(seen)
        return (), logits


def _form(config: Config, parameters: int, published: str = "none", note: str = "") -> Form:
    return Form("cifar10", config, (32, 32, 3), 10, parameters, published, note)


_DYNAMIC, _EM = dynamic.Config(), em.Config()
_UNUSED = (
    "the authors' code makes, and never uses, a batch normalisation of 1,024 more: 4,236,048 there"
)
MODEL = Model(
    Network,
    Config(),
    "Hahn, Pyeon and Kim 2019",
    forms=(
        _form(Config(), 931_664, "8.17 % error (reported)"),
        _form(Config(routing=_DYNAMIC), 5_807_888, "8.46 % error (reported)"),
        _form(Config(routing=_EM), 911_204, "10.25 % error (reported)"),
        _form(Config(head="average"), 269_722, "7.94 % error (reported)"),
        _form(Config(head="max"), 269_722),
        _form(Config(head="dense"), 893_210),
        _form(Config(depth=2), 3_187_536, "7.86 % error (reported)"),
        _form(Config(depth=2, routing=_DYNAMIC), 4_235_024, "7.86 % error (reported)", _UNUSED),
        _form(Config(depth=2, routing=_EM), 813_988, "12.52 % error (reported)"),
        Form("svhn_cropped", Config(), (32, 32, 3), 10, 931_664, "3.34 % error (reported)"),
    ),
    training={"loss": {"kind": "negative_log_likelihood"}},
)
