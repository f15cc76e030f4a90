r"""Losses of one example; batch them with ``jax.vmap`` and take the mean.

``classification_loss`` is the one of the two that ``Config.kind`` names; the margin loss asks each
class for itself whether it is there, the negative log-likelihood which of them all it is.

Two reductions are named. The paper's margin loss is a sum over classes. The official code halves
it and takes the mean over classes, and leaves the reconstruction loss as it is: beside the
margin, reconstruction then weighs ``2 * classes`` times as much (20 on MNIST).
"""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

Kind = Literal["margin", "negative_log_likelihood"]
Reduction = Literal["paper", "official"]

# Added to an activation, so that the logarithm of none has a value and a gradient.
_LEAST_ACTIVATION = 1e-7


@dataclass(frozen=True)
class Config:
    """Choices of the capsule loss; the defaults are the paper's.

    Attributes:
        kind: "margin", or "negative_log_likelihood" of the activations' shares, made for those
            that sum to 1 over classes, as self-routing's do.
        positive_margin: a present class should be longer than this, m+.
        negative_margin: an absent class should be shorter than this, m-.
        absent_weight: weight of absent classes, lambda.
        reconstruction_weight: weight of the summed squared error of all pixels.
        reduction: "paper" or "official", as the module's docstring says.

    Raises:
        ValueError: margins out of order or outside [0, 1], a negative weight.
    """

    kind: Kind = "margin"
    positive_margin: float = 0.9
    negative_margin: float = 0.1
    absent_weight: float = 0.5
    reconstruction_weight: float = 0.0005
    reduction: Reduction = "paper"

    def __post_init__(self) -> None:
        if self.kind not in ("margin", "negative_log_likelihood"):
            raise ValueError(
                f"kind is {self.kind!r}, expected 'margin' or 'negative_log_likelihood'"
            )
        if self.kind == "negative_log_likelihood" and self.reduction == "official":
            raise ValueError(
                "reduction='official' is of the margin loss: leave it at 'paper' with "
                "kind='negative_log_likelihood'"
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
        if self.reduction not in ("paper", "official"):
            raise ValueError(f"reduction is {self.reduction!r}, expected 'paper' or 'official'")


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


def negative_log_likelihood(
    activations: Float[Array, " classes"], targets: Float[Array, " classes"]
) -> Float[Array, ""]:
    r"""Negative logarithm of the present class's share in the activations.

    .. math::
        -\sum_k T_k \ln \frac{a_k + \epsilon}{\sum_l (a_l + \epsilon)}, \quad \epsilon = 10^{-7}

    Where they sum to 1 already, as in the source, the share is the activation; elsewhere it keeps
    the loss from falling while all classes rise.

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


def classification_loss(
    activations: Float[Array, " classes"],
    targets: Float[Array, " classes"],
    config: Config = Config(),
) -> Float[Array, ""]:
    """The loss that ``config.kind`` names, of one example.

    Args:
        activations: of the class capsules (their lengths where these are activations).
        targets: 1 for each class that is present, else 0.
        config: the kind, and the margin loss's choices.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the shapes differ.
    """
    if config.kind == "negative_log_likelihood":
        return negative_log_likelihood(activations, targets)
    return margin_loss(activations, targets, config)


def _check_classes(activations: Array, targets: Array) -> None:
    if activations.shape != targets.shape or activations.ndim != 1:
        raise ValueError(
            f"activations have shape {activations.shape} and targets {targets.shape}, expected "
            "[classes] for both: batch with jax.vmap, make targets with jax.nn.one_hot"
        )


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
    """
    if reconstruction.shape != image.shape:
        raise ValueError(
            f"reconstruction has shape {reconstruction.shape}, image {image.shape}: expected the "
            "same shape"
        )
    return config.reconstruction_weight * jnp.sum(jnp.square(reconstruction - image))
