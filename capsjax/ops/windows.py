"""Windows that slide over a grid, and which child fills which of their slots."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Shaped

from capsjax import checks
from capsjax.ops.convolution import Padding


@checks.arguments
def windows_of(
    grid: Shaped[Array, "batch height width types *rest"],
    *,
    kernel_size: int,
    stride: int = 1,
    padding: Padding = "VALID",
) -> Shaped[Array, "batch out_height out_width slots *rest"]:
    """What every window of a grid sees.

    Args:
        grid: values of each type at each position.
        kernel_size: rows and columns of a window.
        stride: from one window to the next, in both directions.
        padding: "VALID" or "SAME" (zeros, one window for every ``stride`` positions).

    Returns:
        The values; ``slots`` is ``kernel_size**2 * types``, row after row, types last.

    Raises:
        ValueError: no window fits, or a size below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> seen = windows_of(jnp.arange(9).reshape(1, 3, 3, 1), kernel_size=2)
        >>> seen.shape, seen[0, 0, 0].tolist()
        ((1, 2, 2, 4), [0, 1, 3, 4])
    """
    pads, (height, width) = _geometry(grid.shape[1:3], kernel_size, stride, padding)
    grid = jnp.pad(grid, ((0, 0), *pads, *((0, 0),) * (grid.ndim - 3)))
    parts = [
        grid[
            :,
            row : row + stride * (height - 1) + 1 : stride,
            column : column + stride * (width - 1) + 1 : stride,
        ]
        for row in range(kernel_size)
        for column in range(kernel_size)
    ]
    return jnp.concatenate(parts, axis=3)


@checks.arguments
def slots_of(
    shape: tuple[int, int, int], *, kernel_size: int, stride: int = 1, padding: Padding = "VALID"
) -> np.ndarray:
    """The child-index table of the routing contract, for ``competition.across``.

    Args:
        shape: height, width and types of the grid.
        kernel_size: rows and columns of a window.
        stride: from one window to the next, in both directions.
        padding: "VALID" or "SAME".

    Returns:
        int32 ``[out_height, out_width, slots]``: the number of the child that fills the slot, in
        the order of the grid; -1 for padding.

    Raises:
        ValueError: no window fits, or a size below 1.

    Example:
        >>> slots_of((1, 3, 1), kernel_size=1, stride=2).ravel().tolist()
        [0, 2]
    """
    checks.sizes(height=shape[0], width=shape[1], types=shape[2], most=2**15)
    pads, (height, width) = _geometry(shape[:2], kernel_size, stride, padding)
    numbers = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    numbers = np.pad(numbers, (*pads, (0, 0)), constant_values=-1)
    rows = np.arange(height)[:, None] * stride + np.arange(kernel_size)
    columns = np.arange(width)[:, None] * stride + np.arange(kernel_size)
    picked = numbers[rows[:, None, :, None], columns[None, :, None, :]]
    return picked.reshape(height, width, -1)


@checks.arguments
def coordinates_of(
    shape: tuple[int, int, int], *, kernel_size: int, stride: int = 1, padding: Padding = "VALID"
) -> np.ndarray:
    """Where the child in each slot is: its row and column, as shares of the grid.

    The middle of the first row of n is at 1 / 2n, that of the last at 1 - 1 / 2n.

    Args:
        shape: height, width and types of the grid.
        kernel_size: rows and columns of a window.
        stride: from one window to the next, in both directions.
        padding: "VALID" or "SAME"; padding is at (0, 0).

    Returns:
        float32 ``[out_height, out_width, slots, 2]`` from 0 to 1.

    Raises:
        ValueError: no window fits, or a size below 1.

    Example:
        >>> coordinates_of((2, 2, 1), kernel_size=1).reshape(-1, 2).tolist()
        [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]
    """
    index = slots_of(shape, kernel_size=kernel_size, stride=stride, padding=padding)
    row, column, _ = np.unravel_index(np.maximum(index, 0), shape)
    places = np.stack([(row + 0.5) / shape[0], (column + 0.5) / shape[1]], axis=-1)
    return np.where(index[..., None] >= 0, places, 0).astype(np.float32)


def _geometry(
    shape: tuple[int, ...], kernel_size: int, stride: int, padding: Padding
) -> tuple[tuple[tuple[int, int], ...], tuple[int, int]]:
    """Padding of both axes, and how many windows there are."""
    if kernel_size < 1 or stride < 1:
        raise ValueError(
            f"kernel_size is {kernel_size} and stride {stride}, expected at least 1 each"
        )
    if padding not in ("VALID", "SAME"):
        raise ValueError(f"padding is {padding!r}, expected 'VALID' or 'SAME'")
    if min(shape) < 1 or kernel_size > 2 * max(shape) + 1:
        raise ValueError(
            f"kernel_size is {kernel_size} on a grid of {shape[0]}x{shape[1]}, expected a grid "
            "that is not empty, and a kernel_size of at most twice its larger side and one"
        )
    if padding == "VALID" and min(shape) < kernel_size:
        raise ValueError(
            f"a grid of {shape[0]}x{shape[1]} capsules is smaller than the window of "
            f"{kernel_size}x{kernel_size}: use larger images, a smaller kernel_size or "
            "padding='SAME'"
        )
    pads = lax.padtype_to_pads(shape, (kernel_size, kernel_size), (stride, stride), padding)
    height, width = (
        (size + sum(pad) - kernel_size) // stride + 1 for size, pad in zip(shape, pads, strict=True)
    )
    return tuple(pads), (height, width)
