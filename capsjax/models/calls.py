"""The calls of a network's layers, to watch them or to put something else in their place.

``flax.nnx.capture`` (0.12.8) notes what methods return, and cannot change it.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flax import nnx

# What is done in place of a layer's call, which is given as a function of no arguments, and with it
# the positional arguments that the layer was called with.
Around = Callable[..., Any]

# Classes' calls are replaced while one is watched: in one thread at a time.
_ONE_AT_A_TIME = threading.RLock()


def layers(
    network: nnx.Module, depth: int, path: tuple[Any, ...] = ()
) -> list[tuple[tuple[Any, ...], nnx.Module]]:
    """Layers that can be called, by their paths; of one that is in two places the first.

    Args:
        network: whose.
        depth: 1 is the network's own layers, 2 theirs too, and so on. Lists of layers are no level
            of their own.
        path: of ``network`` itself.

    Returns:
        Path and layer of each.
    """
    found: dict[int, tuple[tuple[Any, ...], nnx.Module]] = {}
    for name, child in nnx.iter_children(network):
        if not isinstance(child, nnx.Module):
            continue
        here = (*path, name)
        calls = any("__call__" in vars(kind) for kind in type(child).__mro__)
        if calls:
            found.setdefault(id(child), (here, child))
        if depth > calls:
            for entry in layers(child, depth - calls, here):
                found.setdefault(id(entry[1]), entry)
    return list(found.values())


@contextlib.contextmanager
def wrapped(arounds: Sequence[tuple[nnx.Module, Around]]) -> Iterator[None]:
    """Within it, each of these layers' calls is what its function makes of it.

    Other threads that ask for the same wait; calls that they make of layers of these classes
    without asking go on as ever.

    Args:
        arounds: layers, and what is done in place of their calls: a function of the call (without
            arguments) and of the positional arguments that the layer was given.
    """
    by_id: dict[int, Around] = {id(layer): around for layer, around in arounds}
    kinds: set[Any] = {type(layer) for layer, _ in arounds}
    with _ONE_AT_A_TIME:
        own = {kind: vars(kind).get("__call__") for kind in kinds}
        wrapping = {kind: _wrapping(kind.__call__, by_id) for kind in kinds}
        try:
            for kind, call in wrapping.items():
                kind.__call__ = call
            yield
        finally:
            for kind, call in own.items():
                if call is None:  # it inherits one
                    del kind.__call__
                else:
                    kind.__call__ = call


def _wrapping(call: Callable[..., Any], arounds: Mapping[int, Around]) -> Callable[..., Any]:
    def wrapped_call(self: Any, *args: Any, **options: Any) -> Any:
        around = arounds.get(id(self))
        if around is None:
            return call(self, *args, **options)
        return around(lambda: call(self, *args, **options), *args)

    return wrapped_call
