"""What every layer of a network gives for images, and what follows if a layer gives other poses."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from capsjax import checks
from capsjax.inspection.inputs import capsules_in, checked, known_layer, merged, parts, with_poses
from capsjax.models import calls
from capsjax.models.calls import Around
from capsjax.training.evaluation import prepare_with
from capsjax.training.run import Run
from capsjax.training.step import split
from capsjax.types import Capsules, Routed, Trace

# How deep layers lie in layers: a network's head may hold the capsules.
_DEPTH = 3


class Seen(NamedTuple):
    """What a network says of images, and what it was made of.

    Attributes:
        activations: ``[N, classes]``.
        poses: ``[N, classes, dim]``; None in a network without capsules.
        reconstructions: ``[N, H, W, C]`` from 0 to 1, of the most active class, or
            ``[N, k, H, W, C]`` of several; None without a decoder.
        coefficients: of each routed layer ``[N, *windows, parents, children]``.
        traces: of each routed layer, images first; None where they were not asked for, or where a
            routing has no iterations.
        layers: what was asked for, by its path: ``Capsules`` or ``Routed`` of a layer of capsules,
            else what it gives, of arrays ``[N, ...]``.
    """

    activations: np.ndarray
    poses: np.ndarray | None
    reconstructions: np.ndarray | None
    coefficients: tuple[np.ndarray, ...]
    traces: tuple[Trace | None, ...]
    layers: dict[str, Any]


@checks.arguments(empty=True)
def see(
    run: Run,
    images: np.ndarray,
    paths: Sequence[str] = (),
    *,
    trace: bool = False,
    classes: int = 1,
    moves: Mapping[str, np.ndarray] | None = None,
) -> Seen:
    """Show a network images, and look into it.

    Args:
        run: the trained network.
        images: uint8 ``[N, H, W, C]``.
        paths: of layers whose outputs are kept, out of ``layers``.
        trace: keep every iteration of every routing.
        classes: reconstruct so many of the most active ones.
        moves: by a path out of ``capsule_layers``, what is added to the poses of that layer before
            they go on, float ``[N, capsules, dim]``. The capsules' activations stay.

    Returns:
        What the network says, and what it was made of.

    Raises:
        ValueError: images of another shape, a path that there is not, more classes than there are,
            or moves of another shape.

    Example:
        >>> from capsjax import data, load_pretrained
        >>> run = load_pretrained("efficient_capsnet_mnist")
        >>> seen = see(run, data.load("mnist", "test")["image"][:5], ["primary"])
        >>> seen.activations.argmax(1).tolist(), seen.layers["primary"].poses.shape
        ([7, 2, 1, 0, 4], (5, 1, 1, 16, 8))
    """
    images = checked(run, images)
    capsules = capsule_layers(run) if paths or moves else {}
    known = list(dict.fromkeys([*layers(run), *capsules]))
    for path in paths:
        if path not in known:
            raise ValueError(f"unknown layer {path!r}, expected one of: {', '.join(known)}")
    moves = {name: np.asarray(move, np.float32) for name, move in (moves or {}).items()}
    _check_moves(moves, capsules, len(images))
    graph, *state = split(run.model)
    recipe = run.settings.training.recipe
    with jax.default_matmul_precision(run.settings.training.precision):
        found = [
            jax.device_get(
                _seen(
                    graph,
                    recipe,
                    tuple(paths),
                    trace,
                    classes,
                    state,
                    images[rows],
                    {name: move[rows] for name, move in moves.items()},
                )
            )
            for rows in parts(len(images))
        ]
    joined = jax.tree.map(lambda *each: np.concatenate(each)[: len(images)], *found)
    return Seen(*joined)


@checks.arguments(empty=True)
def last_routing(run: Run, image: np.ndarray) -> tuple[Routed, Capsules]:
    """The routing of the class capsules for one image, with its votes and its trace.

    Args:
        run: the trained network.
        image: uint8 ``[H, W, C]``.

    Returns:
        What was routed, and the capsules that voted, ``[children, dim]`` (activations are None
        where they have none); of one example, without a batch axis.

    Raises:
        ValueError: an image of another shape, or a network that routes nothing.

    Example:
        >>> from capsjax import data, load_pretrained
        >>> run = load_pretrained("efficient_capsnet_mnist")
        >>> routed, children = last_routing(run, data.load("mnist", "test")["image"][0])
        >>> routed.coefficients.shape, children.poses.shape
        ((10, 16), (16, 8))
    """
    images = checked(run, image[None])
    graph, *state = split(run.model)
    recipe = run.settings.training.recipe
    with jax.default_matmul_precision(run.settings.training.precision):
        found = jax.device_get(_last_routing(graph, recipe, state, images))
    if found is None:
        raise ValueError("the network routes nothing: take one with capsules")
    routed, poses, activations = found
    if activations is not None:
        activations = activations.ravel()
    return routed, Capsules(poses.reshape(-1, poses.shape[-1]), activations)


@checks.arguments(empty=True)
def layers(run: Run) -> list[str]:
    """The network's own layers, by their paths, as ``capsjax models NAME`` lists them.

    Args:
        run: the network.

    Returns:
        Their paths, sorted as the network holds them.

    Example:
        >>> from capsjax import load_pretrained
        >>> run = load_pretrained("efficient_capsnet_mnist")
        >>> [path for path in layers(run) if "." not in path]  # the others lie in lists
        ['classes', 'decoder', 'primary']
    """
    return [_dotted(path) for path, _ in calls.layers(run.model, 1)]


@checks.arguments(empty=True)
def capsule_layers(run: Run) -> dict[str, tuple[int, int]]:
    """The layers whose outputs are capsules, in the order of their calls.

    Of layers within such a layer there is no mention.

    Args:
        run: the network.

    Returns:
        How many capsules each gives, in all places, and of what dimension.

    Example:
        >>> from capsjax import load_pretrained
        >>> run = load_pretrained("efficient_capsnet_mnist")
        >>> capsule_layers(run)
        {'primary': (16, 8), 'classes': (10, 16)}
    """
    found: list[tuple[str, tuple[int, int]]] = []

    def noting(path: str) -> Around:
        def around(call: Callable[[], Any], *_: Any) -> Any:
            before = len(found)
            output = call()
            capsules = capsules_in(output)
            if capsules is not None:
                shape = capsules.poses.shape
                del found[before:]
                found.append((path, (int(np.prod(shape[1:-1])), int(shape[-1]))))
            return output

        return around

    graph, *state = split(run.model)

    def forward(state: Any, images: Array) -> Any:
        network = merged(graph, state)
        with calls.wrapped([(each, noting(name)) for name, each in _named(network)]):
            return network(images).activations

    images = jax.ShapeDtypeStruct((1, *run.settings.image_shape), jnp.float32)
    jax.eval_shape(forward, state, images)
    return dict(found)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _seen(
    graph: Any,
    recipe: str | None,
    paths: tuple[str, ...],
    trace: bool,
    classes: int,
    state: Any,
    images: Array,
    moves: dict[str, Array],
) -> Any:
    kept: dict[str, Any] = {}

    def around(path: str) -> Around:
        def look(call: Callable[[], Any], *_: Any) -> Any:
            output = call()
            if path in moves:
                output = with_poses(output, lambda poses: poses + moves[path].reshape(poses.shape))
            if path in paths:
                capsules = capsules_in(output)
                kept[path] = output if capsules is None else capsules
            return output

        return look

    network = merged(graph, state)
    with calls.wrapped([(each, around(name)) for name, each in _named(network)]):
        options = {"longest": classes} if classes > 1 else {}
        output = network(jax.vmap(prepare_with(recipe))(images), trace=trace, **options)
    return (
        output.activations,
        output.poses,
        output.reconstruction,
        tuple(routed.coefficients for routed in output.routed),
        tuple(routed.trace for routed in output.routed),
        kept,
    )


@partial(jax.jit, static_argnums=(0, 1))
def _last_routing(graph: Any, recipe: str | None, state: Any, images: Array) -> Any:
    voted: list[Any] = []

    def look(call: Callable[[], Any], *given: Any) -> Any:
        output = call()
        if isinstance(capsules_in(output), Routed) and capsules_in(given) is not None:
            voted.append(capsules_in(given))
        return output

    network = merged(graph, state)
    with calls.wrapped([(each, look) for _, each in _named(network)]):
        output = network(jax.vmap(prepare_with(recipe))(images), trace=True)
    if not output.routed:
        return None
    one = jax.tree.map(lambda array: array[0], output.routed[-1])
    # The last call of all is that of the class capsules' layer.
    poses, activations = voted[-1]
    return one, poses[0], None if activations is None else activations[0]


def layer_poses(graph: Any, layer: str, state: Any, images: Array) -> Array:
    """Poses that a layer of capsules gives, of images as the network takes them.

    Args:
        graph: of the network, as ``step.split`` gives it.
        layer: a path out of ``capsule_layers``.
        state: the parameters and the rest.
        images: float ``[batch, H, W, C]``.

    Returns:
        ``[batch, *places, capsules, dim]``, of the layer's last call.
    """
    kept: list[Array] = []

    def look(call: Callable[[], Any], *_: Any) -> Any:
        output = call()
        kept.append(capsules_in(output).poses)
        return output

    network = merged(graph, state)
    with calls.wrapped([(each, look) for name, each in _named(network) if name == layer]):
        network(images)
    return kept[-1]


def _named(network: nnx.Module) -> list[tuple[str, nnx.Module]]:
    return [(_dotted(path), layer) for path, layer in calls.layers(network, _DEPTH)]


def _dotted(path: Sequence[Any]) -> str:
    return ".".join(map(str, path))


def _check_moves(
    moves: Mapping[str, np.ndarray], known: Mapping[str, tuple[int, int]], count: int
) -> None:
    for path, move in moves.items():
        wanted = (count, *known[known_layer(path, known)])
        if move.shape != wanted:
            raise ValueError(f"moves of {path} have shape {move.shape}, expected {wanted}")
