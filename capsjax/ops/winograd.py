r"""Convolutions with fewer multiplications (Winograd; Lavin and Gray 2016, arXiv 1509.09308).

Several neighbouring outputs of a convolution share inputs. In one dimension, ``outputs`` of them
under a kernel of ``taps`` are a product of two polynomials, which is known from its values at
:math:`n = \mathrm{outputs} + \mathrm{taps} - 1` points (Toom and Cook): n multiplications in place
of outputs * taps,

.. math:: y = A^T \big[(G g) \odot (B^T d)\big],

and the same along the other axis. With channels each of the :math:`n^2` multiplications is a matrix
product. A convolution of stride s is one of stride 1 over images whose s x s neighbours are folded
into the channels, by a kernel folded alike (zeros fill it up).

What it costs is rounding: values at the points are larger than what comes of them. Measured against
float64, as shares of the outputs' standard deviation, 9x9 of stride 2, 256 -> 256, largest of all:
1.7e-5 with 2 x 2 outputs, 2e-6 by plain sums (float32). With more than 6 points it is far more.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from capsjax.ops.patches import output_size

# Where the polynomials are evaluated, infinity aside; small ones round least. 1/2 and -2 are better
# than 2 and -2 (1.7e-5 against 2.8e-5 above).
_POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2))


class Matrices(NamedTuple):
    """Of the minimal algorithm in one dimension.

    Attributes:
        output: A, ``[n, outputs]``.
        kernel: G, ``[n, taps]``.
        image: the transpose of B, ``[n, n]``.
    """

    output: np.ndarray
    kernel: np.ndarray
    image: np.ndarray


@lru_cache
def matrices(outputs: int, taps: int) -> Matrices:
    """The three matrices, computed exactly and rounded once to float64.

    Args:
        outputs: how many are computed together.
        taps: of the kernel.

    Returns:
        The matrices.

    Raises:
        ValueError: more than six points, or none.

    Example:
        >>> m = matrices(2, 3)
        >>> signal, kernel = [1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 2.0]
        >>> (m.output.T @ ((m.kernel @ kernel) * (m.image @ signal))).tolist()
        [7.0, 10.0]
    """
    count = outputs + taps - 1
    if outputs < 1 or taps < 1 or count > len(_POINTS) + 1:
        raise ValueError(
            f"outputs is {outputs} and taps {taps}, expected at least 1 of each and together at "
            f"most {len(_POINTS) + 2}"
        )
    points = _POINTS[: count - 1]
    output, kernel, image = [], [], []
    for i, point in enumerate(points):
        others = [*points[:i], *points[i + 1 :]]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        output.append([point**power for power in range(outputs)])
        kernel.append([point**power / scale for power in range(taps)])
        image.append([*_with_roots(others), Fraction(0)])
    output.append([Fraction(power == outputs - 1) for power in range(outputs)])
    kernel.append([Fraction(power == taps - 1) for power in range(taps)])
    image.append(_with_roots(points))
    return Matrices(*(np.array(rows, np.float64) for rows in (output, kernel, image)))


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients, the constant first, of the monic polynomial with these roots."""
    coefficients = [Fraction(1)]
    for root in roots:
        raised = [Fraction(0), *coefficients]
        lowered = [root * c for c in coefficients] + [Fraction(0)]
        coefficients = [a - b for a, b in zip(raised, lowered, strict=True)]
    return coefficients


