"""What all of the room do with a network and with images before they look."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from capsjax.training.run import Run

_ROWS = 100


def merged(graph: Any, state: Any) -> Any:
    """A network of its graph and its state, as ``step.split`` gives them, for testing."""
    network: Any = nnx.merge(graph, *state, copy=True)
    network.eval()
    return network


def parts(count: int, rows: int = _ROWS) -> list[np.ndarray]:
    """Numbers of so many rows in parts of one length: one compilation serves all.

    The last part is filled up from the beginning; of all that is computed the first ``count`` rows
    are to be kept.
    """
    rows = min(count, rows)
    return [np.arange(start, start + rows) % count for start in range(0, count, rows)]


def checked(run: Run, images: np.ndarray) -> np.ndarray:
    """Images that the network takes, uint8 ``[N, H, W, C]``.

    Raises:
        ValueError: of another dtype or shape, or none.
    """
    images = np.asarray(images)
    wanted = run.settings.shape_of_data
    if images.dtype != np.uint8 or images.shape[1:] != wanted or len(images) == 0:
        sides = ", ".join(map(str, wanted))
        raise ValueError(
            f"images are {images.dtype} {images.shape}, expected uint8 [N, {sides}] from 0 to 255, "
            "N at least 1"
        )
    return images


def check_labels(labels: np.ndarray, count: int, num_classes: int) -> np.ndarray:
    """Classes of so many images, int ``[count]``.

    Raises:
        ValueError: of another dtype or shape, or no class of the network.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels are {labels.dtype} {labels.shape}, expected integers [{count}]: one an image"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels are from {labels.min()} to {labels.max()}, expected 0 to {num_classes - 1}, "
            "the network's classes"
        )
    return labels


def known_layer(layer: str, known: Mapping[str, Any]) -> str:
    """A layer of capsules.

    Raises:
        ValueError: there is none of that name.
    """
    if layer not in known:
        names = ", ".join(known) or "none, the network has no capsules"
        raise ValueError(f"{layer!r} is no layer of capsules, expected one of: {names}")
    return layer


def capsules_in(output: Any) -> Any:
    """The capsules that a layer gives, alone or first of several things; None if it gives none."""
    found = output[0] if type(output) is tuple and output else output
    return found if getattr(found, "poses", None) is not None else None


def with_poses(output: Any, change: Callable[[Any], Any]) -> Any:
    """What a layer gives with its capsules' poses changed."""
    found = capsules_in(output)
    changed = found._replace(poses=change(found.poses))
    return (changed, *output[1:]) if type(output) is tuple else changed
