"""A network layer by layer: shapes, parameters and operations, without computing anything.

The network is traced once, in evaluation mode, with one image. Each layer's call is wrapped while
that lasts: it notes the shape of what comes out, and puts what it traces under a
``jax.named_scope`` by which ``ops.flops`` finds it again.

``flax.nnx.tabulate`` (0.12.8) does not take layers that are called with named tuples, as capsules
are; it asks XLA for the operations of the branches that this platform runs, loops counted once.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from capsjax.models import calls
from capsjax.models.calls import Around
from capsjax.ops.flops import operations

_SCOPE = re.compile(r"layer<(\d+)>")


class Row(NamedTuple):
    """One layer.

    Attributes:
        path: where it is in the network, dotted; a number is a place in a list. The last row has
            an empty one: what the network does itself, between its layers.
        kind: its class.
        output_shape: of what it gives for one image, without the batch axis; of capsules their
            poses'.
        parameters: trainable ones.
        flops: floating-point operations for one image, as ``ops.flops`` counts them.
    """

    path: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int


def summary(network: nnx.Module, *, depth: int = 1) -> list[Row]:
    """What a network consists of, in the order in which its layers' calls end.

    Args:
        network: of ``models.create``, or an abstract one from ``nnx.eval_shape``; it is left as it
            is.
        depth: 1 lists the network's own layers, 2 theirs too, and so on. A layer whose own layers
            are listed has only what they do not. Lists of layers are no level of their own.

    Returns:
        A row for every layer that was called. Parameters and operations add up to the network's.

    Raises:
        ValueError: a depth below 1.

    Example:
        >>> from capsjax import models
        >>> network = nnx.eval_shape(lambda: models.create("capsnet"))
        >>> summary(network)[1].output_shape
        (6, 6, 32, 8)
    """
    if depth < 1:
        raise ValueError(f"depth is {depth}, expected at least 1")
    graph, state = nnx.split(network)
    layers: list[tuple[tuple[Any, ...], type]] = []
    shapes: dict[int, tuple[int, ...]] = {}

    def forward(state: Any, images: jax.Array) -> Any:
        traced: Any = nnx.merge(graph, state)
        traced.eval()
        inside = calls.layers(traced, depth)
        layers.extend((path, type(layer)) for path, layer in inside)
        watching = [(each, _watching(n, shapes)) for n, (_, each) in enumerate(inside)]
        with calls.wrapped(watching):
            return traced(images)

    sized: Any = network
    images = jax.ShapeDtypeStruct((1, *sized.image_shape), jnp.zeros(()).dtype)
    jaxpr, output = jax.make_jaxpr(forward, return_shape=True)(state, images)
    # What is not of any layer is the network's, the last row.
    itself = len(layers)
    layers.append(((), type(network)))
    shapes[itself] = tuple(output.activations.shape[1:])
    flops = dict.fromkeys(shapes, 0)
    for scope, count in operations(jaxpr.jaxpr):
        flops[int([itself, *_SCOPE.findall(scope)][-1])] += count
    parameters = dict.fromkeys(shapes, 0)
    for keys, leaf in nnx.to_flat_state(nnx.state(network, nnx.Param)):
        above = [number for number in shapes if layers[number][0] == keys[: len(layers[number][0])]]
        parameters[max(above, key=lambda number: len(layers[number][0]))] += math.prod(leaf.shape)
    return [
        Row(".".join(map(str, path)), kind.__name__, shape, parameters[number], flops[number])
        for number, shape in shapes.items()
        for path, kind in [layers[number]]
    ]


def _watching(number: int, shapes: dict[int, tuple[int, ...]]) -> Around:
    """Notes the shape of what a layer's call gives, and marks what it traces."""

    def watched(call: Callable[[], Any], *_: Any) -> Any:
        with jax.named_scope(f"layer<{number}>"):
            output = call()
        shapes[number] = _main_shape(output)
        return output

    return watched


def _main_shape(output: Any) -> tuple[int, ...]:
    """Without the batch: of the last layer's poses, or of the first array; of nothing, none."""
    if isinstance(output, tuple) and output and isinstance(output[0], list):
        output = output[0][-1]  # the routing of several layers, and logits
    leaves = jax.tree.leaves(getattr(output, "poses", output))
    return tuple(leaves[0].shape[1:]) if leaves else ()
