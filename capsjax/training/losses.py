r"""Losses of one example; batch them with ``jax.vmap`` and take the mean.

``classification_loss`` is the one that ``Config.kind`` names. The margin loss asks each class for
itself whether it is there; the spread loss wants each class that is there ahead of each that is
not; the cross-entropy and the negative log-likelihood ask which of all classes it is. An example
may show several classes: its targets then hold several ones.

Two reductions are named. The paper's margin loss is a sum over classes. The official code halves
it and takes the mean over classes, and leaves the reconstruction loss as it is: beside the
margin, reconstruction then weighs ``2 * classes`` times as much (20 on MNIST). The spread loss is
a sum in its paper too, and a mean over classes in its authors' code.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from capsjax import checks

Kind = Literal["margin", "spread", "cross_entropy", "negative_log_likelihood"]
Reduction = Literal["paper", "official"]
SpreadSchedule = Literal["linear", "official"]

# Added to an activation, so that the logarithm of none has a value and a gradient.
_LEAST_ACTIVATION = 1e-7

# Hinton, Sabour and Frosst 2018, section 3: where the spread loss's margin starts and ends.
_FIRST_MARGIN, LAST_MARGIN = 0.2, 0.9
# Their answer to readers: 0.2 + 0.79 * logistic(min(10, step / 50,000 - 4)).
_OFFICIAL_RISE, _OFFICIAL_STEPS, _OFFICIAL_DELAY, _OFFICIAL_CAP = 0.79, 50_000, 4.0, 10.0


@dataclass(frozen=True)
class Config:
    """Choices of the capsule loss; the defaults are the paper's.

    Attributes:
        kind: "margin"; "spread"; "cross_entropy" of the logits, or of the activations where a
            network has none; "negative_log_likelihood" of the activations' shares, made for those
            that sum to 1 over classes, as self-routing's do.
        positive_margin: a present class should be longer than this, m+.
        negative_margin: an absent class should be shorter than this, m-.
        absent_weight: weight of absent classes, lambda.
        reconstruction_weight: weight of the summed squared error of all pixels.
        reduction: "paper" or "official", as the module's docstring says.
        spread_schedule: how the spread loss's margin grows: "linear" (from 0.2 to 0.9) or
            "official" (along a logistic curve to 0.99, half of it after 200,000 steps).
        margin_steps: steps in which the linear one grows; None is the first half of training (the
            paper does not say).

    Raises:
        ValueError: margins out of order or outside [0, 1], a negative weight, no steps, an unknown
            name, or a reduction or schedule of another loss than the chosen one.

    Example:
        >>> import jax.numpy as jnp
        >>> lengths, targets = jnp.array([0.4, 0.6]), jnp.array([1.0, 0.0])
        >>> round(float(classification_loss(lengths, targets, Config(absent_weight=1.0))), 4)
        0.5
        >>> round(float(classification_loss(lengths, targets, Config(absent_weight=0.0))), 4)
        0.25
    """

    kind: Kind = "margin"
    positive_margin: float = 0.9
    negative_margin: float = 0.1
    absent_weight: float = 0.5
    reconstruction_weight: float = 0.0005
    reduction: Reduction = "paper"
    spread_schedule: SpreadSchedule = "linear"
    margin_steps: int | None = None

    def __post_init__(self) -> None:
        checks.fields(self)
        if self.kind not in ("margin", "spread") and self.reduction == "official":
            raise ValueError(
                "reduction='official' is of the margin loss and of the spread loss: leave it at "
                f"'paper' with kind={self.kind!r}"
            )
        if not 0 <= self.negative_margin <= self.positive_margin <= 1:
            raise ValueError(
                f"margins are {self.negative_margin} (negative) and {self.positive_margin} "
                "(positive), expected 0 <= negative <= positive <= 1"
            )
        if self.absent_weight < 0 or self.reconstruction_weight < 0:
            raise ValueError(
                f"absent_weight is {self.absent_weight} and reconstruction_weight is "
                f"{self.reconstruction_weight}, expected neither to be negative"
            )
        if self.margin_steps is not None and self.margin_steps < 1:
            raise ValueError(
                f"margin_steps is {self.margin_steps}, expected at least 1, or None for the first "
                "half of training"
            )
        spread = self.margin_steps is not None or self.spread_schedule != "linear"
        if self.kind != "spread" and spread:
            raise ValueError(
                "margin_steps and spread_schedule are of kind='spread': leave them with kind="
                f"{self.kind!r}"
            )
        if self.margin_steps is not None and self.spread_schedule == "official":
            raise ValueError(
                "margin_steps is of spread_schedule='linear': leave it at None with 'official'"
            )


@checks.arguments(together=False)
def margin_loss(
    lengths: Float[Array, " classes"],
    targets: Float[Array, " classes"],
    config: Config = Config(),
) -> Float[Array, ""]:
    r"""Margin loss of one example.

    .. math::
        \sum_k T_k \max(0, m^+ - |v_k|)^2 + \lambda (1 - T_k) \max(0, |v_k| - m^-)^2

    Args:
        lengths: of the class capsules.
        targets: 1 for each class that is present, else 0 (several may be).
        config: margins, weight and reduction.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the shapes differ.

    Source: Sabour, Frosst and Hinton 2017, equation 4.

    Example:
        >>> import jax.numpy as jnp
        >>> float(margin_loss(jnp.array([0.9, 0.1]), jnp.array([1.0, 0.0])))
        0.0
    """
    _check_classes(lengths, targets)
    present = jnp.square(jnp.maximum(0, config.positive_margin - lengths))
    absent = jnp.square(jnp.maximum(0, lengths - config.negative_margin))
    terms = targets * present + config.absent_weight * (1 - targets) * absent
    return 0.5 * jnp.mean(terms) if config.reduction == "official" else jnp.sum(terms)


@checks.arguments
def spread_margin(
    step: Array | int, total_steps: int, config: Config = Config()
) -> Float[Array, ""]:
    """The spread loss's margin at a step.

    Args:
        step: training steps done.
        total_steps: of the whole training, for a linear schedule without ``margin_steps``.
        config: the schedule.

    Returns:
        A scalar from 0.2 to 0.9 ("linear") or 0.99 ("official").

    Source: Hinton, Sabour and Frosst 2018, section 3; the authors' answer to readers.

    Example:
        >>> print(spread_margin(25, 100))
        0.55
    """
    done = jnp.asarray(step, float)
    if config.spread_schedule == "official":
        x = jnp.minimum(_OFFICIAL_CAP, done / _OFFICIAL_STEPS - _OFFICIAL_DELAY)
        return _FIRST_MARGIN + _OFFICIAL_RISE * jax.nn.sigmoid(x)
    steps = max(1, total_steps // 2) if config.margin_steps is None else config.margin_steps
    return _FIRST_MARGIN + (LAST_MARGIN - _FIRST_MARGIN) * jnp.minimum(1, done / steps)


@checks.arguments(together=False)
def spread_loss(
    activations: Float[Array, " classes"],
    targets: Float[Array, " classes"],
    margin: Float[Array, ""] | float = LAST_MARGIN,
    config: Config = Config(),
) -> Float[Array, ""]:
    r"""Spread loss of one example.

    .. math:: \sum_{t: T_t = 1} \sum_{i: T_i = 0} \max(0, m - (a_t - a_i))^2

    The paper has one class t in each image; for several the sum over these is ours.

    Args:
        activations: of the class capsules.
        targets: 1 for each class that is present, else 0.
        margin: by which a present class should lead, m; see ``spread_margin``.
        config: the reduction.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the shapes differ.

    Source: Hinton, Sabour and Frosst 2018, equation 3.

    Example:
        >>> import jax.numpy as jnp
        >>> print(spread_loss(jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0]), 0.5))
        0.25
    """
    _check_classes(activations, targets)
    margin = jnp.asarray(margin, activations.dtype)
    lead = activations[:, None] - activations[None, :]
    terms = jnp.square(jnp.maximum(0, margin - lead))
    loss = jnp.sum(targets[:, None] * (1 - targets)[None, :] * terms)
    return loss / len(activations) if config.reduction == "official" else loss


@checks.arguments(together=False)
def cross_entropy(
    logits: Float[Array, " classes"], targets: Float[Array, " classes"]
) -> Float[Array, ""]:
    r"""Cross-entropy of a softmax over classes, the mean over those that are present.

    .. math:: -\sum_k T_k \ln \frac{e^{x_k}}{\sum_l e^{x_l}} \Big/ \sum_k T_k

    Args:
        logits: of the classes; activations may stand in for them.
        targets: 1 for each class that is present, else 0; without any the loss is 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the shapes differ.

    Source: Ribeiro, Leontidis and Kollias 2020, official code (of activations); Tsai, Srivastava,
    Goh and Salakhutdinov 2020, section 4 (of logits).

    Example:
        >>> import jax.numpy as jnp
        >>> print(cross_entropy(jnp.array([1.0, 1.0]), jnp.array([1.0, 0.0])))
        0.6931472
    """
    _check_classes(logits, targets)
    shares = jax.nn.log_softmax(logits)
    return -jnp.sum(targets * shares) / jnp.maximum(1, jnp.sum(targets))


@checks.arguments(together=False)
def negative_log_likelihood(
    activations: Float[Array, " classes"], targets: Float[Array, " classes"]
) -> Float[Array, ""]:
    r"""Negative logarithm of each present class's share in the activations.

    .. math::
        -\sum_k T_k \ln \frac{a_k + \epsilon}{\sum_l (a_l + \epsilon)}, \quad \epsilon = 10^{-7}

    Where they sum to 1 already, as in the source, the share is the activation; elsewhere it keeps
    the loss from falling while all classes rise. It is a sum over the classes that are present.

    Args:
        activations: of the class capsules, not negative.
        targets: 1 for each class that is present, else 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the shapes differ.

    Source: Hahn, Pyeon and Kim 2019, section 4.

    Example:
        >>> import jax.numpy as jnp
        >>> print(negative_log_likelihood(jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0])))
        0.6931472
    """
    _check_classes(activations, targets)
    some = activations + _LEAST_ACTIVATION
    return -jnp.sum(targets * jnp.log(some / jnp.sum(some)))


@checks.arguments(together=False)
def classification_loss(
    activations: Float[Array, " classes"],
    targets: Float[Array, " classes"],
    config: Config = Config(),
    *,
    logits: Float[Array, " classes"] | None = None,
    margin: Float[Array, ""] | float = LAST_MARGIN,
) -> Float[Array, ""]:
    """The loss that ``config.kind`` names, of one example.

    Args:
        activations: of the class capsules (their lengths where these are activations).
        targets: 1 for each class that is present, else 0.
        config: the kind and its choices.
        logits: of which the activations are a function; the cross-entropy takes these. None takes
            the activations for them.
        margin: of the spread loss; the default is the last one.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp
        >>> lengths, targets = jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0])
        >>> round(float(classification_loss(lengths, targets)), 4)  # 0.4^2 + 0.5 * 0.4^2
        0.24
        >>> round(float(classification_loss(lengths, targets, Config(kind="cross_entropy"))), 4)
        0.6931
    """
    if config.kind == "spread":
        return spread_loss(activations, targets, margin, config)
    if config.kind == "cross_entropy":
        return cross_entropy(activations if logits is None else logits, targets)
    if config.kind == "negative_log_likelihood":
        return negative_log_likelihood(activations, targets)
    return margin_loss(activations, targets, config)


def _check_classes(activations: Array, targets: Array) -> None:
    if activations.shape != targets.shape or activations.ndim != 1:
        raise ValueError(
            f"activations have shape {activations.shape} and targets {targets.shape}, expected "
            "[classes] for both: batch with jax.vmap, make targets with jax.nn.one_hot"
        )


@checks.arguments(together=False)
def reconstruction_loss(
    reconstruction: Float[Array, "height width channels"],
    image: Float[Array, "height width channels"],
    config: Config = Config(),
) -> Float[Array, ""]:
    """Weighted sum of squared errors of one example's pixels, the same in both reductions.

    Args:
        reconstruction: the decoder's output, in [0, 1].
        image: what it should be, in [0, 1].
        config: the weight.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the shapes differ.

    Source: Sabour, Frosst and Hinton 2017, section 4.1.

    Example:
        >>> import jax.numpy as jnp
        >>> drawn, image = jnp.zeros((2, 2, 1)), jnp.ones((2, 2, 1))
        >>> print(reconstruction_loss(drawn, image, Config(reconstruction_weight=0.25)))
        1.0
    """
    if reconstruction.shape != image.shape:
        raise ValueError(
            f"reconstruction has shape {reconstruction.shape}, image {image.shape}: expected the "
            "same shape"
        )
    return config.reconstruction_weight * jnp.sum(jnp.square(reconstruction - image))
