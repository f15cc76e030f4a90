r"""Self-routing (Hahn, Pyeon and Kim 2019): each child decides alone, from its own pose.

No agreement and no iteration: a small linear map turns a child's pose into its shares, as in a
mixture of experts.

.. math::
    c_{ij} &= \mathrm{softmax}_j(W^r_i u_i + b^r_i)_j \\
    a_j &= \frac{\sum_i c_{ij} a_i}{\sum_i a_i}, \qquad
    u_j = \frac{\sum_i c_{ij} a_i \hat u_{j|i}}{\sum_i c_{ij} a_i}

Activations of all parents sum to 1. Where all children are off, the parents are too: poses and
activations 0.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from capsjax import checks
from capsjax.ops.precision import working_dtype
from capsjax.routing import competition, sums
from capsjax.types import Capsules, Routed

SOURCE = "Hahn, Pyeon and Kim 2019, equations 2 to 5"
READOUT = "own"
USES = "votes, poses and activations"
NOT_PROMISED = {
    "two groups": "its shares come from the children's poses, not from the votes",
    "sign-blind": "its shares are a function of the children's poses, whose sign they see",
}


@dataclass(frozen=True)
class Config:
    """Self-routing has nothing to choose."""


@checks.arguments
def init(
    config: Config, key: Array, *, parents: int, dim: int, children: int, child_dim: int
) -> dict[str, Array]:
    """Learned parameters, float32 zeros: all shares are equal at first, as in the authors' code.

    Args:
        config: nothing to choose.
        key: unused, nothing is drawn.
        parents: number of parents.
        dim: unused, dimension of a parent's pose.
        children: number of children.
        child_dim: dimension of a child's pose.

    Returns:
        ``{"kernel": [child_dim, parents, children], "bias": [parents, children]}``.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> import jax
        >>> sizes = {"parents": 10, "dim": 16, "children": 1152, "child_dim": 8}
        >>> params = init(Config(), jax.random.key(0), **sizes)
        >>> {name: param.shape for name, param in params.items()}
        {'kernel': (8, 10, 1152), 'bias': (10, 1152)}
    """
    checks.sizes(parents=parents, dim=dim, children=children, child_dim=child_dim)
    del config, key, dim
    return {
        "kernel": jnp.zeros((child_dim, parents, children), jnp.float32),
        "bias": jnp.zeros((parents, children), jnp.float32),
    }


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
    """Route the votes of one example; batch it with ``jax.vmap``.

    Args:
        votes: the children's votes.
        children: their poses ``[*windows, children, child_dim]`` and activations
            ``[*windows, children]``.
        params: from ``init``.
        config: nothing to choose.
        compete: ``compete(logits) -> coefficients``; None is a softmax over parents.
        initial: unused.
        trace: keep the one iteration there is.

    Returns:
        Parents' poses (a weighted mean of the votes) and activations. Coefficients sum to 1 over
        parents.

    Raises:
        ValueError: votes of too few axes, no children or parameters given, or children that do not
            fit the votes.

    Source: Hahn, Pyeon and Kim 2019, equations 2 to 5.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> children = Capsules(jnp.ones((9, 8)), jnp.ones(9))
        >>> sizes = dict(parents=4, dim=16, children=9, child_dim=8)
        >>> params = init(Config(), jax.random.key(0), **sizes)
        >>> print(route(jnp.ones((4, 16, 9)), children, params).activations)
        [0.25 0.25 0.25 0.25]
    """
    del config, initial
    sums.check_votes(votes)
    children = sums.check_children(votes, children, poses=True)
    params = sums.need(
        params,
        kernel=(children.poses.shape[-1], votes.shape[-3], votes.shape[-1]),
        bias=(votes.shape[-3], votes.shape[-1]),
    )
    working = working_dtype(votes.dtype)
    logits = jnp.einsum(
        "...ia,aji->...ji", children.poses.astype(working), params["kernel"].astype(working)
    )
    logits = logits + jnp.broadcast_to(params["bias"].astype(working), logits.shape)
    coefficients = competition.shares(logits, logits.shape, compete, working)
    activations = children.activations.astype(working)
    weights = coefficients * activations[..., None, :]
    mass = weights.sum(-1)
    total = activations.sum(-1, keepdims=True)
    poses = sums.ratio(sums.weighted(weights, votes), mass[..., None])
    return sums.once(votes, poses, sums.ratio(mass, total), coefficients, trace=trace)
