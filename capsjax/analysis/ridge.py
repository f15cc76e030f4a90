"""Ridge regression whose strength leave-one-out chooses, for many targets of the same inputs."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# To choose from, as shares of the inputs' largest squared singular value.
STRENGTHS = 10.0 ** np.arange(-10, 2)


class Inputs(NamedTuple):
    """Inputs of a regression, taken apart once for all targets.

    Attributes:
        mean: ``[D]``.
        left: ``[N, K]``, left singular vectors of what is about the mean.
        values: ``[K]``, singular values.
        right: ``[K, D]``, right singular vectors.
    """

    mean: np.ndarray
    left: np.ndarray
    values: np.ndarray
    right: np.ndarray


def taken_apart(rows: Float[np.ndarray, "N D"]) -> Inputs:
    """Prepare inputs for ``predicted``.

    Args:
        rows: float ``[N, D]``, one vector of inputs an image.

    Returns:
        Their mean, and the singular value decomposition of what is about it, float64.

    Example:
        >>> inputs = taken_apart(np.array([[0.0, 3.0], [8.0, 3.0], [4.0, 3.0]]))
        >>> inputs.mean.tolist(), inputs.left.shape, inputs.right.shape
        ([4.0, 3.0], (3, 2), (2, 2))
    """
    mean = rows.mean(0)
    return Inputs(mean, *np.linalg.svd(rows - mean, full_matrices=False))


def predicted(
    inputs: Inputs, target: Float[np.ndarray, "N E"], rows: Float[np.ndarray, "M D"]
) -> Float[np.ndarray, "M E"]:
    """What a regression on the inputs predicts of a target, for other rows.

    Args:
        inputs: of ``taken_apart``.
        target: float ``[N, E]``, of the same images as the inputs.
        rows: float ``[M, D]``, inputs to predict for.

    Returns:
        float ``[M, E]``, with the one strength that has the least leave-one-out error over all of
        the target's columns.

    Source: Hoerl and Kennard 1970, "Ridge regression: biased estimation for nonorthogonal
    problems"; Allen 1974, "The relationship between variable selection and data augmentation and a
    method for prediction" (leave-one-out without fitting again).

    Example:
        >>> x = np.arange(10.0)[:, None]
        >>> predicted(taken_apart(x), 2 * x + 1, np.array([[20.0]])).round(3).tolist()
        [[41.0]]
    """
    mean = target.mean(0)
    along = inputs.left.T @ (target - mean)
    squares = inputs.values**2
    best, chosen = np.inf, np.zeros_like(squares)
    for strength in STRENGTHS * max(squares[0], np.finfo(float).tiny):
        shrunk = squares / (squares + strength)
        residual = target - mean - inputs.left @ (shrunk[:, None] * along)
        # What a map without this image would miss of it: the residual over what it left free.
        free = 1 - 1 / len(target) - inputs.left**2 @ shrunk
        error = ((residual / np.maximum(free, 1e-12)[:, None]) ** 2).sum()
        if error < best:
            best, chosen = error, inputs.values / (squares + strength)
    return mean + (rows - inputs.mean) @ inputs.right.T @ (chosen[:, None] * along)
