r"""EM routing (Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing", Procedure 1).

Each parent is a Gaussian over votes, and routing fits the mixture to the votes, each child counting
by its activation. An iteration assigns the children (E step), then fits the parents (M step); a
parent is active if describing its votes by it costs less than leaving them undescribed.

.. math::
    R_{ij} &= \frac{a_j N(V_{ij}; \mu_j, \sigma_j^2)}{\sum_k a_k N(V_{ik}; \mu_k, \sigma_k^2)} \\
    \mu_j &= \frac{\sum_i a_i R_{ij} V_{ij}}{\sum_i a_i R_{ij}}, \qquad
    \sigma_j^2 = \frac{\sum_i a_i R_{ij} (V_{ij} - \mu_j)^2}{\sum_i a_i R_{ij}} \\
    a_j &= \mathrm{logistic}\Big(\lambda \big(\beta_a - \sum_i a_i R_{ij}
        \sum_h (\beta_u + \log \sigma_j^h)\big)\Big)

The first coefficients are uniform and no E step follows the last M step. :math:`\lambda` rises with
the iteration t (from 0), :math:`\lambda_t = \lambda_\infty (1 - 0.95^{t+1})`, as the authors
answered (recalled in IBM's code); the paper leaves it open. Variances are at least
``minimum_variance``, so that a parent of one child is no infinite density. Where all children are
off, means are 0, variances minimal, and activations logistic(:math:`\lambda \beta_a`).

The cost grows with the number of children, so that a temperature that suits a window of 9 children
drives the activations of a layer of 400 to exactly 0 or 1, where no gradient is. ``cost="mean"``
divides it by the mass that a parent has of children that are all on and shared evenly
(children / parents in a dense layer; IBM's code does so up to a constant: Gritzman 2019, "Avoiding
implementation pitfalls of matrix capsules with EM routing").

``semantics="official"`` is the authors' released code instead: the new mean is 0.9 of the
weighted mean and 0.1 of the old one (0 at first), the minimum variance is added, and the activation
is

.. math::
    \mathrm{logistic}\Big(b_t \big(\sum_i a_i R_{ij} (-\sum_h \log \sigma_j^{h2}
        - s_j D (1 + \ln 2 \pi)) - 5000\, t_j\big)\Big)

with sigma bias s and activation bias t, which is the paper's with :math:`\lambda = 2 b`,
:math:`\beta_u = s (1 + \ln 2 \pi) / 2` and :math:`\beta_a = -2500\, t`. How coefficients compete
across positions differs there too; that is ``compete``'s (``competition.across``).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from capsjax import checks
from capsjax.ops.precision import working_dtype
from capsjax.routing import competition, convergence, sums
from capsjax.types import Capsules, Routed

SOURCE = "Hinton, Sabour and Frosst 2018, Procedure 1"
READOUT = "own"
USES = "votes and activations"
NOT_PROMISED = {
    "rotation": "its variances lie along the axes",
}
# Beyond, the squares of deviations divided by the least variance leave float32's range.
HUGE = 1e6
# Of a dense layer's weights: votes of poses that are shorter than 1 must be wide beside the minimum
# variance, and about as wide as a parent that is neither on nor off. Measured with CapsNet on 2,000
# digits, one epoch: validation error 90 % with 0.1, 47 % with 1, 18 % with 3.
WEIGHTS_STDDEV = 3.0

# Of the inverse temperature's approach to its final value.
_DECAY = 0.95
# Official code: what keeps masses from 0, the share of the old mean, and the biases' first values
# in its class layer (its activation bias counts 5,000-fold).
_MASS, _OLD_MEAN, _BIAS_SCALE = 1e-7, 0.1, 5000.0
_SIGMA_BIAS, _ACTIVATION_BIAS = 2.0, 1.0


@dataclass(frozen=True)
class Config:
    """Choices of EM routing.

    Attributes:
        num_iterations: routing iterations; the paper uses 3.
        semantics: "paper", or "official" for the authors' released code.
        final_inverse_temperature: what the inverse temperature tends to; 0.01 in the authors'
            answers and code (whose class layer has a quarter of it).
        minimum_variance: of every parent in every dimension; 5e-4 in the authors' code.
        cost: of a parent, the "sum" over its children (the paper's), or their "mean", for which one
            temperature suits layers of all sizes; of paper semantics only.
        loop: how the iteration is run and differentiated.

    Raises:
        ValueError: a value out of range.
    """

    num_iterations: int = 3
    semantics: Literal["paper", "official"] = "paper"
    final_inverse_temperature: float = 0.01
    minimum_variance: float = 5e-4
    cost: Literal["sum", "mean"] = "sum"
    loop: convergence.Loop = convergence.Loop()

    def __post_init__(self) -> None:
        checks.fields(self)
        if self.num_iterations < 1:
            raise ValueError(f"num_iterations is {self.num_iterations}, expected at least 1")
        if (self.semantics, self.cost) == ("official", "mean"):
            raise ValueError("cost is 'mean', expected 'sum' with official semantics")
        for name in ("final_inverse_temperature", "minimum_variance"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")


class State(NamedTuple):
    """What EM carries from one iteration to the next; all None before the first.

    Attributes:
        coefficients: ``[*windows, parents, children]``, R of the last E step.
        means: ``[*windows, parents, dim]``.
        variances: ``[*windows, parents, dim]``.
        logits: ``[*windows, parents]``, of the activations.
    """

    coefficients: Array | None
    means: Array | None
    variances: Array | None
    logits: Array | None


@checks.arguments
def init(
    config: Config, key: Array, *, parents: int, dim: int, children: int, child_dim: int
) -> dict[str, Array]:
    """Learned parameters, one of each for every parent.

    Args:
        config: the routing's choices.
        key: unused, nothing is drawn.
        parents: number of parents.
        dim: unused, dimension of a parent's pose.
        children: unused, number of children.
        child_dim: unused, dimension of a child's pose.

    Returns:
        Float32 ``{"beta_a": [parents], "beta_u": [parents]}``, zeros, or with official semantics
        ``{"activation_bias": [parents], "sigma_bias": [parents]}``, ones and twos as in the class
        layer of the authors' code.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> import jax
        >>> sizes = {"parents": 10, "dim": 16, "children": 1152, "child_dim": 8}
        >>> params = init(Config(), jax.random.key(0), **sizes)
        >>> {name: param.shape for name, param in params.items()}
        {'beta_a': (10,), 'beta_u': (10,)}
    """
    checks.sizes(parents=parents, dim=dim, children=children, child_dim=child_dim)
    del key, dim, children, child_dim
    if config.semantics == "official":
        return {
            "activation_bias": jnp.full((parents,), _ACTIVATION_BIAS, jnp.float32),
            "sigma_bias": jnp.full((parents,), _SIGMA_BIAS, jnp.float32),
        }
    return {name: jnp.zeros((parents,), jnp.float32) for name in ("beta_a", "beta_u")}


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
        children: their activations ``[*windows, children]`` count; their poses are not looked at.
        params: from ``init``.
        config: the routing's choices.
        compete: ``compete(logits) -> coefficients``; None is a softmax over parents.
        initial: an earlier result of this routing for votes of the same shape, to continue from.
        trace: keep every iteration.

    Returns:
        Parents' means and activations. Coefficients sum to 1 over parents.

    Raises:
        ValueError: votes of too few axes, no children or parameters given, or children that do not
            fit the votes.

    Source: Hinton, Sabour and Frosst 2018, Procedure 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> votes = jnp.zeros((4, 16, 9)).at[1:].set(jax.random.normal(jax.random.key(0), (16, 9)))
        >>> children = Capsules(jnp.zeros((9, 16)), jnp.ones(9))
        >>> params = init(Config(), jax.random.key(0), parents=4, dim=16, children=9, child_dim=16)
        >>> int(route(votes, children, params).activations.argmax())  # votes for it agree
        0
    """
    sums.check_votes(votes)
    sums.check_children(votes, children)
    official = config.semantics == "official"
    names = ("activation_bias", "sigma_bias") if official else ("beta_a", "beta_u")
    sums.need(params, **dict.fromkeys(names, votes.shape[-3:-2]))
    return convergence.run(
        start,
        step,
        finish,
        votes,
        children,
        params,
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
    return State(None, None, None, None) if initial is None else initial.state


def step(
    state: State,
    votes: Array,
    children: Capsules,
    params: dict[str, Array],
    config: Config,
    iteration: Any,
    compete: competition.Compete | None,
) -> State:
    """One iteration: assign the children, then fit the parents."""
    working = working_dtype(votes.dtype)
    coefficients = expectation(state, votes, compete, working)
    weights = coefficients * children.activations.astype(working)[..., None, :]
    means, variances, mass = maximisation(weights, votes, state.means, config)
    if config.cost == "mean":
        even = competition.shares(None, coefficients.shape, compete, working)
        mass = sums.ratio(mass, even.sum(-1))
    if isinstance(iteration, Array):  # strict promotion has no float to the power of a whole number
        iteration = iteration.astype(working)
    temperature = config.final_inverse_temperature * (1 - _DECAY ** (iteration + 1))
    logits = temperature * _evidence(mass, variances, params, config)
    return State(coefficients, means, variances, logits.astype(working))


@checks.arguments
def expectation(
    state: State, votes: Array, compete: competition.Compete | None, dtype: Any
) -> Array:
    """E step: each child's shares ``[*windows, parents, children]`` among the parents of a state.

    In log space, so that a child far from all parents still has shares; uniform before any parent
    was fitted.
    """
    shape = (*votes.shape[:-2], votes.shape[-1])
    if state.means is None or state.variances is None or state.logits is None:
        return competition.shares(None, shape, compete, dtype)
    deviations = votes.astype(dtype) - state.means[..., None]
    distances = jnp.einsum("...jd,...jdi->...ji", 1 / state.variances, jnp.square(deviations))
    # What comes back to them is computed once, and not anew for each of a pose's numbers.
    distances = jax.lax.optimization_barrier(distances)
    spread = jnp.log(2 * jnp.pi * state.variances).sum(-1, keepdims=True)
    activations = jax.nn.log_sigmoid(state.logits)[..., None]
    return competition.shares(activations - (spread + distances) / 2, shape, compete, dtype)


@checks.arguments
def maximisation(
    weights: Array, votes: Array, old_means: Array | None, config: Config
) -> tuple[Array, Array, Array]:
    """M step: means and variances ``[*windows, parents, dim]`` of the weighted votes, and masses.

    Args:
        weights: ``[*windows, parents, children]`` float, coefficients times activations.
        votes: ``[*windows, parents, dim, children]`` float.
        old_means: ``[*windows, parents, dim]``, which official semantics blend in, or None.
        config: the routing's choices.

    Returns:
        Means, variances, and masses ``[*windows, parents]``, the sums of the weights.
    """
    official = config.semantics == "official"
    wide = votes.astype(weights.dtype)
    mass = weights.sum(-1) + (_MASS if official else 0)
    means = sums.ratio(jnp.einsum("...ji,...jdi->...jd", weights, wide), mass[..., None])
    if official:
        means = (1 - _OLD_MEAN) * means
        means = means if old_means is None else means + _OLD_MEAN * old_means
    deviations = jnp.square(wide - means[..., None])
    variances = sums.ratio(jnp.einsum("...ji,...jdi->...jd", weights, deviations), mass[..., None])
    if official:
        return means, variances + config.minimum_variance, mass
    return means, jnp.maximum(variances, config.minimum_variance), mass


def _evidence(mass: Array, variances: Array, params: dict[str, Array], config: Config) -> Array:
    """What the inverse temperature multiplies, ``[*windows, parents]``."""
    dim = variances.shape[-1]
    log_variance = jnp.log(variances).sum(-1)

    def param(name: str) -> Array:
        return jnp.broadcast_to(params[name].astype(mass.dtype), mass.shape)

    if config.semantics == "official":
        spread = log_variance + param("sigma_bias") * dim * (1 + math.log(2 * math.pi))
        return -mass * spread - _BIAS_SCALE * param("activation_bias")
    return param("beta_a") - mass * (dim * param("beta_u") + log_variance / 2)


def finish(
    state: State, votes: Array, children: Capsules, params: dict[str, Array], config: Config
) -> Routed:
    """The result after the last iteration."""
    del children, params, config
    if state.means is None or state.logits is None or state.coefficients is None:
        raise ValueError("finish needs a state after at least one step")
    return Routed(
        poses=state.means.astype(votes.dtype),
        activations=jax.nn.sigmoid(state.logits).astype(votes.dtype),
        coefficients=state.coefficients.astype(votes.dtype),
        votes=votes,
        state=state,
    )
