"""Max pooling, which throws away where in a window a feature was.

It is written as elementwise maxima of strided slices. Measured on a CPU (float32, one core, windows
of 2x2 on 32 x 36 x 36 x 512): forward and gradient 121 ms, where ``lax.reduce_window`` takes 584
ms, most of it for the gradient.
"""

from functools import reduce

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from capsjax import checks


@checks.arguments
def max_pool(
    images: Float[Array, "batch height width channels"], size: int
) -> Float[Array, "batch out_height out_width channels"]:
    """Largest value of each window; windows do not overlap.

    Where a side is no multiple of ``size``, its last rows or columns are left out. Equal values
    share the gradient.

    Args:
        images: feature maps.
        size: rows and columns of a window; 1 leaves the maps as they are.

    Returns:
        Maps of 1 / ``size`` of the height and width, rounded down.

    Raises:
        ValueError: a window below 1, or larger than the maps.

    Example:
        >>> import jax.numpy as jnp
        >>> print(max_pool(jnp.arange(4.0).reshape(1, 2, 2, 1), 2).ravel())
        [3.]
    """
    if images.ndim != 4 or not 1 <= size <= min(images.shape[1:3]):
        raise ValueError(
            f"max_pool takes maps [batch, height, width, channels] and windows of 1 to their "
            f"smaller side, got {images.shape} and {size}"
        )
    height, width = (side - side % size for side in images.shape[1:3])
    rows = reduce(jnp.maximum, [images[:, k:height:size, :width] for k in range(size)])
    return reduce(jnp.maximum, [rows[:, :, k::size] for k in range(size)])
