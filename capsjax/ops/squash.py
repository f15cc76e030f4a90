"""Norm and squashing that stay finite, in value and in gradient, over a dtype's whole range.

The textbook forms fail in three places: the gradient of a square root at 0 is infinite, a square
overflows from about 1e19 in float32, and bfloat16 has too few bits for the sum of squares. Here the
vector is divided by its largest entry before squaring, a half-precision input is computed in
float32, and 0 has the gradient 0.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float


def _as_working_precision(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


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
        >>> float(safe_norm(jnp.array([3e15, 4e15]))) == 5e15
        True
        >>> jax.grad(safe_norm)(jnp.zeros(2)).tolist()
        [0.0, 0.0]
    """
    return _norm(_as_working_precision(x), axis, keepdims).astype(x.dtype)


def _norm(x: Array, axis: int, keepdims: bool) -> Array:
    # The norm does not depend on the divisor, so no gradient needs to flow through it.
    largest = lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True))
    divisor = jnp.where(largest > 0, largest, 1)
    total = jnp.sum(jnp.square(x / divisor), axis=axis, keepdims=True)
    # total is 0, or at least 1: the inner `where` keeps sqrt's infinite gradient at 0 out.
    norm = divisor * jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1)), 0)
    return norm if keepdims else jnp.squeeze(norm, axis)


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
    s = _as_working_precision(x)
    norm = _norm(s, axis, keepdims=True)
    # |s| / (1 + |s|^2) is the same for |s| and 1/|s|; with the smaller of both nothing overflows.
    smaller = jnp.where(norm > 1, 1 / jnp.where(norm > 1, norm, 1), norm)
    return (s * (smaller / (1 + jnp.square(smaller)))).astype(x.dtype)
