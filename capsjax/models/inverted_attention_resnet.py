"""Inverted dot-product attention on a residual network (Tsai et al. 2020).

Residual network to a 16 x 16 map of 128 features on 32 x 32 images -> 1x1 convolution to 32 types
of 4x4 matrix poses, layer-normalised -> two convolutional capsule layers -> one capsule per class.
Layer normalisation makes all poses equally long, and no layer has activations: a linear map, which
all class capsules share, turns each one's pose into its logit.

Routing is concurrent or sequential. Sequentially, each layer ends all its iterations before the
next one begins. Concurrently, the first iteration of all layers, from the first to the last, is
followed by rounds, in each of which every layer does one iteration at the same time: it makes its
votes anew from the poses that the layer below had after the round before, and compares them with
its own poses of then. The primary capsules stay what they are. Where nothing is iterated, both are
the same.

Any other routing that does not look at activations may take its place; in concurrent mode, one
that goes on from earlier results.
"""

import dataclasses
import itertools
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
from capsjax.layers.convolution import LECUN_NORMAL, Convolution, Initializer
from capsjax.layers.dense import DenseCapsules
from capsjax.layers.residual import ResidualTrunk, halving
from capsjax.layers.router import capsules_of
from capsjax.layers.votes import check_matrix
from capsjax.models import network
from capsjax.models.checks import (
    at_least_one,
    one_of,
    uses_activations,
)
from capsjax.models.published import Form, Model
from capsjax.ops.convolution import Padding
from capsjax.routing import ALGORITHMS, algorithm_of, inverted_attention, name_of
from capsjax.routing.competition import Over
from capsjax.routing.convergence import Loop
from capsjax.types import Capsules, Routed, Trace

_EPSILON = 1e-5  # of the primary capsules' normalisation, as of the routing's


@dataclass(frozen=True)
class Config:
    """Choices of the network; the defaults are the authors' code's for CIFAR-10.

    Attributes:
        widths: features of each stage of the residual network; each but the first halves the map.
        blocks: residual blocks of each stage.
        types: capsule types of the primary and the convolutional capsules.
        dim: dimension of every capsule.
        matrix: poses are square matrices; else vectors.
        kernel_size: of the convolutional capsule layers.
        strides: of each of them; none for none.
        padding: of all of them, "VALID" or "SAME".
        hidden: capsules of each fully connected layer between these and the class capsules.
        over: what a child's parents compete over in a convolutional layer, as for
            ``layers.ConvolutionalCapsules``: "all" that see it, at any position, as Algorithm 1's
            softmax is over parents; "position", as in the authors' code, those at one position.
        mode: "concurrent" or "sequential", as the module's docstring says.
        routing: a routing's config; its ``num_iterations`` are those of every layer, the first pass
            of the concurrent mode included.

    Raises:
        ValueError: a size below 1, lists of different lengths, an unknown name, no routing's
            config, matrix poses that are not square, a routing that looks at activations, or
            concurrent routing of fewer than two layers or of a routing that cannot go on.
    """

    widths: tuple[int, ...] = (64, 128)
    blocks: tuple[int, ...] = (3, 4)
    types: int = 32
    dim: int = 16
    matrix: bool = True
    kernel_size: int = 3
    strides: tuple[int, ...] = (2, 1)
    padding: Padding = "VALID"
    hidden: tuple[int, ...] = ()
    over: Over = "all"
    mode: Literal["concurrent", "sequential"] = "concurrent"
    routing: Any = inverted_attention.Config()

    def __post_init__(self) -> None:
        one_of(self, "padding", ("VALID", "SAME"))
        one_of(self, "over", ("all", "position", "type"))
        one_of(self, "mode", ("concurrent", "sequential"))
        checks.fields(self)
        at_least_one(self, "widths", "blocks", "types", "dim", "kernel_size")
        for name in ("strides", "hidden"):
            if getattr(self, name):
                at_least_one(self, name)
        halving(self.widths, self.blocks)
        if self.matrix:
            check_matrix(self.dim, self.dim)
        if uses_activations(self.routing, unknown=False):
            raise ValueError(
                f"routing is {name_of(self.routing)!r}, which looks at its children's activations, "
                f"and the primary capsules have none: use one of: {', '.join(_usable())}"
            )
        if self.mode == "concurrent":
            _check_concurrent(self)


