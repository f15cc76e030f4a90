"""Batch normalisation of features and capsules."""

from typing import Any

from flax import nnx
from jax import Array


class BatchNorm(nnx.BatchNorm):
    """Flax's, in the dtype of what comes in: the running statistics may have a wider one."""

    def __call__(self, x: Array, *args: Any, **options: Any) -> Array:
        """As Flax's."""
        return super().__call__(x, *args, **options).astype(x.dtype)


class TypeNorm(nnx.Module):
    """Batch normalisation of poses, with one mean and variance for each capsule type.

    The statistics are taken over examples, positions and the entries of a pose.

    Args:
        types: capsule types.
        affine: learn a scale and an offset for each type.
        epsilon: added to each variance.
        rngs: takes keys of the stream ``params``.

    Source: Ribeiro, Leontidis and Kollias 2020, section 4, and their code.
    """

    def __init__(self, types: int, *, affine: bool = False, epsilon: float = 1e-5, rngs: nnx.Rngs):
        self.norm = BatchNorm(
            types,
            momentum=0.9,
            epsilon=epsilon,
            use_scale=affine,
            use_bias=affine,
            rngs=rngs,
        )

    def __call__(self, poses: Array) -> Array:
        """Poses ``[batch, ..., types, dim]``, normalised."""
        return self.norm(poses.swapaxes(-1, -2)).swapaxes(-1, -2)
