"""In which dtype to compute."""

from typing import Any

import jax.numpy as jnp


def working_dtype(dtype: Any) -> Any:
    """What to compute in where inputs are of a dtype: float32 at least.

    ``jnp.promote_types`` says so too, but for ``jax_numpy_dtype_promotion="strict"``, under which
    it refuses any two dtypes.

    Args:
        dtype: a floating one.

    Returns:
        float32 for a narrower one, else the same.

    Raises:
        ValueError: it is not floating.

    Example:
        >>> print(working_dtype("bfloat16"), working_dtype("float64"))
        float32 float64
    """
    try:
        narrow = jnp.finfo(dtype).bits < 32
    except (TypeError, ValueError) as error:
        raise ValueError(f"dtype is {dtype!r}, expected a floating one, as float32") from error
    return jnp.dtype(jnp.float32 if narrow else dtype)
