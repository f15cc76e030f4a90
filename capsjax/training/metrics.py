"""Metrics: pure functions of predictions and labels."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Integer

from capsjax import checks

# A matrix of these has 400 MB.
_MOST_CLASSES = 10_000


@checks.arguments(together=False)
def accuracy(
    activations: Float[Array, "*batch classes"], labels: Integer[Array, "*batch"]
) -> Float[Array, ""]:
    """Share of examples whose most active class is the label.

    Args:
        activations: of the class capsules.
        labels: the true classes.

    Returns:
        A scalar in [0, 1]; an example with an activation that is NaN is not right.

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
    found = jnp.argmax(activations, axis=-1) == labels
    return jnp.mean(found & ~_any_nan(activations))


@checks.arguments(together=False)
def exact_match(
    activations: Float[Array, "*batch classes"], labels: Integer[Array, "*batch k"]
) -> Float[Array, ""]:
    """Share of examples whose k most active classes are their k labels, in any order.

    Args:
        activations: of the class capsules.
        labels: the true classes, k different ones of each example.

    Returns:
        A scalar in [0, 1]; an example with an activation that is NaN is not right.

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
    return jnp.mean(found.all(-1) & ~_any_nan(activations))


@checks.arguments(together=False, empty=True)
def confusion_matrix(
    predictions: Integer[Array, " examples"], labels: Integer[Array, " examples"], num_classes: int
) -> Integer[Array, "classes classes"]:
    """How often each true class (row) was taken for each class (column).

    Args:
        predictions: predicted classes.
        labels: true classes.
        num_classes: number of classes.

    Returns:
        Counts, int32.

    Raises:
        ValueError: predictions and labels differ in shape, or one is no class. Traced ones cannot
            be looked at: there an example of no class is left out.
    """
    if predictions.shape != labels.shape:
        raise ValueError(
            f"predictions have shape {predictions.shape} and labels {labels.shape}, expected the "
            "same"
        )
    if not 1 <= num_classes <= _MOST_CLASSES:
        raise ValueError(f"num_classes is {num_classes}, expected 1 to {_MOST_CLASSES}")
    for name, classes in (("predictions", predictions), ("labels", labels)):
        if not isinstance(classes, jax.core.Tracer) and classes.size:
            low, high = int(classes.min()), int(classes.max())
            if low < 0 or high >= num_classes:
                raise ValueError(
                    f"{name} are from {low} to {high}, expected 0 to {num_classes - 1}"
                )
    counts = jnp.zeros((num_classes, num_classes), jnp.int32)
    rows, columns = jnp.asarray(labels, jnp.int32), jnp.asarray(predictions, jnp.int32)
    # Negative ones would count from the end.
    rows = jnp.where(rows < 0, num_classes, rows)
    columns = jnp.where(columns < 0, num_classes, columns)
    return counts.at[rows, columns].add(1, mode="drop")


def _any_nan(activations: Array) -> Array:
    """Which examples have no most active class: argmax would take the NaN for it."""
    return jnp.isnan(activations).any(-1)