class _Plan(NamedTuple):
    """How a convolution is cut into tiles, after folding: strides are 1 and kernels square.

    Attributes:
        stride: that is folded away.
        taps: rows, and columns, of the folded kernel.
        outputs: how many are computed together, per axis.
        size: height and width of the output.
    """

    stride: int
    taps: int
    outputs: int
    size: tuple[int, int]

    @property
    def rows(self) -> int:
        """Tiles along the height; they cover the output and may reach beyond it."""
        return -(-self.size[0] // self.outputs)

    @property
    def columns(self) -> int:
        """Tiles along the width."""
        return -(-self.size[1] // self.outputs)

    @property
    def matrices(self) -> Matrices:
        """Of this size."""
        return matrices(self.outputs, self.taps)

    @property
    def points(self) -> int:
        """Per axis."""
        return self.outputs + self.taps - 1

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the folded images that the tiles cover."""
        reach = self.taps - 1
        return self.rows * self.outputs + reach, self.columns * self.outputs + reach


def forward(images: Array, kernel: Array, stride: int, *, outputs: int) -> Array:
    """The convolution.

    Args:
        images: float ``[batch, height, width, channels]``.
        kernel: float ``[rows, columns, channels, features]``.
        stride: of both axes.
        outputs: how many are computed together, per axis.

    Returns:
        ``[batch, out_height, out_width, features]``.
    """
    plan = _plan(images.shape, kernel.shape, stride, outputs)
    products = _batched(_image_values(images, plan), _kernel_values(kernel, plan), 2, 1)
    tiles = _both(plan.matrices.output.T, products)
    tiles = tiles.reshape(outputs, outputs, len(images), plan.rows, plan.columns, -1)
    whole = jnp.transpose(tiles, (2, 3, 0, 4, 1, 5))
    whole = whole.reshape(len(images), plan.rows * outputs, plan.columns * outputs, -1)
    return whole[:, : plan.size[0], : plan.size[1]]


def kernel_gradient(
    images: Array, kernel: tuple[int, ...], gradient: Array, stride: int, *, outputs: int
) -> Array:
    """What the output's gradient is for the kernel.

    Args:
        images: float ``[batch, height, width, channels]``.
        kernel: its shape.
        gradient: float ``[batch, out_height, out_width, features]``.
        stride: of both axes.
        outputs: how many are computed together, per axis.

    Returns:
        Of the kernel's shape.
    """
    plan = _plan(images.shape, kernel, stride, outputs)
    # This order is the faster one (9x9, 256 -> 256: 66 ms, 100 the other way round).
    products = _batched(_gradient_values(gradient, plan), _image_values(images, plan), 1, 1)
    products = jnp.swapaxes(products, 1, 2)
    taps = plan.taps
    folded = _both(plan.matrices.kernel.T, products)
    folded = folded.reshape(taps, taps, stride, stride, kernel[2], kernel[3])
    whole = jnp.transpose(folded, (0, 2, 1, 3, 4, 5))
    whole = whole.reshape(taps * stride, taps * stride, kernel[2], kernel[3])
    return whole[: kernel[0], : kernel[1]]


def images_gradient(
    images: tuple[int, ...], kernel: Array, gradient: Array, stride: int, *, outputs: int
) -> Array:
    """What the output's gradient is for the images.

    Args:
        images: their shape.
        kernel: float ``[rows, columns, channels, features]``.
        gradient: float ``[batch, out_height, out_width, features]``.
        stride: of both axes.
        outputs: how many are computed together, per axis.

    Returns:
        Of the images' shape.
    """
    plan = _plan(images, kernel.shape, stride, outputs)
    products = _batched(_gradient_values(gradient, plan), _kernel_values(kernel, plan), 2, 2)
    points = plan.points
    tiles = products.reshape(points, points, images[0], plan.rows, plan.columns, -1)
    spread = plan.matrices.image.T
    lines = [
        _overlap(_mix(spread, list(tiles[row])), 2, plan.outputs, plan.sides[1])
        for row in range(points)
    ]
    folded = _overlap(_mix(spread, lines), 1, plan.outputs, plan.sides[0])
    whole = folded.reshape(images[0], *plan.sides, stride, stride, images[3])
    whole = jnp.transpose(whole, (0, 1, 3, 2, 4, 5))
    whole = whole.reshape(images[0], *(side * stride for side in plan.sides), images[3])
    return _fitted(whole, images[1:3])


def _plan(images: tuple[int, ...], kernel: tuple[int, ...], stride: int, outputs: int) -> _Plan:
    taps = -(-max(kernel[:2]) // stride)
    return _Plan(stride, taps, outputs, output_size(images, kernel, stride))


def _image_values(images: Array, plan: _Plan) -> Array:
    """The images' polynomials at all points: [points ** 2, tiles, folded channels]."""
    stride, points, outputs = plan.stride, plan.points, plan.outputs
    batch, *_, channels = images.shape
    height, width = plan.sides
    filled = _fitted(images, (height * stride, width * stride))
    folded = filled.reshape(batch, height, stride, width, stride, channels)
    folded = jnp.transpose(folded, (0, 1, 3, 2, 4, 5)).reshape(batch, height, width, -1)

    def windows(array: Array, axis: int, count: int) -> list[Array]:
        last = outputs * (count - 1) + 1
        return [
            lax.slice_in_dim(array, start, start + last, outputs, axis) for start in range(points)
        ]

    mixed = jnp.stack(_mix(plan.matrices.image, windows(folded, 2, plan.columns)))
    # Kept apart, or XLA computes each column again for every row (50 ms become 24 above).
    mixed = lax.optimization_barrier(mixed)
    values = jnp.stack(_mix(plan.matrices.image, windows(mixed, 2, plan.rows)))
    return values.reshape(points**2, batch * plan.rows * plan.columns, folded.shape[3])


def _kernel_values(kernel: Array, plan: _Plan) -> Array:
    """The kernel's polynomials at all points: [points ** 2, folded channels, features]."""
    stride, taps = plan.stride, plan.taps
    *_, channels, features = kernel.shape
    filled = _fitted(kernel[None], (taps * stride, taps * stride))[0]
    folded = filled.reshape(taps, stride, taps, stride, channels, features)
    folded = jnp.transpose(folded, (0, 2, 1, 3, 4, 5))
    return _both(plan.matrices.kernel, folded.reshape(taps**2, -1, features))


def _gradient_values(gradient: Array, plan: _Plan) -> Array:
    """The output's gradient at all points: [points ** 2, tiles, features]."""
    batch, *_, features = gradient.shape
    outputs, rows, columns = plan.outputs, plan.rows, plan.columns
    filled = _fitted(gradient, (rows * outputs, columns * outputs))
    tiles = filled.reshape(batch, rows, outputs, columns, outputs, features)
    tiles = jnp.transpose(tiles, (2, 4, 0, 1, 3, 5))
    return _both(plan.matrices.output, tiles.reshape(outputs**2, -1, features))


def _batched(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    """One matrix product for each point."""
    axes = (((left_axis,), (right_axis,)), ((0,), (0,)))
    return lax.dot_general(left, right, axes)


def _both(matrix: np.ndarray, values: Array) -> Array:
    """A matrix applied to both of the two axes that lie together in the first."""
    whole = jnp.asarray(np.kron(matrix, matrix), values.dtype)
    return (whole @ values.reshape(values.shape[0], -1)).reshape(-1, *values.shape[1:])


def _mix(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """Sums of the arrays, one for each row of the matrix, weighted by it."""
    mixed = []
    for row in matrix:
        terms = [
            array if weight == 1 else array * jnp.asarray(weight, array.dtype)
            for weight, array in zip(row, arrays, strict=True)
            if weight
        ]
        mixed.append(_total(terms))
    return mixed


def _overlap(parts: Sequence[Array], axis: int, step: int, size: int) -> Array:
    """Sum of the tiles where they overlap: part k of tile t belongs to place t * step + k."""
    reach = -(-len(parts) // step)
    phases = []
    for phase in range(step):
        shifted = []
        for places, part in enumerate(parts[phase::step]):
            widths = [(0, 0)] * part.ndim
            widths[axis] = (places, reach - 1 - places)
            shifted.append(jnp.pad(part, widths))
        phases.append(_total(shifted))
    whole = jnp.stack(phases, axis + 1)
    shape = (*whole.shape[:axis], -1, *whole.shape[axis + 2 :])
    return lax.slice_in_dim(whole.reshape(shape), 0, size, axis=axis)


def _fitted(array: Array, size: tuple[int, ...]) -> Array:
    """Axes 1 and 2 cut, or filled up with zeros, to a size."""
    cut = array[:, : size[0], : size[1]]
    short = ((0, size[0] - cut.shape[1]), (0, size[1] - cut.shape[2]))
    return jnp.pad(cut, ((0, 0), *short, (0, 0), *(((0, 0),) * (array.ndim - 4))))


def _total(arrays: Sequence[Array]) -> Array:
    return sum(arrays[1:], start=arrays[0])
