"""Self-attention routing: Mazzia, Salvetti and Chiaberge 2021 (Efficient-CapsNet)."""

import math
from typing import NamedTuple

import numpy as np


class Result(NamedTuple):
    """What routing without iterations gives."""

    coefficients: np.ndarray  # [parents, children]
    poses: np.ndarray  # [parents, dim]
    activations: np.ndarray  # [parents]


def squash(s: np.ndarray) -> np.ndarray:
    """(1 - exp(-|s|)) s / |s| for one vector s [dim]; 0 for 0."""
    length = math.sqrt(sum(float(x) ** 2 for x in s))
    if length == 0:
        return np.zeros(len(s))
    return (1 - math.exp(-length)) * np.asarray(s, np.float64) / length


def route(votes: np.ndarray, prior: np.ndarray | None = None) -> Result:
    """One example's votes [parents, dim, children]; prior [parents, children] after the softmax."""
    parents, dim, children = votes.shape
    attention = np.zeros((parents, children))
    for j in range(parents):
        for i in range(children):
            for k in range(children):
                product = sum(votes[j, d, i] * votes[j, d, k] for d in range(dim))
                attention[j, i] += product / math.sqrt(dim)
    coefficients = np.zeros((parents, children))
    for i in range(children):
        exponentials = [math.exp(a - max(attention[:, i])) for a in attention[:, i]]
        for j in range(parents):
            coefficients[j, i] = exponentials[j] / sum(exponentials)
            if prior is not None:
                coefficients[j, i] += prior[j, i]
    poses = np.zeros((parents, dim))
    activations = np.zeros(parents)
    for j in range(parents):
        s = np.zeros(dim)
        for i in range(children):
            s += coefficients[j, i] * votes[j, :, i]
        poses[j] = squash(s)
        activations[j] = math.sqrt(sum(x**2 for x in poses[j]))
    return Result(coefficients, poses, activations)
