r"""Inverted dot-product attention routing (Tsai, Srivastava, Goh and Salakhutdinov 2020).

Attention upside down: the parents compete for each child. A child's vote counts for a parent as
much as it agrees with the parent's present pose, and layer normalisation replaces the squashing.

.. math::
    r_{ij} &= \mathrm{softmax}_j\big(p_j \cdot \hat u_{j|i} / \sqrt D\big) \\
    p_j &\leftarrow \mathrm{LayerNorm}\Big(\sum_i r_{ij} \hat u_{j|i}\Big)

The first iteration has uniform coefficients. After layer normalisation all poses have the same
length, so there is no activation: a linear readout on the pose tells whether a parent is there.
``initial`` makes one iteration at a time possible, which is the paper's concurrent mode: a network
computes all votes anew from the poses so far and runs every layer for one iteration. The division
by the square root of the dimension D is the authors' code's; the paper's text has none.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from capsjax import checks
from capsjax.ops.precision import working_dtype
from capsjax.routing import competition, convergence, sums
from capsjax.types import Capsules, Routed

SOURCE = "Tsai, Srivastava, Goh and Salakhutdinov 2020, Algorithm 1"
READOUT = "linear"
USES = "votes"
NOT_PROMISED = {
    "off child": "it looks at the votes only",
    "two groups": "normalised poses bound its logits by the votes' length",
    "sign-blind": "the learned offset of its layer normalisation has a sign",
    "rotation": "layer normalisation subtracts the mean over the axes",
    "translation": "layer normalisation scales the votes' sum",
}

_EPSILON = 1e-5  # of the layer normalisation, in the authors' code


@dataclass(frozen=True)
class Config:
    """Choices of inverted attention.

    Attributes:
        num_iterations: routing iterations, the first one with uniform coefficients included; the
            paper uses 2.
        loop: how the iteration is run and differentiated.

    Raises:
        ValueError: a value out of range.
    """

    num_iterations: int = 2
    loop: convergence.Loop = convergence.Loop()

    def __post_init__(self) -> None:
        checks.fields(self)
        if self.num_iterations < 1:
            raise ValueError(f"num_iterations is {self.num_iterations}, expected at least 1")


class State(NamedTuple):
    """What inverted attention carries from one iteration to the next; None before the first.

    Attributes:
        coefficients: ``[*windows, parents, children]``, the last iteration's.
        poses: ``[*windows, parents, dim]``, normalised.
    """

    coefficients: Array | None
    poses: Array | None


@checks.arguments
def init(
    config: Config, key: Array, *, parents: int, dim: int, children: int, child_dim: int
) -> dict[str, Array]:
    """Learned parameters of the layer normalisation, shared by all parents.

    Args:
        config: the routing's choices.
        key: unused, nothing is drawn.
        parents: unused, number of parents.
        dim: dimension of a parent's pose.
        children: unused, number of children.
        child_dim: unused, dimension of a child's pose.

    Returns:
        Float32 ``{"scale": [dim], "offset": [dim]}``, ones and zeros.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> import jax
        >>> sizes = {"parents": 10, "dim": 16, "children": 1152, "child_dim": 8}
        >>> params = init(Config(), jax.random.key(0), **sizes)
        >>> {name: param.shape for name, param in params.items()}
        {'scale': (16,), 'offset': (16,)}
    """
    checks.sizes(parents=parents, dim=dim, children=children, child_dim=child_dim)
    del config, key, parents, children, child_dim
    return {"scale": jnp.ones((dim,), jnp.float32), "offset": jnp.zeros((dim,), jnp.float32)}


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
        children: unused; votes are all that this algorithm looks at.
        params: from ``init``.
        config: the routing's choices.
        compete: ``compete(logits) -> coefficients``; None is a softmax over parents.
        initial: an earlier result of this routing for votes of the same shape, to continue from its
            poses.
        trace: keep every iteration.

    Returns:
        Parents' poses; activations are None. Coefficients sum to 1 over parents.

    Raises:
        ValueError: votes of too few axes, or no parameters given.

    Source: Tsai, Srivastava, Goh and Salakhutdinov 2020, Algorithm 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params = init(Config(), jax.random.key(0), parents=4, dim=16, children=9, child_dim=8)
        >>> votes = jax.random.normal(jax.random.key(0), (4, 16, 9))
        >>> routed = route(votes, params=params)
        >>> print(routed.poses.std(axis=1).round(2))
        [1. 1. 1. 1.]
    """
    sums.check_votes(votes)
    return convergence.run(
        start,
        step,
        finish,
        votes,
        children,
        sums.need(params, scale=votes.shape[-2:-1], offset=votes.shape[-2:-1]),
        config,
        compete=compete,
        initial=initial,
        trace=trace,
    )


def start(
    votes: Array,
    children: Capsules | None,
    params: dict[str, Array],
    config: Config,
    initial: Routed | None,
) -> State:
    """The state before the first iteration: none, or that of an earlier result."""
    del votes, children, params, config
    return State(None, None) if initial is None else initial.state


def step(
    state: State,
    votes: Array,
    children: Capsules | None,
    params: dict[str, Array],
    config: Config,
    iteration: Any,
    compete: competition.Compete | None,
) -> State:
    """One iteration: agreement, competition among the parents, new poses."""
    del children, config, iteration
    working = working_dtype(votes.dtype)
    logits = None
    if state.poses is not None:
        logits = jnp.einsum(
            "...jd,...jdi->...ji",
            # Scaled before the product: XLA would fuse a division after it into the softmax, where
            # one rounding of a large logit overflows the exponential.
            (state.poses / votes.shape[-2] ** 0.5).astype(votes.dtype),
            votes,
            preferred_element_type=working,
        )
    shape = (*votes.shape[:-2], votes.shape[-1])
    coefficients = competition.shares(logits, shape, compete, working)
    total = sums.weighted(coefficients, votes)
    centred = total - total.mean(-1, keepdims=True)
    # Not by rsqrt, whose gradient, a power of -3/2, is lost where votes are long (from 1e13 on).
    normalised = centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + _EPSILON)
    scale, offset = (
        jnp.broadcast_to(params[name].astype(working), total.shape) for name in ("scale", "offset")
    )
    return State(coefficients, normalised * scale + offset)


def finish(
    state: State,
    votes: Array,
    children: Capsules | None,
    params: dict[str, Array],
    config: Config,
) -> Routed:
    """The result after the last iteration."""
    del children, params, config
    if state.poses is None or state.coefficients is None:
        raise ValueError("finish needs a state after at least one step")
    return Routed(
        poses=state.poses.astype(votes.dtype),
        activations=None,
        coefficients=state.coefficients.astype(votes.dtype),
        votes=votes,
        state=state,
    )
