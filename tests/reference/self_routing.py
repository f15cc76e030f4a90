"""Self-routing: Hahn, Pyeon and Kim 2019."""

import math
from typing import NamedTuple

import numpy as np


class Result(NamedTuple):
    """What routing without iterations gives."""

    coefficients: np.ndarray  # [parents, children]
    poses: np.ndarray  # [parents, dim]
    activations: np.ndarray  # [parents]


def route(
    votes: np.ndarray,
    child_poses: np.ndarray,
    child_activations: np.ndarray,
    params: dict[str, np.ndarray],
) -> Result:
    """One example's votes [parents, dim, children] and child poses [children, child_dim].

    Params: kernel [child_dim, parents, children] and bias [parents, children].
    """
    parents, dim, children = votes.shape
    child_dim = child_poses.shape[1]
    coefficients = np.zeros((parents, children))
    for i in range(children):
        logits = [float(params["bias"][j, i]) for j in range(parents)]
        for j in range(parents):
            for a in range(child_dim):
                logits[j] += params["kernel"][a, j, i] * child_poses[i, a]
        exponentials = [math.exp(x - max(logits)) for x in logits]
        for j in range(parents):
            coefficients[j, i] = exponentials[j] / sum(exponentials)
    poses = np.zeros((parents, dim))
    activations = np.zeros(parents)
    for j in range(parents):
        weights = [coefficients[j, i] * child_activations[i] for i in range(children)]
        if sum(weights) == 0:
            continue
        activations[j] = sum(weights) / sum(child_activations)
        for i in range(children):
            for d in range(dim):
                poses[j, d] += weights[i] * votes[j, d, i] / sum(weights)
    return Result(coefficients, poses, activations)
