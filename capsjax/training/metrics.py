"""Metrics: pure functions of predictions and labels."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int


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
