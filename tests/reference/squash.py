"""Squashing: Sabour, Frosst and Hinton 2017, equation 1; Mazzia et al. 2021, equation 8."""

import math

import numpy as np


def norm(s: np.ndarray) -> float:
    """Length of one vector."""
    return math.sqrt(sum(float(x) ** 2 for x in s))


def squash(s: np.ndarray) -> np.ndarray:
    """v = |s|^2 / (1 + |s|^2) * s / |s| for one vector s [dim]; 0 for 0."""
    length = norm(s)
    if length == 0:
        return np.zeros(len(s))
    return length**2 / (1 + length**2) * np.asarray(s, np.float64) / length


def squash_exponential(s: np.ndarray) -> np.ndarray:
    """v = (1 - exp(-|s|)) * s / |s| for one vector s [dim]; 0 for 0."""
    length = norm(s)
    if length == 0:
        return np.zeros(len(s))
    return -math.expm1(-length) * np.asarray(s, np.float64) / length
