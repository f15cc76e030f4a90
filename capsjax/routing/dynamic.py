r"""Dynamic routing between capsules (Sabour, Frosst and Hinton 2017, Procedure 1).

Each child i holds one logit :math:`b_{ij}` per parent j. An iteration turns them into coupling
coefficients, sums the votes with them, squashes the sum to the parent's pose, and adds to each
logit the agreement between that pose and the child's vote:

.. math::
    c_{ij} &= \mathrm{softmax}_j(b_{ij}) \\
    v_j &= \mathrm{squash}\Big(\sum_i c_{ij} \hat u_{j|i}\Big) \\
    b_{ij} &\leftarrow b_{ij} + \hat u_{j|i} \cdot v_j

Paper and official code are the same but for two things. The official code adds a trainable bias
to the sum before every squash (``semantics="official"``). And its ``leaky`` routing, the paper's
"none of the above" category, gives each child one more parent, whose logit stays 0 and whose share
is dropped. Gradients flow through all iterations in both.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from capsjax import checks
from capsjax.ops.precision import working_dtype
from capsjax.ops.squash import safe_norm, squash
from capsjax.routing import competition, convergence, sums
from capsjax.types import Capsules, Routed

SOURCE = "Sabour, Frosst and Hinton 2017, Procedure 1"
READOUT = "length"
USES = "votes"
NOT_PROMISED = {
    "translation": "squashing depends on where 0 is",
    "off child": "it looks at the votes only; its children are off by votes of length 0",
}

# The official code's value for every bias.
_INITIAL_BIAS = 0.1


@dataclass(frozen=True)
class Config:
    """Choices of dynamic routing.

    Attributes:
        num_iterations: routing iterations; the paper uses 3.
        semantics: "paper", or "official" for the authors' code (with its bias).
        bias: add a trainable bias before every squash; None means what the semantics do.
        leaky: let each child keep part of its output for none of the parents.
        loop: how the iteration is run and differentiated.

    Raises:
        ValueError: a value out of range, official semantics without its bias, or the implicit
            gradient.
    """

    num_iterations: int = 3
    semantics: Literal["paper", "official"] = "paper"
    bias: bool | None = None
    leaky: bool = False
    loop: convergence.Loop = convergence.Loop()

    def __post_init__(self) -> None:
        checks.fields(self)
        if self.num_iterations < 1:
            raise ValueError(f"num_iterations is {self.num_iterations}, expected at least 1")
        if self.semantics == "official" and self.bias is False:
            raise ValueError(
                "semantics='official' always has its bias: leave bias unset, or use "
                "semantics='paper' for routing without one"
            )

        if self.loop.gradient == "implicit":
            raise ValueError(
                "gradient='implicit' needs a fixed point, and dynamic routing, which adds to its "
                "logits in every iteration, has none short of one-hot coefficients: use "
                "'unrolled' or 'last_iteration'"
            )

    @property
    def has_bias(self) -> bool:
        """Whether there is a bias, after the semantics' default."""
        return self.semantics == "official" if self.bias is None else self.bias


class State(NamedTuple):
    """What dynamic routing carries from one iteration to the next.

    Attributes:
        logits: ``[*windows, parents, children]``, or None before the first iteration, when all are
            zero (a softmax of constant zeros is one that XLA would fold for seconds at compile
            time).
        coefficients: ``[*windows, parents, children]``, the last iteration's; None before it.
        poses: ``[*windows, parents, dim]``, the last iteration's; None before it.
    """

    logits: Array | None
    coefficients: Array | None
    poses: Array | None


