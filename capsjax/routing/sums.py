"""What several routings share: checking votes, summing them, squashing the sum."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array

from capsjax import checks
from capsjax.ops.squash import safe_norm, squash
from capsjax.types import Capsules, Routed, Trace

_NOTHING = 1e-15


def check_votes(votes: Array) -> None:
    """Refuse what are no votes.

    Args:
        votes: float ``[*windows, parents, dim, children]``, no axis empty.

    Raises:
        ValueError: fewer axes, an empty one, or another dtype.
    """
    if not checks.is_array(votes):
        raise TypeError(f"votes is {checks.shown(votes)}, expected an array")
    if votes.ndim < 3 or 0 in votes.shape:
        raise ValueError(
            f"votes have shape {votes.shape}, expected [*windows, parents, dim, children], "
            "no axis empty"
        )
    if not jnp.issubdtype(votes.dtype, jnp.floating):
        raise ValueError(f"votes are {votes.dtype}, expected a float type: bfloat16, float32, ...")


def check_children(votes: Array, children: Capsules | None, *, poses: bool = False) -> Capsules:
    """Refuse missing children, or other ones than those that cast the votes.

    Args:
        votes: ``[*windows, parents, dim, children]``.
        children: activations ``[*windows, children]``, poses ``[*windows, children, child_dim]``.
        poses: whether their poses are looked at, too.

    Returns:
        The children as they came.

    Raises:
        ValueError: there are none, or their shapes are not those of the votes' children.
    """
    if children is None:
        raise ValueError(
            "this routing uses the children's own values: pass "
            "children=Capsules(poses, activations)"
        )
    if children.activations is None:
        raise ValueError(
            "this routing uses the children's activations, and they have none: take another routing"
        )
    expected = (*votes.shape[:-3], votes.shape[-1])
    if children.activations.shape != expected:
        raise ValueError(
            f"children's activations have shape {children.activations.shape}, expected {expected} "
            f"for votes of shape {votes.shape}"
        )
    if poses and children.poses.shape[:-1] != expected:
        raise ValueError(
            f"children's poses have shape {children.poses.shape}, expected {expected} and their "
            f"dimension, for votes of shape {votes.shape}"
        )
    return children


def need(
    params: dict[str, Array] | None, *names: str, **shapes: tuple[int, ...]
) -> dict[str, Array]:
    """Refuse parameters of which one is missing, or of another shape than the votes want.

    Args:
        params: what the routing's ``init`` gave, or None.
        names: those that the routing uses.
        shapes: the same with the last axes that each has to have, axes of windows before them.

    Returns:
        The parameters as they came, None as an empty dictionary.

    Raises:
        TypeError: they are no dictionary.
        ValueError: one of the names is missing, or has another shape or is not float.
    """
    if params is not None and not isinstance(params, Mapping):
        raise TypeError(f"params is {checks.shown(params)}, expected a dictionary from init")
    missing = [name for name in (*names, *shapes) if name not in (params or {})]
    if missing:
        raise ValueError(
            f"this routing has learned parameters, and {', '.join(missing)} is missing: pass "
            "params=init(config, key, ...)"
        )
    given = params or {}
    for name, shape in shapes.items():
        array = given[name]
        fits = checks.is_array(array) and array.shape[max(0, array.ndim - len(shape)) :] == shape
        if not fits or not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(
                f"{name} is {checks.shown(array)}, expected float {shape} for these votes: pass "
                "params=init(config, key, ...) of their sizes"
            )
    return given


def weighted(coefficients: Array, votes: Array) -> Array:
    """Sum of the votes over children.

    Args:
        coefficients: ``[*windows, parents, children]`` float.
        votes: ``[*windows, parents, dim, children]`` float; the product is taken in their dtype and
            summed in the coefficients'.

    Returns:
        ``[*windows, parents, dim]`` in the coefficients' dtype.
    """
    return jnp.einsum(
        "...ji,...jdi->...jd",
        coefficients.astype(votes.dtype),
        votes,
        preferred_element_type=coefficients.dtype,
    )


def ratio(numerator: Array, denominator: Array) -> Array:
    """A quotient that is 0, in value and in gradient, where nothing is to be divided.

    Args:
        numerator: float, of a shape that broadcasts with the denominator's.
        denominator: a sum of activations. Below 1e-15 nothing is there, and the gradient would be
            on its way to infinity.

    Returns:
        The quotient.
    """
    some = denominator > _NOTHING
    return jnp.where(some, numerator / jnp.where(some, denominator, 1), 0)


def squashed(
    votes: Array,
    coefficients: Array,
    *,
    trace: bool,
    squash: Callable[[Array], Array] = squash,
) -> Routed:
    """The result of a routing without iterations: squash the weighted sum, activate by length.

    Args:
        votes: ``[*windows, parents, dim, children]`` float.
        coefficients: ``[*windows, parents, children]`` float.
        trace: keep the one iteration.
        squash: of the sums.

    Returns:
        The result in the votes' dtype.
    """
    poses = squash(weighted(coefficients, votes)).astype(votes.dtype)
    return once(votes, poses, safe_norm(poses), coefficients, trace=trace)


def once(
    votes: Array, poses: Array, activations: Array | None, coefficients: Array, *, trace: bool
) -> Routed:
    """A result without iterations.

    Args:
        votes: ``[*windows, parents, dim, children]`` float.
        poses: ``[*windows, parents, dim]`` float.
        activations: ``[*windows, parents]`` float, or None.
        coefficients: ``[*windows, parents, children]`` float.
        trace: keep the one iteration.

    Returns:
        A ``Routed`` in the votes' dtype, without state; its trace has one entry or is None.
    """
    entry = Trace(
        coefficients.astype(votes.dtype),
        poses.astype(votes.dtype),
        None if activations is None else activations.astype(votes.dtype),
    )
    whole = None
    if trace:
        alone = None if entry.activations is None else entry.activations[None]
        whole = Trace(entry.coefficients[None], entry.poses[None], alone)
    return Routed(entry.poses, entry.activations, entry.coefficients, votes, None, whole)
