r"""Random coupling, the control with coefficients drawn once (Paik, Kwak and Kim 2019).

Every child's shares are drawn uniformly from all possible ones (a flat Dirichlet distribution),
before anything is learned, and stay the same for every example: no agreement plays a part.

.. math:: v_j = \mathrm{squash}\Big(\sum_i c_{ij} \hat u_{j|i}\Big), \quad c \text{ fixed}
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from capsjax import checks
from capsjax.ops.precision import working_dtype
from capsjax.routing import competition, sums
from capsjax.types import Capsules, Routed

SOURCE = "Paik, Kwak and Kim 2019 (control)"
READOUT = "length"
USES = "votes"
NOT_PROMISED = {
    "children permuted": "each child has shares of its own, drawn for its place",
    "parents permuted": "each pair has a share of its own, drawn for its place",
    "windows alone": "each window has shares of its own, drawn for its place",
    "off child": "it looks at the votes only",
    "uniform if identical": "its shares look at no vote",
    "two groups": "its shares look at no vote",
    "translation": "squashing depends on where 0 is",
}


@dataclass(frozen=True)
class Config:
    """Choices of random coupling.

    Attributes:
        seed: of the coefficients; a training run's own seed does not change them.

    Raises:
        ValueError: a seed that does not fit 32 bits.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        checks.fields(self)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed!r}, expected a whole number, 0 to {2**32 - 1}")


@checks.arguments
def init(
    config: Config, key: Array, *, parents: int, dim: int, children: int, child_dim: int
) -> dict[str, Array]:
    """Nothing is learned; the draw is a function of ``config.seed``.

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
    """Sum the votes of one example with shares drawn once; batch it with ``jax.vmap``.

    Args:
        votes: the children's votes.
        children: unused.
        params: unused.
        config: the seed.
        compete: turns the drawn logits into coefficients; None is a softmax over parents. In both
            cases the shares of a child are uniform on the simplex of all its parents.
        initial: unused.
        trace: keep the one iteration there is.

    Returns:
        Parents' squashed poses and their lengths. Coefficients sum to 1 over parents.

    Raises:
        ValueError: votes of too few axes or with an empty one.

    Source: Paik, Kwak and Kim 2019; the distribution is ours, theirs is not stated.

    Example:
        >>> import jax.numpy as jnp
        >>> first, again = (route(jnp.ones((4, 16, 9))).coefficients for _ in range(2))
        >>> bool((first == again).all())
        True
    """
    del children, params, initial
    sums.check_votes(votes)
    working = working_dtype(votes.dtype)
    shape = (*votes.shape[:-2], votes.shape[-1])
    # Exponential variables over their sum are uniform on the simplex.
    logits = jnp.log(jax.random.exponential(jax.random.key(config.seed), shape, working))
    logits = jnp.maximum(logits, jnp.finfo(working).min)
    return sums.squashed(votes, competition.shares(logits, shape, compete, working), trace=trace)
