"""What every layer of a network gives for images, and what follows if a layer gives other poses."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from capsjax.data import augment, recipes
from capsjax.models import calls
from capsjax.models.calls import Around
from capsjax.training.run import Run
from capsjax.training.step import split
from capsjax.types import Capsules, Routed, Trace

_ROWS = 100


class Seen(NamedTuple):
    """What a network says of images, and what it was made of.

    Attributes:
        activations: ``[N, classes]``.
        poses: ``[N, classes, dim]``; None in a network without capsules.
        reconstructions: ``[N, H, W, C]`` from 0 to 1, of the most active class; None without a
            decoder.
        coefficients: of each routed layer ``[N, *windows, parents, children]``.
        traces: of each routed layer, images first; None where they were not asked for, or where a
            routing has no iterations.
        layers: what was asked for, by its path: an array, or ``Capsules`` or ``Routed``, of arrays
            ``[N, ...]``.
    """

    activations: np.ndarray
    poses: np.ndarray | None
    reconstructions: np.ndarray | None
    coefficients: tuple[np.ndarray, ...]
    traces: tuple[Trace | None, ...]
    layers: dict[str, Any]


def see(
    run: Run,
    images: np.ndarray,
    paths: Sequence[str] = (),
    *,
    trace: bool = False,
    moves: Mapping[str, np.ndarray] | None = None,
) -> Seen:
    """Show a network images, and look into it.

    Args:
        run: the trained network.
        images: uint8 ``[N, H, W, C]``.
        paths: of layers whose outputs are kept, out of ``layers``.
        trace: keep every iteration of every routing.
        moves: by a path out of ``capsule_layers``, what is added to the poses of that layer before
            they go on, float ``[N, capsules, dim]``. The capsules' activations stay.

    Returns:
        What the network says, and what it was made of.

    Raises:
        ValueError: images of another shape, a path that there is not, or moves of another shape.
    """
    images = _checked(run, images)
    known = layers(run)
    for path in paths:
        if path not in known:
            raise ValueError(f"unknown layer {path!r}, expected one of: {', '.join(known)}")
    moves = {name: np.asarray(move, np.float32) for name, move in (moves or {}).items()}
    if moves:
        _check_moves(moves, capsule_layers(run), len(images))
    graph, *state = split(run.model)
    recipe = run.settings.training.recipe
    with jax.default_matmul_precision(run.settings.training.precision):
        parts = [
            jax.device_get(_seen(graph, recipe, tuple(paths), trace, state, *rows))
            for rows in _in_parts(images, moves)
        ]
    joined = jax.tree.map(lambda *each: np.concatenate(each)[: len(images)], *parts)
    return Seen(*joined)


def last_routing(run: Run, image: np.ndarray) -> tuple[Routed, Capsules]:
    """The routing of the class capsules for one image, with its votes and its trace.

    Args:
        run: the trained network.
        image: uint8 ``[H, W, C]``.

    Returns:
        What was routed, and the capsules that voted, ``[children, dim]``; of one example, without
        a batch axis.

    Raises:
        ValueError: an image of another shape, or a network that routes nothing.
    """
    images = _checked(run, image[None])
    below = list(capsule_layers(run))[-2:-1]
    if not below:
        raise ValueError("the network routes nothing: take one with capsules")
    graph, *state = split(run.model)
    recipe = run.settings.training.recipe
    with jax.default_matmul_precision(run.settings.training.precision):
        routed, poses, activations = jax.device_get(
            _last_routing(graph, recipe, below[0], state, images)
        )
    return routed, Capsules(poses.reshape(-1, poses.shape[-1]), activations.ravel())


def layers(run: Run) -> list[str]:
    """The network's own layers, by their paths, as ``capsjax models NAME`` lists them.

    Args:
        run: the network.

    Returns:
        Their paths, sorted as the network holds them.
    """
    return [_dotted(path) for path, _ in calls.layers(run.model, 1)]


def capsule_layers(run: Run) -> dict[str, tuple[int, int]]:
    """The layers whose outputs are capsules, in the order of their calls.

    Args:
        run: the network.

    Returns:
        How many capsules each gives, in all places, and of what dimension.
    """
    found: dict[str, tuple[int, int]] = {}

    def noting(path: str) -> Around:
        def around(call: Callable[[], Any]) -> Any:
            output = call()
            poses = getattr(output, "poses", None)
            if poses is not None:
                found[path] = (int(np.prod(poses.shape[1:-1])), int(poses.shape[-1]))
            return output

        return around

    graph, *state = split(run.model)

    def forward(state: Any, images: Array) -> Any:
        network = _merged(graph, state)
        with calls.wrapped([(each, noting(name)) for name, each in _named(network)]):
            return network(images).activations

    images = jax.ShapeDtypeStruct((1, *run.settings.image_shape), jnp.float32)
    jax.eval_shape(forward, state, images)
    return found


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _seen(
    graph: Any,
    recipe: str | None,
    paths: tuple[str, ...],
    trace: bool,
    state: Any,
    images: Array,
    moves: dict[str, Array],
) -> Any:
    kept: dict[str, Any] = {}

    def around(path: str) -> Around:
        def look(call: Callable[[], Any]) -> Any:
            output = call()
            if path in moves:
                poses = output.poses
                output = output._replace(poses=poses + moves[path].reshape(poses.shape))
            if path in paths:
                kept[path] = output
            return output

        return look

    network = _merged(graph, state)
    with calls.wrapped([(each, around(name)) for name, each in _named(network)]):
        output = network(jax.vmap(prepare_with(recipe))(images), trace=trace)
    return (
        output.activations,
        output.poses,
        output.reconstruction,
        tuple(routed.coefficients for routed in output.routed),
        tuple(routed.trace for routed in output.routed),
        kept,
    )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _last_routing(graph: Any, recipe: str | None, below: str, state: Any, images: Array) -> Any:
    kept: list[Any] = []

    def look(call: Callable[[], Any]) -> Any:
        kept.append(call())
        return kept[-1]

    network = _merged(graph, state)
    with calls.wrapped([(each, look) for name, each in _named(network) if name == below]):
        output = network(jax.vmap(prepare_with(recipe))(images), trace=True)
    one = jax.tree.map(lambda array: array[0], output.routed[-1])
    return one, kept[0].poses[0], kept[0].activations[0]


def layer_poses(graph: Any, layer: str, state: Any, images: Array) -> Array:
    """Poses that a layer of capsules gives, of images as the network takes them.

    Args:
        graph: of the network, as ``step.split`` gives it.
        layer: a path out of ``capsule_layers``.
        state: the parameters and the rest.
        images: float ``[batch, H, W, C]``.
    """
    kept: list[Array] = []

    def look(call: Callable[[], Any]) -> Any:
        output = call()
        kept.append(output.poses)
        return output

    network = _merged(graph, state)
    with calls.wrapped([(each, look) for name, each in _named(network) if name == layer]):
        network(images)
    return kept[0]


def prepare_with(recipe: str | None) -> Callable[[Array], Array]:
    """From a uint8 image to what a network trained with this recipe is shown in testing."""
    return augment.to_unit_interval if recipe is None else recipes.find(recipe).test


def _merged(graph: Any, state: Any) -> Any:
    network: Any = nnx.merge(graph, *state, copy=True)
    network.eval()
    return network


def _named(network: nnx.Module) -> list[tuple[str, nnx.Module]]:
    return [(_dotted(path), layer) for path, layer in calls.layers(network, 1)]


def _dotted(path: Sequence[Any]) -> str:
    return ".".join(map(str, path))


def _in_parts(
    images: np.ndarray, moves: Mapping[str, np.ndarray]
) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Parts of one length, so that one compilation serves all; the last is filled up."""
    count = len(images)
    rows = min(count, _ROWS)
    places = [np.arange(start, start + rows) % count for start in range(0, count, rows)]
    return [(images[at], {name: move[at] for name, move in moves.items()}) for at in places]


def _checked(run: Run, images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    wanted = run.settings.shape_of_data
    if images.dtype != np.uint8 or images.shape[1:] != wanted or len(images) == 0:
        sides = ", ".join(map(str, wanted))
        raise ValueError(
            f"images are {images.dtype} {images.shape}, expected uint8 [N, {sides}] from 0 to 255, "
            "N at least 1"
        )
    return images


def _check_moves(
    moves: Mapping[str, np.ndarray], known: Mapping[str, tuple[int, int]], count: int
) -> None:
    for path, move in moves.items():
        if path not in known:
            raise ValueError(
                f"{path!r} is no layer of capsules, expected one of: {', '.join(known)}"
            )
        wanted = (count, *known[path])
        if move.shape != wanted:
            raise ValueError(f"moves of {path} have shape {move.shape}, expected {wanted}")
