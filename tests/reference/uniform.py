"""Controls: routing by coefficients that no vote decides, with the squash of dynamic routing."""

from typing import NamedTuple

import numpy as np

from tests.reference.squash import norm, squash


class Result(NamedTuple):
    """What routing without iterations gives."""

    coefficients: np.ndarray  # [parents, children]
    poses: np.ndarray  # [parents, dim]
    activations: np.ndarray  # [parents]


def route(votes: np.ndarray, coefficients: np.ndarray | None = None) -> Result:
    """One example's votes [parents, dim, children]; coefficients None are 1 / parents."""
    parents, dim, children = votes.shape
    if coefficients is None:
        coefficients = np.full((parents, children), 1 / parents)
    poses = np.zeros((parents, dim))
    activations = np.zeros(parents)
    for j in range(parents):
        s = np.zeros(dim)
        for i in range(children):
            s += coefficients[j, i] * votes[j, :, i]
        poses[j] = squash(s)
        activations[j] = norm(poses[j])
    return Result(coefficients, poses, activations)
