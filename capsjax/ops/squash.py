"""Norm and squashing that stay finite, in value and in gradient, over a dtype's whole range.

The textbook forms fail in three places: the gradient of a square root at 0 is infinite, a square
overflows from about 1e19 in float32, and bfloat16 has too few bits for the sum of squares. Here the
vector is divided by its largest entry before squaring, a half-precision input is computed in
float32, and 0 has the gradient 0.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from capsjax import checks
from capsjax.ops.precision import working_dtype

# Of ``squash_exponential``: its series' next term is below float64's rounding there.
_SERIES_BELOW = 1e-2


def _as_working_precision(x: Array) -> Array:
    return x.astype(working_dtype(x.dtype))


@checks.arguments
def safe_norm(x: Float[Array, "..."], *, axis: int = -1, keepdims: bool = False) -> Array:
    """Euclidean norm along an axis.

    Args:
        x: ``[..., dim, ...]`` float of any precision.
        axis: the axis of the vectors.
        keepdims: keep that axis with size 1.

    Returns:
        ``[..., ...]`` of x's dtype. The gradient is ``x / |x|``, and 0 at the zero vector.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(f"{safe_norm(jnp.array([3e25, 4e25])):.3g}")  # its square overflows float32
        5e+25
        >>> jax.grad(safe_norm)(jnp.zeros(2)).tolist()
        [0.0, 0.0]
    """
    _, divisor, root = _scale(_as_working_precision(x), axis)
    norm = (divisor * root).astype(x.dtype)
    return norm if keepdims else jnp.squeeze(norm, axis)


def _scale(x: Array, axis: int) -> tuple[Array, Array, Array]:
    """Returns x / divisor, divisor and |x / divisor|; the last is 0, or from 1 to 4 sqrt(dim).

    Norm and squash do not depend on the divisor, so no gradient needs to flow through it.
    """
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis is {axis}, expected {-x.ndim} to {x.ndim - 1} for shape {x.shape}")
    largest = lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True))
    # Beyond 1 / tiny the divisor's inverse would be flushed to 0.
    divisor = jnp.minimum(jnp.where(largest > 0, largest, 1), 1 / jnp.finfo(x.dtype).tiny)
    scaled = x / divisor
    total = jnp.sum(jnp.square(scaled), axis=axis, keepdims=True)
    # The inner `where` keeps sqrt's infinite gradient at 0 out; a NaN is no 0 and stays one.
    some = total != 0
    root = jnp.where(some, jnp.sqrt(jnp.where(some, total, 1)), 0)
    return scaled, divisor, root


@checks.arguments
def squash(x: Float[Array, "..."], *, axis: int = -1) -> Array:
    r"""Shrink vectors to a length below 1, keeping their direction.

    .. math:: v = \frac{|s|^2}{1 + |s|^2} \frac{s}{|s|}

    Args:
        x: ``[..., dim, ...]`` float of any precision, the vectors s.
        axis: the axis of the vectors.

    Returns:
        The squashed vectors v, of x's shape and dtype; lengths are at most 1 up to rounding.

    Source: Sabour, Frosst and Hinton 2017, equation 1.

    Example:
        >>> import jax.numpy as jnp
        >>> v = squash(jnp.array([0.6, 0.8]))  # length 1 becomes 1/2
        >>> [round(float(a), 3) for a in v]
        [0.3, 0.4]
    """
    scaled, divisor, root = _scale(_as_working_precision(x), axis)
    norm = divisor * root
    # v = s |s| / (1 + |s|^2) for short vectors, (s / |s|) / (1 + 1 / |s|^2) for long ones, each
    # with all branches finite: a `where` passes a NaN gradient on from the one not taken.
    long = norm > 1
    short_norm = jnp.where(long, 0, norm)
    long_inverse = jnp.where(long, 1 / jnp.where(long, norm, 1), 0)
    gain = jnp.where(long, 1 / jnp.where(long, root, 1), divisor * short_norm)
    return (scaled * (gain / (1 + jnp.square(short_norm + long_inverse)))).astype(x.dtype)


@checks.arguments
def squash_exponential(x: Float[Array, "..."], *, axis: int = -1) -> Array:
    r"""Shrink vectors to a length below 1; short ones keep more of their length than by ``squash``.

    .. math:: v = \Big(1 - e^{-|s|}\Big) \frac{s}{|s|}

    Args:
        x: ``[..., dim, ...]`` float of any precision, the vectors s.
        axis: the axis of the vectors.

    Returns:
        The squashed vectors v, of x's shape and dtype; lengths are at most 1 up to rounding.

    Source: Mazzia, Salvetti and Chiaberge 2021, equation 8.

    Example:
        >>> import jax.numpy as jnp
        >>> v = squash_exponential(jnp.array([0.6, 0.8]))  # length 1 becomes 1 - 1/e
        >>> print(round(float(safe_norm(v)), 3))
        0.632
    """
    scaled, divisor, root = _scale(_as_working_precision(x), axis)
    norm = divisor * root
    # (1 - e^-n) / n as a series where its gradient's terms would cancel, and e^-n / |s / divisor|
    # where n is beyond it; as in ``squash``, both with all branches finite.
    long = norm > _SERIES_BELOW
    n = jnp.where(long, 0, norm)
    series = jnp.ones_like(n)
    for k in range(7, 1, -1):
        series = 1 - n / k * series
    gain = -jnp.expm1(-jnp.where(long, norm, 1)) / jnp.where(long, root, 1)
    return (scaled * jnp.where(long, gain, divisor * series)).astype(x.dtype)
