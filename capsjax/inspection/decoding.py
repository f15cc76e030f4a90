"""What a decoder draws of capsules that are changed dimension by dimension."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array

from capsjax import checks
from capsjax.inspection.inputs import known_layer, merged, parts
from capsjax.inspection.seeing import Seen, capsule_layers, see
from capsjax.training.run import Run
from capsjax.training.step import split

# Sabour 2017, figure 4: from -0.25 to 0.25 in steps of 0.05.
OFFSETS = np.linspace(-0.25, 0.25, 11)
_ROWS = 2000

Decode = Callable[[np.ndarray, np.ndarray], np.ndarray]


@checks.arguments(empty=True)
def decoder(network: nnx.Module) -> Decode:
    """The decoder of a network, with one capsule in view.

    Args:
        network: a capsule network with a decoder.

    Returns:
        A function from poses ``[N, dim]`` and their classes ``[N]`` to images ``[N, H, W, C]`` from
        0 to 1; it raises ValueError for others.

    Raises:
        ValueError: the network has no decoder.

    Example:
        >>> from capsjax import load_pretrained
        >>> run = load_pretrained("efficient_capsnet_mnist")
        >>> decode = decoder(run.model)
        >>> decode(np.zeros((2, 16)), np.array([3, 8])).shape
        (2, 28, 28, 1)
    """
    _check_decoder(network)
    graph, *state = split(network)

    def decode(poses: np.ndarray, labels: np.ndarray) -> np.ndarray:
        poses, labels = np.asarray(poses, np.float32), np.asarray(labels)
        if poses.ndim != 2 or len(poses) == 0 or labels.shape != (len(poses),):
            raise ValueError(
                f"poses are {poses.shape} and labels {labels.shape}, expected [N, dim] and [N], N "
                "at least 1"
            )
        found = [
            np.asarray(_decoded(graph, state, poses[rows], labels[rows]))
            for rows in parts(len(poses), _ROWS)
        ]
        return np.concatenate(found)[: len(poses)]

    return decode


@checks.arguments(empty=True)
def perturbed(
    run: Run,
    image: np.ndarray,
    *,
    layer: str | None = None,
    capsule: int | None = None,
    offsets: np.ndarray = OFFSETS,
) -> np.ndarray:
    """What is drawn when one dimension of one capsule is changed and all else is left.

    Args:
        run: a trained network with a decoder.
        image: uint8 ``[H, W, C]``.
        layer: a path out of ``capsule_layers``; None is the last one, the class capsules.
        capsule: its number among all of the layer's, place by place; None is the most active.
        offsets: float ``[steps]``, what is added to the dimension.

    Returns:
        ``[dim, steps, H, W, C]`` from 0 to 1. Of a class capsule its own reconstruction; of a
        capsule below, that of the class which is the most active without a change.

    Raises:
        ValueError: no decoder, no such layer or capsule, no offsets, or an image of another shape.

    Source: Sabour, Frosst and Hinton 2017, section 5.1 and figure 4 (of class capsules).

    Example:
        >>> from capsjax import data, load_pretrained
        >>> run = load_pretrained("efficient_capsnet_mnist")
        >>> digit = data.load("mnist", "test")["image"][0]
        >>> perturbed(run, digit).shape  # dimensions, offsets, and an image
        (16, 11, 28, 28, 1)
    """
    _check_decoder(run.model)
    known = capsule_layers(run)
    last = list(known)[-1]
    layer = last if layer is None else known_layer(layer, known)
    offsets = checks.floats("offsets", offsets).astype(np.float32)
    if offsets.ndim != 1 or len(offsets) == 0 or not np.isfinite(offsets).all():
        raise ValueError(
            f"offsets are {offsets} of shape {offsets.shape}, expected finite ones [steps], at "
            "least one"
        )
    count, dim = known[layer]
    if capsule is not None and not 0 <= capsule < count:
        raise ValueError(f"capsule is {capsule}, expected 0 to {count - 1}, those of {layer}")
    plain = see(run, image[None], [layer])
    assert plain.poses is not None
    if capsule is None:
        capsule = int(np.argmax(_active(plain, layer, last)))
    steps = len(offsets)
    # [dim, steps, dim]: the dimension of its row has the offset of its column.
    changes = offsets[:, None] * np.eye(dim, dtype=np.float32)[:, None]
    changes = changes.reshape(dim * steps, dim)
    label = capsule if layer == last else int(np.argmax(plain.activations))
    if layer == last:
        poses = plain.poses[0, capsule] + changes
    else:
        moves = np.zeros((dim * steps, count, dim), np.float32)
        moves[:, capsule] = changes
        many = np.repeat(image[None], dim * steps, axis=0)
        found = see(run, many, moves={layer: moves}).poses
        assert found is not None
        poses = found[:, label]
    drawn = decoder(run.model)(poses, np.full(len(poses), label))
    return drawn.reshape(dim, steps, *drawn.shape[1:])


def _active(plain: Seen, layer: str, last: str) -> np.ndarray:
    """How active a layer's capsules are: their lengths where they say nothing of it."""
    if layer == last:
        return plain.activations
    found = plain.layers[layer]
    if found.activations is None:
        return np.linalg.norm(found.poses, axis=-1)
    return np.asarray(found.activations)


@partial(jax.jit, static_argnums=0)
def _decoded(graph: Any, state: Any, poses: Array, labels: Array) -> Array:
    network = merged(graph, state)
    mask = jax.nn.one_hot(labels, network.num_classes, dtype=np.float32)
    all_poses = mask[:, :, None] * poses.astype(np.float32)[:, None, :]
    images: Array = network.decoder(all_poses, mask)
    return images


def _check_decoder(network: Any) -> None:
    if getattr(network, "decoder", None) is None:
        raise ValueError(
            "the network has no decoder, so that nothing can be drawn of its capsules: take one "
            "that was trained with a decoder"
        )
