"""Metrics: pure functions of predictions and labels."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int
from scipy.special import stdtrit


def accuracy(
    activations: Float[Array, "*batch classes"], labels: Int[Array, "*batch"]
) -> Float[Array, ""]:
    """Share of examples whose most active class is the label.

    Args:
        activations: of the class capsules.
        labels: the true classes.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: the shapes do not belong together.

    Example:
        >>> import jax.numpy as jnp
        >>> float(accuracy(jnp.array([[0.9, 0.1], [0.8, 0.2]]), jnp.array([0, 1])))
        0.5
    """
    if activations.shape[:-1] != labels.shape:
        raise ValueError(
            f"activations have shape {activations.shape} and labels {labels.shape}, expected "
            "[*batch, classes] and [*batch]"
        )
    return jnp.mean(jnp.argmax(activations, axis=-1) == labels)


def exact_match(
    activations: Float[Array, "*batch classes"], labels: Int[Array, "*batch k"]
) -> Float[Array, ""]:
    """Share of examples whose k most active classes are their k labels, in any order.

    Args:
        activations: of the class capsules.
        labels: the true classes, k different ones of each example.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: the shapes do not belong together.

    Source: Sabour, Frosst and Hinton 2017, official code (the metric of MultiMNIST).

    Example:
        >>> import jax.numpy as jnp
        >>> activations = jnp.array([[0.9, 0.1, 0.7], [0.9, 0.8, 0.1]])
        >>> print(exact_match(activations, jnp.array([[2, 0], [2, 0]])))
        0.5
    """
    if activations.shape[:-1] != labels.shape[:-1] or labels.ndim != activations.ndim:
        raise ValueError(
            f"activations have shape {activations.shape} and labels {labels.shape}, expected "
            "[*batch, classes] and [*batch, k]"
        )
    _, top = jax.lax.top_k(activations, labels.shape[-1])
    found = (labels[..., :, None] == top[..., None, :]).any(-1)
    return jnp.mean(found.all(-1))


def confusion_matrix(
    predictions: Int[Array, " examples"], labels: Int[Array, " examples"], num_classes: int
) -> Int[Array, "classes classes"]:
    """How often each true class (row) was taken for each class (column).

    Args:
        predictions: predicted classes.
        labels: true classes.
        num_classes: number of classes.

    Returns:
        Counts, int32.

    Raises:
        ValueError: predictions and labels differ in shape.
    """
    if predictions.shape != labels.shape:
        raise ValueError(
            f"predictions have shape {predictions.shape} and labels {labels.shape}, expected the "
            "same"
        )
    counts = jnp.zeros((num_classes, num_classes), jnp.int32)
    return counts.at[labels, predictions].add(1)


def wilson_interval(errors: int, total: int) -> tuple[float, float]:
    """95 % Wilson score interval of an error rate.

    Args:
        errors: wrong predictions.
        total: all predictions.

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: ``errors`` is not between 0 and ``total``, or ``total`` is 0.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Example:
        >>> [round(end, 4) for end in wilson_interval(25, 10_000)]
        [0.0017, 0.0037]
    """
    if not 0 <= errors <= total or total < 1:
        raise ValueError(f"{errors} errors of {total}, expected 0 <= errors <= total, total >= 1")
    z = 1.959963984540054  # the standard normal's 97.5 % quantile
    rate, spread = errors / total, z * z / total
    centre = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / total + spread / (4 * total)) / (1 + spread)
    # At the ends rounding would leave 1e-17 where the interval is exact.
    return centre - half if errors else 0.0, centre + half if errors < total else 1.0


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Mean of shares, such as the errors of several seeds, and where it lies with 95 % confidence.

    Args:
        values: at least one, each in [0, 1].

    Returns:
        Their mean, and both ends of its Student t interval, cut off at 0 and 1; None in their place
        for a single value.

    Raises:
        ValueError: no values.

    Source: Student 1908, "The probable error of a mean".

    Example:
        >>> mean, interval = mean_interval([0.02, 0.03, 0.04])
        >>> round(mean, 4), [round(end, 4) for end in interval]
        (0.03, [0.0052, 0.0548])
    """
    count = len(values)
    if count < 1:
        raise ValueError("no values, expected at least one")
    mean = math.fsum(values) / count
    if count == 1:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = float(stdtrit(count - 1, 0.975)) * math.sqrt(variance / count)
    return mean, (max(mean - half, 0.0), min(mean + half, 1.0))
