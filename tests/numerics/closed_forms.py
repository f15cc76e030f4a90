"""Values and gradients that are known without running a routing, in float64 NumPy.

A cotangent g is what a gradient is of: of the sum of g times the result.
"""

import numpy as np

# Of inverted attention's layer normalisation, in its authors' code.
EPSILON = 1e-5

Pair = tuple[np.ndarray, np.ndarray]


def squash(s: np.ndarray, g: np.ndarray) -> Pair:
    """h(n) s with h = n / (1 + n^2), for one vector s of length n, and its gradient for g."""
    n = np.linalg.norm(s)
    gain = n / (1 + n**2)
    # h' s s^T / n, written with units: (1 - n^2) n / (1 + n^2)^2.
    return gain * s, gain * g + _along(s, g) * n * (1 - n**2) / (1 + n**2) ** 2


def squash_exponential(s: np.ndarray, g: np.ndarray) -> Pair:
    """h(n) s with h = (1 - e^-n) / n, for one vector s of length n, and its gradient for g."""
    n = np.linalg.norm(s)
    if n < 1e-6:  # 1 - n / 2, whose next term is 1e-13
        return (1 - n / 2) * s, (1 - n / 2) * g - _along(s, g) * n / 2
    gain = -np.expm1(-n) / n
    return gain * s, gain * g + _along(s, g) * (np.exp(-n) - gain)


def layer_norm(s: np.ndarray, g: np.ndarray) -> Pair:
    """c / sqrt(mean c^2 + epsilon) with c = s - mean s, and its gradient for g."""
    c = s - s.mean()
    scale = np.sqrt(np.mean(c**2) + EPSILON)
    y = c / scale
    inner = (g - y * np.mean(g * y)) / scale
    return y, inner - inner.mean()


def same(s: np.ndarray, g: np.ndarray) -> Pair:
    """Nothing done to it."""
    return s, g


def _along(s: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The part of g in the direction of s; 0 for 0."""
    n = np.linalg.norm(s)
    return np.zeros_like(s) if n == 0 else (s / n) * np.sum(s / n * g)
