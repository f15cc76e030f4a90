"""Dynamic routing: Sabour, Frosst and Hinton 2017, Procedure 1, with the official code's options.

Those are a bias, added to the sum before every squash, and leaky routing: one more parent, whose
logit stays 0 and whose share of each child is dropped.
"""

import math
from typing import NamedTuple

import numpy as np

from tests.reference.squash import norm, squash


class Iteration(NamedTuple):
    """One pass through the loop of Procedure 1; logits are those after its update."""

    coefficients: np.ndarray  # [parents, children]
    poses: np.ndarray  # [parents, dim]
    activations: np.ndarray  # [parents]
    logits: np.ndarray  # [parents, children]


def route(
    votes: np.ndarray,
    num_iterations: int,
    *,
    bias: np.ndarray | None = None,
    leaky: bool = False,
) -> list[Iteration]:
    """Every iteration for one example's votes [parents, dim, children]."""
    parents, dim, children = votes.shape
    logits = np.zeros((parents, children))
    iterations = []
    for _ in range(num_iterations):
        coefficients = np.zeros((parents, children))
        for i in range(children):
            exponentials = [math.exp(b) for b in logits[:, i]]
            total = sum(exponentials) + (math.exp(0.0) if leaky else 0.0)
            for j in range(parents):
                coefficients[j, i] = exponentials[j] / total
        poses = np.zeros((parents, dim))
        for j in range(parents):
            s = np.zeros(dim) if bias is None else np.array(bias[j], np.float64)
            for i in range(children):
                s += coefficients[j, i] * votes[j, :, i]
            poses[j] = squash(s)
        logits = logits.copy()
        for i in range(children):
            for j in range(parents):
                logits[j, i] += sum(poses[j, d] * votes[j, d, i] for d in range(dim))
        lengths = np.array([norm(v) for v in poses])
        iterations.append(Iteration(coefficients, poses, lengths, logits))
    return iterations
