"""How what a network says changes as an image is turned."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from capsjax.data import warp
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


def turned(images: np.ndarray, degrees: float) -> np.ndarray:
    """Images turned about their centres; what comes in from outside is black.

    Args:
        images: uint8 ``[N, H, W, C]``.
        degrees: counter-clockwise.

    Returns:
        uint8 ``[N, H, W, C]``.
    """
    return np.asarray(_turned(jnp.asarray(images), degrees))


@jax.jit
def _turned(images: jax.Array, degrees: float) -> jax.Array:
    matrix = warp.affine_matrix(rotation=degrees)
    moved = jax.vmap(lambda image: warp.affine(image.astype(jnp.float32), matrix))(images)
    return jnp.round(moved).astype(jnp.uint8)


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
        ValueError: no angle, labels of another shape, or images that the network cannot take.
    """
    degrees = np.asarray(angles, float)
    if degrees.ndim != 1 or len(degrees) == 0:
        raise ValueError(f"angles have shape {degrees.shape}, expected [angles], at least one")
    labels = np.asarray(labels)
    if labels.shape != (len(images),):
        raise ValueError(
            f"labels have shape {labels.shape}, expected [{len(images)}]: one an image"
        )
    seen = [see(run, turned(images, float(each))) for each in degrees]
    rows = np.arange(len(labels))
    poses = [each.poses[rows, labels] for each in seen if each.poses is not None]
    return ByAngle(
        degrees,
        np.stack([each.activations[rows, labels] for each in seen]),
        np.stack([each.activations.argmax(1) == labels for each in seen]),
        np.stack(poses) if poses else None,
    )
