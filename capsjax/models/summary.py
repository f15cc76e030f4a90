"""A network layer by layer: shapes, parameters and operations, without computing anything.

The network is traced once, in evaluation mode, with one image. Each layer's call is wrapped while
that lasts: it notes the shape of what comes out, and puts what it traces under a
``jax.named_scope`` by which ``ops.flops`` finds it again.

``flax.nnx.tabulate`` (0.12.8) does not take layers that are called with named tuples, as capsules
are; it asks XLA for the operations of the branches that this platform runs, loops counted once.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

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
        modules = _modules(traced, depth)
        layers.extend((path, type(module)) for path, module in modules)
        with _watched([module for _, module in modules], shapes):
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


def _modules(
    module: nnx.Module, depth: int, path: tuple[Any, ...] = ()
) -> list[tuple[tuple[Any, ...], nnx.Module]]:
    """Modules that can be called, by their paths; of one that is in two places the first."""
    found: dict[int, tuple[tuple[Any, ...], nnx.Module]] = {}
    for name, child in nnx.iter_children(module):
        if not isinstance(child, nnx.Module):
            continue
        here = (*path, name)
        calls = any("__call__" in vars(kind) for kind in type(child).__mro__)
        if calls:
            found.setdefault(id(child), (here, child))
        if depth > calls:
            for entry in _modules(child, depth - calls, here):
                found.setdefault(id(entry[1]), entry)
    return list(found.values())


@contextlib.contextmanager
def _watched(modules: Sequence[nnx.Module], shapes: dict[int, tuple[int, ...]]) -> Iterator[None]:
    """Within it, calls of these modules note their output's shape and mark what they trace."""
    numbers = {id(module): number for number, module in enumerate(modules)}
    kinds: set[Any] = {type(module) for module in modules}
    own = {kind: vars(kind).get("__call__") for kind in kinds}
    watching = {kind: _watching(kind.__call__, numbers, shapes) for kind in kinds}
    try:
        for kind, call in watching.items():
            kind.__call__ = call
        yield
    finally:
        for kind, call in own.items():
            if call is None:  # it inherits one
                del kind.__call__
            else:
                kind.__call__ = call


def _main_shape(output: Any) -> tuple[int, ...]:
    """Without the batch: of the last layer's poses, or of the first array; of nothing, none."""
    if isinstance(output, tuple) and output and isinstance(output[0], list):
        output = output[0][-1]  # the routing of several layers, and logits
    leaves = jax.tree.leaves(getattr(output, "poses", output))
    return tuple(leaves[0].shape[1:]) if leaves else ()


def _watching(
    call: Callable[..., Any], numbers: Mapping[int, int], shapes: dict[int, tuple[int, ...]]
) -> Callable[..., Any]:
    def watched(self: Any, *args: Any, **options: Any) -> Any:
        number = numbers.get(id(self))
        if number is None:
            return call(self, *args, **options)
        with jax.named_scope(f"layer<{number}>"):
            output = call(self, *args, **options)
        shapes[number] = _main_shape(output)
        return output

    return watched
