r"""Uniform coupling, the control without any routing (Paik, Kwak and Kim 2019).

Every child gives each of its parents the same share. It is what one iteration of dynamic routing
does, and a plain layer with squashed outputs: whatever a routing claims to add shows beside it.

.. math:: v_j = \mathrm{squash}\Big(\frac{1}{J} \sum_i \hat u_{j|i}\Big)
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from capsjax import checks
from capsjax.ops.precision import working_dtype
from capsjax.ops.squash import safe_norm, squash
from capsjax.routing import competition, sums
from capsjax.types import Capsules, Routed

SOURCE = "Paik, Kwak and Kim 2019 (control)"
READOUT = "length"
USES = "votes"
NOT_PROMISED = {
    "translation": "squashing depends on where 0 is",
    "off child": "it looks at the votes only",
    "two groups": "it looks at no vote",
}


@dataclass(frozen=True)
class Config:
    """Uniform coupling has nothing to choose."""


@checks.arguments
def init(
    config: Config, key: Array, *, parents: int, dim: int, children: int, child_dim: int
) -> dict[str, Array]:
    """Nothing is learned.

    Args:
        config: unused here.
        key: unused.
        parents: unused, number of parents.
        dim: unused, dimension of a parent's pose.
        children: unused, number of children.
        child_dim: unused, dimension of a child's pose.

    Returns:
        An empty dictionary.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> import jax
        >>> sizes = {"parents": 10, "dim": 16, "children": 1152, "child_dim": 8}
        >>> init(Config(), jax.random.key(0), **sizes)
        {}
    """
    checks.sizes(parents=parents, dim=dim, children=children, child_dim=child_dim)
    del config, key, parents, dim, children, child_dim
    return {}


@checks.arguments
def route(
    votes: Float[Array, "*windows parents dim children"],
    children: Capsules | None = None,
    params: dict[str, Array] | None = None,
    config: Config = Config(),
    *,
    compete: competition.Compete | None = None,
    initial: Routed | None = None,
    trace: bool = False,
) -> Routed:
    """Sum the votes of one example with equal shares; batch it with ``jax.vmap``.

    Args:
        votes: the children's votes.
        children: unused.
        params: unused.
        config: nothing to choose.
        compete: is given constant logits; None gives each parent the same share.
        initial: unused.
        trace: keep the one iteration there is.

    Returns:
        Parents' squashed poses and their lengths. Coefficients sum to 1 over parents.

    Raises:
        ValueError: votes of too few axes or with an empty one.

    Source: Paik, Kwak and Kim 2019.

    Example:
        >>> import jax.numpy as jnp
        >>> print(route(jnp.ones((4, 16, 9))).coefficients[0, 0])
        0.25
    """
    del children, params, config, initial
    sums.check_votes(votes)
    working = working_dtype(votes.dtype)
    shape = (*votes.shape[:-2], votes.shape[-1])
    coefficients = competition.shares(None, shape, compete, working)
    if compete is not None:
        return sums.squashed(votes, coefficients, trace=trace)
    poses = squash(jnp.sum(votes, -1, dtype=working) / shape[-2]).astype(votes.dtype)
    return sums.once(votes, poses, safe_norm(poses), coefficients, trace=trace)