@checks.arguments
def init(
    config: Config, key: Array, *, parents: int, dim: int, children: int, child_dim: int
) -> dict[str, Array]:
    """Learned parameters: ``{"bias": [parents, dim]}``, or nothing without a bias.

    Args:
        config: the routing's choices.
        key: unused, nothing is drawn.
        parents: number of parents.
        dim: dimension of a parent's pose.
        children: unused, number of children.
        child_dim: unused, dimension of a child's pose.

    Returns:
        A dictionary of float32 arrays.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> import jax
        >>> sizes = {"parents": 10, "dim": 16, "children": 1152, "child_dim": 8}
        >>> init(Config(), jax.random.key(0), **sizes)
        {}
        >>> init(Config(bias=True), jax.random.key(0), **sizes)["bias"].shape
        (10, 16)
    """
    checks.sizes(parents=parents, dim=dim, children=children, child_dim=child_dim)
    del key, children, child_dim
    return {"bias": jnp.full((parents, dim), _INITIAL_BIAS, jnp.float32)} if config.has_bias else {}


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
        params: from ``init``; needed if ``config.has_bias``.
        config: the routing's choices.
        compete: ``compete(logits) -> coefficients``; None is a softmax over parents (leaky if so
            configured).
        initial: an earlier result of this routing for votes of the same shape, to continue from its
            logits.
        trace: keep every iteration.

    Returns:
        Parents' poses and lengths. Coefficients sum to 1 over parents, to less with ``leaky``.

    Raises:
        ValueError: votes of too few axes, no bias given where one is configured, or both ``leaky``
            and ``compete``.

    Source: Sabour, Frosst and Hinton 2017, Procedure 1.

    Example:
        >>> import jax.numpy as jnp
        >>> votes = jnp.ones((10, 16, 1152))  # all children agree about all parents
        >>> route(votes).coefficients.shape
        (10, 1152)
        >>> round(float(route(votes).coefficients[0, 0]), 4)
        0.1
    """
    sums.check_votes(votes)
    if config.has_bias:
        sums.need(params, bias=votes.shape[-3:-1])
    if config.leaky and compete is not None:
        raise ValueError("leaky routing is a competition of its own: pass either leaky or compete")
    return convergence.run(
        start,
        step,
        finish,
        votes,
        children,
        params or {},
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
    """The state before the first iteration: zero logits, or those of an earlier result."""
    del votes, children, params, config
    return State(None, None, None) if initial is None else initial.state


def step(
    state: State,
    votes: Array,
    children: Capsules | None,
    params: dict[str, Array],
    config: Config,
    iteration: Any,
    compete: competition.Compete | None,
) -> State:
    """One iteration (lines 4 to 7 of Procedure 1)."""
    del children, iteration
    working = working_dtype(votes.dtype)
    coefficients = _compete(state.logits, votes, config, compete, working)
    if state.logits is None and compete is None:
        total = _equal_share(votes, config) * jnp.sum(votes, -1, dtype=working)
    else:
        total = sums.weighted(coefficients, votes)
    if config.has_bias:
        total = total + jnp.broadcast_to(params["bias"].astype(working), total.shape)
    poses = squash(total)
    agreement = jnp.einsum(
        "...jd,...jdi->...ji", poses.astype(votes.dtype), votes, preferred_element_type=working
    )
    logits = agreement if state.logits is None else state.logits + agreement
    return State(logits, coefficients, poses)


def finish(
    state: State, votes: Array, children: Capsules | None, params: dict[str, Array], config: Config
) -> Routed:
    """The result after the last iteration."""
    del children, params, config
    if state.poses is None or state.coefficients is None:
        raise ValueError("finish needs a state after at least one step")
    poses = state.poses.astype(votes.dtype)
    return Routed(
        poses=poses,
        activations=safe_norm(poses),
        coefficients=state.coefficients.astype(votes.dtype),
        votes=votes,
        state=state,
    )


def _compete(
    logits: Array | None,
    votes: Array,
    config: Config,
    compete: competition.Compete | None,
    working: Any,
) -> Array:
    *windows, parents, _, children = votes.shape
    shape = (*windows, parents, children)
    if not config.leaky:
        return competition.shares(logits, shape, compete, working)
    if logits is None:
        return jnp.full(shape, _equal_share(votes, config), working)
    leak = jnp.zeros_like(logits[..., :1, :])
    return jax.nn.softmax(jnp.concatenate([leak, logits], axis=-2), axis=-2)[..., 1:, :]


def _equal_share(votes: Array, config: Config) -> float:
    """What each parent has of a child before the first iteration."""
    return 1 / (votes.shape[-3] + config.leaky)
