"""From the children's poses to the votes that they cast for their parents.

Votes have the children on the last axis, ``[batch, parents, dim, children]``: every contraction of
a routing runs along them. These functions take the batch axis because their weight gradient
contracts over it.

On a CPU the plain contraction (batched over children, which lie innermost) is compiled into
transposes and many tiny products. Measured there for CapsNet's 1,152 x 8 -> 10 x 16 at batch 64
(float32, 2 cores): forward 71 ms by einsum, 25 ms as fused multiply-adds; gradients of weights and
poses 46 + 47 ms by einsum, 8 + 14 ms as loops over examples' rows and over parents that keep their
sum in the cache. For the 1,152 windows of matrix capsules, 72 x 4x4 -> 16 x 4x4, on one core:
gradients 17 ms of weights; of poses 26 ms as a loop over examples, 122 ms over parents. Other
platforms get the einsums.

Sums run in float32 where the inputs are narrower (bfloat16), and are rounded once, at their end.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from capsjax import checks
from capsjax.ops.precision import working_dtype


@checks.arguments(together=False)
def dense_votes(
    poses: Float[Array, "batch children child_dim"],
    weights: Float[Array, "inner parents columns children"],
    *,
    rows: int = 1,
) -> Float[Array, "batch parents dim children"]:
    r"""Votes of every child for every parent, each through its own matrix.

    .. math:: \hat u_{j|i} = W_{ij} u_i, \qquad V_{ij} = M_i W_{ij}

    A vector pose is one row, multiplied from the right. A matrix pose has several, each of
    ``inner`` numbers, one row after the other, and so has its vote.

    Args:
        poses: the children's poses u or M; ``child_dim`` is ``rows * inner``.
        weights: one matrix for each pair of child and parent, children last.
        rows: of a pose; 1 for vectors.

    Returns:
        The votes, in the dtype of the inputs; ``dim`` is ``rows * columns``.

    Raises:
        ValueError: poses and weights disagree about the number of children or their dimension.

    Source: Sabour, Frosst and Hinton 2017, equation 2; Hinton, Sabour and Frosst 2018, section 2.

    Example:
        >>> import jax.numpy as jnp
        >>> poses, weights = jnp.ones((2, 3, 8)), jnp.ones((8, 10, 16, 3))  # 3 children, 10 parents
        >>> dense_votes(poses, weights).shape
        (2, 10, 16, 3)
        >>> poses, weights = jnp.ones((2, 3, 16)), jnp.ones((4, 10, 4, 3))  # matrices of 4x4
        >>> dense_votes(poses, weights, rows=4).shape
        (2, 10, 16, 3)
    """
    _check(poses, weights, rows)
    batch, children, _ = poses.shape
    inner, parents, columns, _ = weights.shape
    votes = _votes(jnp.moveaxis(poses.reshape(batch, children, rows, inner), 1, 3), weights)
    return votes.reshape(batch, parents, rows * columns, children)


@checks.arguments(together=False)
def shared_votes(
    poses: Float[Array, "batch positions children child_dim"],
    weights: Float[Array, "inner parents columns children"],
    *,
    rows: int = 1,
) -> Float[Array, "batch parents dim all"]:
    """Votes of children at many positions that share their matrices, for the same parents.

    Args:
        poses: as for ``dense_votes``, at each position.
        weights: one matrix for each pair of child and parent.
        rows: of a pose; 1 for vectors.

    Returns:
        The votes; the last axis has ``positions * children``, position after position.

    Raises:
        ValueError: poses and weights disagree about the number of children or their dimension.

    Source: Hinton, Sabour and Frosst 2018, section 4 (the class capsules' matrices).

    Example:
        >>> import jax.numpy as jnp
        >>> poses, weights = jnp.ones((2, 36, 3, 8)), jnp.ones((8, 10, 16, 3))
        >>> shared_votes(poses, weights).shape  # 36 positions, 3 children at each
        (2, 10, 16, 108)
    """
    if poses.ndim != 4:
        raise ValueError(
            f"shared_votes takes poses [batch, positions, children, child_dim], got {poses.shape}"
        )
    _check(poses[:, 0], weights, rows)
    batch, positions, children, _ = poses.shape
    inner, parents, columns, _ = weights.shape
    wide = poses.reshape(batch, positions, children, rows, inner)
    votes = _einsum("bpira,ajci->bjrcpi", wide, weights)
    return votes.reshape(batch, parents, rows * columns, positions * children)


@checks.arguments
def add_coordinates(
    votes: Float[Array, "batch *windows parents dim children"],
    coordinates: Float[Array, "*windows children 2"],
    *,
    rows: int = 1,
) -> Float[Array, "batch *windows parents dim children"]:
    """Votes that know where they were cast.

    Row and column are added to the first two entries of a matrix vote's right-hand column, as in
    the paper; to the first two of a vector.

    Args:
        votes: of children at these places.
        coordinates: row and column of every child, scaled.
        rows: of a vote; 1 for vectors.

    Returns:
        The votes with coordinates.

    Raises:
        ValueError: a vote has no two such entries.

    Source: Hinton, Sabour and Frosst 2018, section 4.1 (coordinate addition).

    Example:
        >>> import jax.numpy as jnp
        >>> votes = jnp.zeros((1, 2, 3, 1))  # of one child for 2 parents, of 3 numbers each
        >>> add_coordinates(votes, jnp.array([[0.25, 0.75]]))[0, 0, :, 0].tolist()
        [0.25, 0.75, 0.0]
    """
    dim = votes.shape[-2]
    if dim < 2:
        raise ValueError(f"votes have dimension {dim}, expected at least 2 for two coordinates")
    if rows < 1 or dim % rows:
        raise ValueError(f"rows is {rows}, expected a divisor of the votes' dimension {dim}")
    columns = dim // rows
    places = (columns - 1, 2 * columns - 1) if rows > 1 else (0, 1)
    wanted = jax.nn.one_hot(jnp.array(places), dim, dtype=votes.dtype)
    added = _einsum("ed,...ie->...di", wanted, coordinates.astype(votes.dtype))
    return votes + added[None, ..., None, :, :]


def _check(poses: Array, weights: Array, rows: int) -> None:
    if poses.ndim != 3 or weights.ndim != 4:
        raise ValueError(
            "dense_votes takes poses [batch, children, child_dim] and weights "
            f"[inner, parents, columns, children], got {poses.shape} and {weights.shape}"
        )
    if rows < 1:
        raise ValueError(f"rows is {rows}, expected at least 1")
    if (poses.shape[2], poses.shape[1]) != (rows * weights.shape[0], weights.shape[3]):
        raise ValueError(
            f"poses {poses.shape} hold {poses.shape[1]} children of dimension {poses.shape[2]}, "
            f"weights {weights.shape} expect {weights.shape[3]} of dimension "
            f"{rows * weights.shape[0]}"
        )


@jax.custom_vjp
def _votes(poses: Array, weights: Array) -> Array:
    """Children-last form: poses [batch, rows, inner, children], votes [batch, parents, rows, ...].

    Rows are no part of the batch: votes of matrices would have to be transposed afterwards.
    """
    return lax.platform_dependent(
        poses, weights, cpu=_multiply_add, default=partial(_einsum, "brai,ajci->bjrci")
    )


def _working(x: Array) -> Any:
    """The dtype that sums of such numbers run in."""
    return working_dtype(x.dtype)


def _einsum(subscripts: str, left: Array, right: Array) -> Array:
    wide = jnp.einsum(subscripts, left, right, preferred_element_type=_working(left))
    return wide.astype(left.dtype)


def _multiply_add(poses: Array, weights: Array) -> Array:
    left, right = poses.astype(_working(poses)), weights.astype(_working(poses))
    terms = [left[:, None, :, a, None, :] * right[a][None, :, None] for a in range(poses.shape[2])]
    return sum(terms[1:], start=terms[0]).astype(poses.dtype)


def _votes_forward(poses: Array, weights: Array) -> tuple[Array, tuple[Array, Array]]:
    return _votes(poses, weights), (poses, weights)


def _votes_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    poses, weights = residuals
    return (
        lax.platform_dependent(
            weights,
            gradient,
            cpu=_poses_gradient_by_parent if poses.shape[1] == 1 else _poses_gradient_by_example,
            default=partial(_einsum, "ajci,bjrci->brai"),
        ),
        lax.platform_dependent(
            poses,
            gradient,
            cpu=_weights_gradient_by_row,
            default=partial(_einsum, "brai,bjrci->ajci"),
        ),
    )


def _poses_gradient_by_parent(weights: Array, gradient: Array) -> Array:
    inner, parents, columns, children = weights.shape
    batch, _, rows, _, _ = gradient.shape
    working = _working(weights)

    def add_parent(parent: Array, total: Array) -> Array:
        matrix = lax.dynamic_index_in_dim(weights, parent, 1, keepdims=False).astype(working)
        votes = lax.dynamic_index_in_dim(gradient, parent, 1, keepdims=False).astype(working)
        return total + sum(matrix[None, None, :, c] * votes[:, :, None, c] for c in range(columns))

    start = jnp.zeros((batch, rows, inner, children), working)
    return lax.fori_loop(0, parents, add_parent, start).astype(weights.dtype)


def _poses_gradient_by_example(weights: Array, gradient: Array) -> Array:
    """For matrices, whose votes are few per example, so that its sum stays in the cache."""
    inner, parents, columns, children = weights.shape
    batch, _, rows, _, _ = gradient.shape
    working = _working(weights)
    wide = weights.astype(working)

    def put_example(example: Array, result: Array) -> Array:
        votes = lax.dynamic_index_in_dim(gradient, example, keepdims=False).astype(working)
        terms = [
            wide[None, :, j, c] * votes[j, :, None, c]
            for j in range(parents)
            for c in range(columns)
        ]
        total = sum(terms[1:], start=terms[0]).astype(result.dtype)
        return lax.dynamic_update_index_in_dim(result, total, example, 0)

    result = jnp.zeros((batch, rows, inner, children), weights.dtype)
    return lax.fori_loop(0, batch, put_example, result)


def _weights_gradient_by_row(poses: Array, gradient: Array) -> Array:
    batch, rows, inner, children = poses.shape
    _, parents, _, columns, _ = gradient.shape
    working = _working(poses)

    def add_row(place: Array, total: Array) -> Array:
        example, row = place // rows, place % rows
        pose = poses[example, row].astype(working)
        start = (example, 0, row, 0, 0)
        votes = lax.dynamic_slice(gradient, start, (1, parents, 1, columns, children))
        return total + pose[:, None, None, :] * votes[:, :, 0].astype(working)

    total = jnp.zeros((inner, parents, columns, children), working)
    return lax.fori_loop(0, batch * rows, add_row, total).astype(poses.dtype)


_votes.defvjp(_votes_forward, _votes_backward)
