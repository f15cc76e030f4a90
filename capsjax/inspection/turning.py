"""How what a network says changes as an image is turned."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from capsjax import checks
from capsjax.data import warp
from capsjax.inspection.inputs import check_labels, checked
from capsjax.inspection.seeing import see
from capsjax.training.run import Run


class ByAngle(NamedTuple):
    """What a network says of turned images.

    Attributes:
        angles: ``[angles]`` degrees, counter-clockwise.
        confidence: ``[angles, N]``, the activation of the true class.
        right: bool ``[angles, N]``, whether it is the most active one.
        poses: ``[angles, N, dim]`` of the true class's capsule; None in a network without capsules.
    """

    angles: np.ndarray
    confidence: np.ndarray
    right: np.ndarray
    poses: np.ndarray | None


@checks.arguments(empty=True)
def moved(
    images: np.ndarray,
    *,
    rotation: float = 0,
    scale: float = 1,
    shift_y: float = 0,
    shift_x: float = 0,
) -> np.ndarray:
    """Images turned, scaled and shifted about their centres; what comes in from outside is black.

    Args:
        images: uint8 ``[N, H, W, C]``.
        rotation: degrees counter-clockwise.
        scale: 2 is twice as large.
        shift_y: pixels down.
        shift_x: pixels to the right.

    Returns:
        uint8 ``[N, H, W, C]``.

    Raises:
        ValueError: images of another dtype or rank.

    Example:
        >>> images = np.array([[1, 2], [3, 4]], np.uint8)[None, :, :, None]
        >>> moved(images, shift_x=1)[0, :, :, 0].tolist()
        [[0, 1], [0, 3]]
        >>> moved(images, rotation=90)[0, :, :, 0].tolist()
        [[2, 4], [1, 3]]
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images are {images.dtype} {images.shape}, expected uint8 [N, H, W, C]")
    # As floats: of whole numbers JAX would compile it anew, and again of each mixture.
    return np.asarray(_moved(images, *map(float, (rotation, scale, shift_y, shift_x))))


@jax.jit
def _moved(
    images: jax.Array, rotation: float, scale: float, shift_y: float, shift_x: float
) -> jax.Array:
    matrix = warp.affine_matrix(
        rotation=rotation, scale_y=scale, scale_x=scale, shift_y=shift_y, shift_x=shift_x
    )
    found = jax.vmap(lambda image: warp.affine(image.astype(jnp.float32), matrix))(images)
    return jnp.round(found).astype(jnp.uint8)


@checks.arguments(empty=True)
def by_angle(
    run: Run, images: np.ndarray, labels: np.ndarray, angles: Sequence[float] | np.ndarray
) -> ByAngle:
    """Turn images, and ask a network for each.

    Args:
        run: the trained network.
        images: uint8 ``[N, H, W, C]``.
        labels: int ``[N]``, their classes.
        angles: degrees, counter-clockwise.

    Returns:
        Confidence and correctness at every angle, and the poses.

    Raises:
        ValueError: no angle, or images or labels that the network cannot take.

    Example:
        >>> from capsjax import data, load_pretrained
        >>> run = load_pretrained("efficient_capsnet_mnist")
        >>> test = data.load("mnist", "test")
        >>> turned = by_angle(run, test["image"][:5], test["label"][:5], [0, 90])
        >>> turned.right[0].tolist(), turned.confidence.shape, turned.poses.shape
        ([True, True, True, True, True], (2, 5), (2, 5, 16))
    """
    degrees = np.asarray(angles, float)
    if degrees.ndim != 1 or len(degrees) == 0:
        raise ValueError(f"angles have shape {degrees.shape}, expected [angles], at least one")
    images = checked(run, images)
    labels = check_labels(labels, len(images), len(run.settings.class_names))
    seen = [see(run, moved(images, rotation=float(each))) for each in degrees]
    rows = np.arange(len(labels))
    poses = [each.poses[rows, labels] for each in seen if each.poses is not None]
    return ByAngle(
        degrees,
        np.stack([each.activations[rows, labels] for each in seen]),
        np.stack([each.activations.argmax(1) == labels for each in seen]),
        np.stack(poses) if poses else None,
    )
