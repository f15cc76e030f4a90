"""Inverted dot-product attention routing: Tsai, Srivastava, Goh and Salakhutdinov 2020."""

import math
from typing import NamedTuple

import numpy as np


class Iteration(NamedTuple):
    """One round of attention; there are no activations."""

    coefficients: np.ndarray  # [parents, children]
    poses: np.ndarray  # [parents, dim]
    activations: None = None


def layer_norm(x: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """(x - mean) / sqrt(variance + 1e-5) * scale + offset for one vector, its variance biased."""
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    normal = np.zeros(len(x))
    for d in range(len(x)):
        normal[d] = (x[d] - mean) / math.sqrt(variance + 1e-5) * scale[d] + offset[d]
    return normal


def route(votes: np.ndarray, params: dict[str, np.ndarray], num_iterations: int) -> list[Iteration]:
    """Every iteration for one example's votes [parents, dim, children].

    Params: scale and offset [dim].
    """
    parents, dim, children = votes.shape
    iterations: list[Iteration] = []
    for t in range(num_iterations):
        coefficients = np.full((parents, children), 1 / parents)
        if t > 0:
            for i in range(children):
                agreement = [
                    sum(iterations[-1].poses[j, d] * votes[j, d, i] for d in range(dim))
                    / math.sqrt(dim)
                    for j in range(parents)
                ]
                exponentials = [math.exp(x - max(agreement)) for x in agreement]
                for j in range(parents):
                    coefficients[j, i] = exponentials[j] / sum(exponentials)
        poses = np.zeros((parents, dim))
        for j in range(parents):
            s = np.zeros(dim)
            for i in range(children):
                s += coefficients[j, i] * votes[j, :, i]
            poses[j] = layer_norm(s, params["scale"], params["offset"])
        iterations.append(Iteration(coefficients, poses))
    return iterations