class Network(network.Network):
    """The network for images of any shape and any number of classes.

    Args:
        config: its choices.
        image_shape: height, width and channels.
        num_classes: number of classes.
        rngs: takes keys of the stream ``params``.

    Raises:
        ValueError: fewer than two classes, or an image that is too small for the convolutional
            capsule layers.
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
        routing, dim = config.routing, config.dim
        if config.mode == "concurrent":
            routing = dataclasses.replace(routing, num_iterations=1)
        stages = halving(config.widths, config.blocks)
        self.trunk = ResidualTrunk(image_shape[2], stages, shortcut="B", rngs=rngs)
        self.primary = Convolution(
            self.trunk.features,
            config.types * dim,
            kernel_size=1,
            kernel_init=LECUN_NORMAL,
            use_bias=False,
            rngs=rngs,
        )
        self.primary_norm = nnx.LayerNorm(dim, epsilon=_EPSILON, rngs=rngs)
        height, width, _ = self.trunk.out_shape(image_shape)
        grid = (height, width, config.types)
        layers: list[ConvolutionalCapsules | DenseCapsules] = []
        slots = config.kernel_size**2 * config.types
        for stride in config.strides:
            convolutional = ConvolutionalCapsules(
                grid,
                dim,
                config.types,
                dim,
                kernel_size=config.kernel_size,
                stride=stride,
                padding=config.padding,
                config=routing,
                matrix=config.matrix,
                over=config.over,
                weights_init=_weights_init(config, slots, config.types),
                readout=False,
                rngs=rngs,
            )
            layers.append(convolutional)
            grid = convolutional.out_shape
        sizes = [math.prod(grid), *config.hidden, num_classes]
        for number, (children, parents) in enumerate(itertools.pairwise(sizes)):
            dense = DenseCapsules(
                children,
                dim,
                parents,
                dim,
                config=routing,
                matrix=config.matrix,
                weights_init=_weights_init(config, children, parents),
                readout=number == len(config.hidden),
                rngs=rngs,
            )
            layers.append(dense)
        self.layers = nnx.List(layers)

    def forward(self, images: Array, *, trace: bool) -> tuple[Sequence[Routed], Array | None]:
        """As in ``models.network``."""
        features = self.primary(self.trunk(images))
        poses = features.reshape(*features.shape[:3], -1, self.config.dim)
        nothing: Any = None
        children = Capsules(self.primary_norm(poses), nothing)
        rounds = [self._forward(children, trace)]
        if self.config.mode == "concurrent":
            for _ in range(1, self.config.routing.num_iterations):
                rounds.append(self._round(children, rounds[-1], trace))
        routed = rounds[-1]
        if trace:
            routed = [_traced(layer) for layer in zip(*rounds, strict=True)]
        logits = self.layers[-1].routing.readout.logits(routed[-1])
        return routed, logits

    def _forward(self, children: Capsules, trace: bool) -> list[Routed]:
        """Layer after layer."""
        routed: list[Routed] = []
        for layer in self.layers:
            routed.append(layer(children, trace=trace))
            children = capsules_of(routed[-1])
        return routed

    def _round(self, primary: Capsules, before: list[Routed], trace: bool) -> list[Routed]:
        """One more iteration of all layers at the same time."""
        below = [primary, *map(capsules_of, before[:-1])]
        rows = zip(self.layers, below, before, strict=True)
        return [
            layer(children, initial=earlier._replace(trace=None), trace=trace)
            for layer, children, earlier in rows
        ]


def _traced(rounds: Sequence[Routed]) -> Routed:
    """One layer's last result, with the traces of all its rounds, ``[batch, iterations, ...]``."""

    def join(*entries: Array) -> Array:
        return jnp.concatenate(entries, axis=1)

    traces: list[Trace | None] = [each.trace for each in rounds]
    return rounds[-1]._replace(trace=jax.tree.map(join, *traces))


def _weights_init(config: Config, children: int, parents: int) -> Initializer:
    """Normal, of the authors' code's standard deviation.

    Layer normalisation undoes the size of the votes, but not that of the weights' gradients, which
    their learning rate of 0.1 was chosen for.
    """
    inner = math.isqrt(config.dim) if config.matrix else config.dim
    return nnx.initializers.normal(math.sqrt(parents / (inner * children)))


def _usable() -> list[str]:
    """Routings that do not look at activations."""
    return [
        name for name in ALGORITHMS if not uses_activations(ALGORITHMS[name].Config(), unknown=True)
    ]


def _check_concurrent(config: Config) -> None:
    routing = config.routing
    if not config.strides and not config.hidden:
        raise ValueError(
            "mode is 'concurrent' and the class capsules are the only layer, expected at least two "
            "that iterate at the same time: add to strides or hidden, or use mode='sequential'"
        )
    if not hasattr(algorithm_of(routing), "State"):
        able = [name for name in _usable() if hasattr(ALGORITHMS[name], "State")]
        raise ValueError(
            f"mode is 'concurrent' and routing {name_of(routing)!r}, which has no iterations to go "
            f"on with: use mode='sequential', or one of: {', '.join(able)}"
        )
    loop = getattr(routing, "loop", Loop())
    if loop.tolerance is not None or loop.gradient != "unrolled":
        raise ValueError(
            f"mode is 'concurrent' and the routing's loop {loop}, expected no tolerance "
            "and the unrolled gradient, since each round is a loop of one iteration: use these, or "
            "mode='sequential'"
        )


# The authors' code's for CIFAR-100.
CIFAR100 = Config(dim=36, hidden=(20,))

MODEL = Model(
    Network,
    Config(),
    "Tsai, Srivastava, Goh and Salakhutdinov 2020",
    forms=(Form("cifar10", Config(), (32, 32, 3), 10, 1_828_817, "5.15 % error"),),
    training={"loss": {"kind": "cross_entropy"}},
)
