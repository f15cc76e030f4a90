r"""Self-attention routing (Mazzia, Salvetti and Chiaberge 2021, Efficient-CapsNet).

No iteration: a child's vote counts for a parent as much as it agrees with all votes for that
parent, its own included.

.. math::
    a_{ij} &= \frac{1}{\sqrt D} \hat u_{j|i} \cdot \sum_k \hat u_{j|k} \\
    s_j &= \sum_i \Big(\mathrm{softmax}_j(a_{ij}) + b_{ij}\Big) \hat u_{j|i} \\
    v_j &= \Big(1 - e^{-|s_j|}\Big) \frac{s_j}{|s_j|}

The learned prior b comes after the softmax, in the paper and in its code, so a child's coefficients
sum to 1 plus its priors. The code divides by the square root of 16 whatever the dimension D; the
paper, and we, by that of D.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from capsjax import checks
from capsjax.ops.precision import working_dtype
from capsjax.ops.squash import squash_exponential
from capsjax.routing import competition, sums
from capsjax.types import Capsules, Routed

SOURCE = "Mazzia, Salvetti and Chiaberge 2021, equations 5 to 8"
READOUT = "length"
USES = "votes"
NOT_PROMISED = {
    "shares": "the learned prior comes on top of the softmax",
    "translation": "squashing depends on where 0 is",
    "off child": "it looks at the votes only",
    "two groups": "one pass, and logits of a few children are small",
}


@dataclass(frozen=True)
class Config:
    """Choices of self-attention routing.

    Attributes:
        prior: learn one prior for each pair of child and parent, 0 at first.
    """

    prior: bool = True

    def __post_init__(self) -> None:
        checks.fields(self)


@checks.arguments
def init(
    config: Config, key: Array, *, parents: int, dim: int, children: int, child_dim: int
) -> dict[str, Array]:
    """Learned parameters, one for each pair of child and parent.

    Args:
        config: the routing's choices.
        key: unused, nothing is drawn.
        parents: number of parents.
        dim: unused, dimension of a parent's pose.
        children: number of children.
        child_dim: unused, dimension of a child's pose.

    Returns:
        ``{"prior": [parents, children]}``, float32 zeros; an empty dictionary without the prior.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> import jax
        >>> sizes = {"parents": 10, "dim": 16, "children": 1152, "child_dim": 8}
        >>> init(Config(), jax.random.key(0), **sizes)["prior"].shape
        (10, 1152)
        >>> init(Config(prior=False), jax.random.key(0), **sizes)
        {}
    """
    checks.sizes(parents=parents, dim=dim, children=children, child_dim=child_dim)
    del key, dim, child_dim
    return {"prior": jnp.zeros((parents, children), jnp.float32)} if config.prior else {}


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
        params: from ``init``; needed if ``config.prior``.
        config: the routing's choices.
        compete: ``compete(logits) -> coefficients``; None is a softmax over parents.
        initial: unused.
        trace: keep the one iteration there is.

    Returns:
        Parents' poses and their lengths. A child's coefficients sum to 1 plus its priors.

    Raises:
        ValueError: votes of too few axes, or no prior given where one is configured.

    Source: Mazzia, Salvetti and Chiaberge 2021, equations 5 to 8.

    Example:
        >>> import jax.numpy as jnp
        >>> route(jnp.ones((10, 16, 16)), config=Config(prior=False)).coefficients.shape
        (10, 16)
    """
    del children, initial
    sums.check_votes(votes)
    prior = None
    if config.prior:
        prior = sums.need(params, prior=(votes.shape[-3], votes.shape[-1]))["prior"]
    working = working_dtype(votes.dtype)
    wide = votes.astype(working)
    # Scaled before the product: XLA would fuse a division after it into the softmax, where one
    # rounding of a large logit overflows the exponential.
    total = wide.sum(-1) / votes.shape[-2] ** 0.5
    logits = jnp.einsum("...jd,...jdi->...ji", total, wide)
    coefficients = competition.shares(logits, logits.shape, compete, working)
    if prior is not None:
        coefficients = coefficients + jnp.broadcast_to(prior.astype(working), coefficients.shape)
    return sums.squashed(votes, coefficients, trace=trace, squash=squash_exponential)
