"""Affine transformations of images on the device, bilinear: pure functions of one example.

Rows count downwards, positions and displacements are (y, x) pairs, and the centre of an image lies
at (height - 1) / 2, (width - 1) / 2.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from capsjax import checks
from capsjax.data.augment import check_floating
from capsjax.ops.precision import working_dtype

# Pixels. Without this allowance rounding would decide whether a turn by 90 degrees keeps the edges.
_EDGE = 1e-4
_SMALLEST = 1e-6  # factor of which an inverse is made
# Rows and columns of an image.
_LARGEST = 4096


@checks.arguments
def linear_map(
    rotation: Float[Array, ""] | float = 0.0,
    shear: Float[Array, ""] | float = 0.0,
    scale_y: Float[Array, ""] | float = 1.0,
    scale_x: Float[Array, ""] | float = 1.0,
) -> Float[Array, "2 2"]:
    r"""Where a transformation takes a point, in (y, x) from the centre: it scales, shears, rotates.

    .. math::
        F = \begin{pmatrix} \cos r & -\sin r \\ \sin r & \cos r \end{pmatrix}
            \begin{pmatrix} 1 & 0 \\ h & 1 \end{pmatrix}
            \begin{pmatrix} s_y & 0 \\ 0 & s_x \end{pmatrix}

    Args:
        rotation: r in degrees, counter-clockwise as one sees it.
        shear: h, pixels to the right for every pixel down.
        scale_y: vertical factor; 2 makes things twice as high.
        scale_x: horizontal factor; 2 makes things twice as wide.

    Returns:
        F ``[2, 2]``, float32 unless a parameter is float64.
    """
    angle = jnp.deg2rad(rotation)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    turn = [[cosine, -sine], [sine, cosine]]
    rows = [[scale_y * (a + b * shear), scale_x * b] for a, b in turn]
    return jnp.stack([jnp.stack(row) for row in rows])


@checks.arguments
def affine_matrix(
    rotation: Float[Array, ""] | float = 0.0,
    shear: Float[Array, ""] | float = 0.0,
    scale_y: Float[Array, ""] | float = 1.0,
    scale_x: Float[Array, ""] | float = 1.0,
    shift_y: Float[Array, ""] | float = 0.0,
    shift_x: Float[Array, ""] | float = 0.0,
) -> Float[Array, "2 3"]:
    """The matrix with which ``affine`` scales, shears, rotates and then shifts an image.

    Args:
        rotation: as for ``linear_map``, degrees counter-clockwise.
        shear: as for ``linear_map``, pixels to the right for every pixel down.
        scale_y: vertical factor.
        scale_x: horizontal factor.
        shift_y: pixels down, after all else.
        shift_x: pixels to the right, after all else.

    Returns:
        ``[2, 3]``: the inverse of ``linear_map``'s F, and beside it -F^-1 shift.

    Raises:
        ValueError: a number for a scale that is 0, or nearly so: it has no inverse. Scales in
            arrays are not looked at.

    Example:
        >>> image = jnp.arange(9.0).reshape(3, 3, 1)
        >>> affine(image, affine_matrix(rotation=90))[..., 0].round()
        Array([[2., 5., 8.],
               [1., 4., 7.],
               [0., 3., 6.]], dtype=float32)
    """
    for name, scale in {"scale_y": scale_y, "scale_x": scale_x}.items():
        if isinstance(scale, (int, float)) and abs(scale) < _SMALLEST:
            raise ValueError(
                f"{name} is {scale}, expected at least {_SMALLEST}, or as much below 0"
            )
    forward = linear_map(rotation, shear, scale_y, scale_x)
    adjugate = jnp.stack(
        [
            jnp.stack([forward[1, 1], -forward[0, 1]]),
            jnp.stack([-forward[1, 0], forward[0, 0]]),
        ]
    )
    inverse = adjugate / (scale_y * scale_x)
    offset = -(inverse[:, 0] * shift_y + inverse[:, 1] * shift_x)
    return jnp.concatenate([inverse, offset[:, None]], 1)


@checks.arguments
def affine(
    image: Float[Array, "h w c"],
    matrix: Float[Array, "2 3"],
    *,
    size: tuple[int, int] | None = None,
) -> Float[Array, "rows columns c"]:
    """Warp an image: each pixel of the result is looked up in the image, bilinearly.

    The pixel at p of the result, counted from its centre in (y, x), is the image's value at
    ``matrix[:, :2] @ p + matrix[:, 2]`` from the image's centre. Beyond the centres of the
    outermost pixels the image is 0, with no interpolation in between, which is SciPy's
    ``affine_transform(order=1, mode="constant")``.

    Args:
        image: ``[height, width, channels]``, floating, at least 2x2 pixels.
        matrix: ``[2, 3]``; ``affine_matrix`` makes one.
        size: rows and columns of the result; None keeps the image's.

    Returns:
        ``[*size, channels]``, same dtype.

    Raises:
        ValueError: the image is not floating (rounding is left to the caller) or smaller than 2x2,
            or the matrix is not ``[2, 3]``.
    """
    check_floating(image)
    height, width, channels = image.shape
    rows, columns = size or (height, width)
    checks.sizes(most=_LARGEST, rows=rows, columns=columns)
    if matrix.shape != (2, 3) or height < 2 or width < 2:
        raise ValueError(
            f"matrix has shape {matrix.shape} and the image {image.shape}, expected (2, 3) and at "
            "least 2x2 pixels"
        )
    both = working_dtype(image.dtype), working_dtype(matrix.dtype)
    working = max(both, key=lambda dtype: dtype.itemsize)
    y, x = (jnp.arange(n, dtype=working) - (n - 1) / 2 for n in (rows, columns))
    row, column = (
        m[0] * y[:, None] + m[1] * x[None, :] + m[2] + (n - 1) / 2
        for m, n in zip(matrix.astype(working), (height, width), strict=True)
    )
    inside = _within(row, height) & _within(column, width)
    row, column = jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)
    top = jnp.minimum(jnp.floor(row), height - 2)
    left = jnp.minimum(jnp.floor(column), width - 2)
    below, right = (row - top)[..., None], (column - left)[..., None]
    index = (top * width + left).astype(jnp.int32)
    pixels = image.astype(working).reshape(height * width, channels)
    upper = (1 - right) * pixels[index] + right * pixels[index + 1]
    lower = (1 - right) * pixels[index + width] + right * pixels[index + width + 1]
    blended = (1 - below) * upper + below * lower
    return jnp.where(inside[..., None], blended, 0).astype(image.dtype)


@checks.arguments
def draw_linear(
    key: Array, *, rotation: float = 0.0, shear: float = 0.0, scale: tuple[float, float] = (1, 1)
) -> Float[Array, "4"]:
    """Random rotation, shear, vertical and horizontal scale, each uniform, for ``linear_map``.

    Args:
        key: a JAX random key.
        rotation: largest rotation in degrees, either way.
        shear: largest shear, either way.
        scale: smallest and largest scale; one is drawn for each axis.

    Returns:
        float32 ``[4]``: rotation, shear, scale_y, scale_x.
    """
    low = jnp.array([-rotation, -shear, scale[0], scale[0]], jnp.float32)
    high = jnp.array([rotation, shear, scale[1], scale[1]], jnp.float32)
    return jax.random.uniform(key, (4,), jnp.float32, low, high)


@checks.arguments
def random_affine(
    key: Array,
    image: Float[Array, "h w c"],
    *,
    rotation: float = 0.0,
    shear: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    shift: float = 0.0,
    size: tuple[int, int] | None = None,
) -> Float[Array, "rows columns c"]:
    """Rotate, shear, scale and shift an image at random, all parameters uniform.

    Args:
        key: a JAX random key.
        image: ``[height, width, channels]``, floating, at least 2x2 pixels.
        rotation: largest rotation in degrees, either way.
        shear: largest shear, either way.
        scale: smallest and largest scale; one is drawn for each axis.
        shift: largest shift in pixels, either way; need not be whole.
        size: rows and columns of the result; None keeps the image's.

    Returns:
        ``[*size, channels]``, same dtype; outside of the image is 0.

    Raises:
        ValueError: as for ``affine``.
    """
    linear_key, shift_key = jax.random.split(key)
    linear = draw_linear(linear_key, rotation=rotation, shear=shear, scale=scale)
    offset = jax.random.uniform(shift_key, (2,), jnp.float32, -shift, shift)
    return affine(image, affine_matrix(*linear, *offset), size=size)


def _within(position: Array, size: int) -> Array:
    return (position >= -_EDGE) & (position <= size - 1 + _EDGE)
