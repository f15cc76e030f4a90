"""Where in the image the capsules of a layer look."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from capsjax import checks
from capsjax.inspection.inputs import known_layer
from capsjax.inspection.seeing import capsule_layers, layer_poses
from capsjax.training.run import Run
from capsjax.training.step import split

# Images of noise; what one of them leaves dead in a ReLU, another does not.
_IMAGES = 4


@checks.arguments(empty=True)
def fields(run: Run, layer: str = "primary") -> np.ndarray:
    """The pixels on which the capsules at each place of a layer depend.

    Found by the gradient at images of noise: exact for convolutions, the whole image where a layer
    normalises over it.

    Args:
        run: a network.
        layer: a path out of ``capsule_layers`` whose capsules lie in rows and columns.

    Returns:
        int ``[rows, columns, 4]``: first row and column of pixels, and the row and the column after
        the last ones.

    Raises:
        ValueError: no such layer, or one whose capsules have no places.

    Example:
        >>> from capsjax.models import capsnet
        >>> from capsjax.training import Config
        >>> from capsjax.training.run import Settings
        >>> config = capsnet.Config(features=8, kernel_size=3, primary_types=1, decoder=False)
        >>> settings = Settings("capsnet", "pets", config, Config(), (7, 7, 1), ("cat", "dog"))
        >>> fields(Run(settings.create(), settings))[0].tolist()  # kernels of 3, strides of 1 and 2
        [[0, 0, 5, 5], [0, 2, 5, 7]]
    """
    known_layer(layer, capsule_layers(run))
    graph, *state = split(run.model)
    noise = jax.random.uniform(jax.random.key(0), (_IMAGES, *run.settings.image_shape), jnp.float32)
    shape = jax.eval_shape(partial(layer_poses, graph, layer), state, noise).shape
    if len(shape) != 5:
        raise ValueError(
            f"the capsules of {layer} have no rows and columns (poses are {list(shape[1:])}): "
            "take a layer of convolutional capsules"
        )
    seen = np.asarray(_dependent(graph, layer, state, noise))
    return np.array([[_box(cell) for cell in row] for row in seen])


@partial(jax.jit, static_argnums=(0, 1))
def _dependent(graph: Any, layer: str, state: Any, images: Array) -> Array:
    """Bool ``[rows, columns, H, W]``."""
    poses, pull = jax.vjp(lambda x: layer_poses(graph, layer, state, x), images)
    rows, columns = poses.shape[1:3]
    # Weights at random: an even sum of what a normalisation gives would have no gradient.
    weights = jax.random.normal(jax.random.key(1), poses.shape, poses.dtype)

    def one(place: Array) -> Array:
        here = (jnp.arange(rows * columns) == place).reshape(1, rows, columns, 1, 1)
        (gradient,) = pull(weights * here)
        return jnp.any(gradient != 0, axis=(0, 3))

    return jax.lax.map(one, jnp.arange(rows * columns)).reshape(rows, columns, *images.shape[1:3])


def _box(seen: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    if not len(rows):
        return (0, 0, 0, 0)
    return (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
