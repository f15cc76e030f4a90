"""Losses: Sabour 2017, equation 4 and section 4.1; Hinton 2018, equation 3; cross-entropy."""

import math

import numpy as np


def margin_loss(
    lengths: np.ndarray,
    targets: np.ndarray,
    *,
    positive_margin: float = 0.9,
    negative_margin: float = 0.1,
    absent_weight: float = 0.5,
    official: bool = False,
) -> float:
    """Sum over classes of L_k; the official code takes half the mean."""
    losses = []
    for length, present in zip(lengths, targets, strict=True):
        losses.append(
            present * max(0.0, positive_margin - length) ** 2
            + absent_weight * (1 - present) * max(0.0, length - negative_margin) ** 2
        )
    return 0.5 * sum(losses) / len(losses) if official else sum(losses)


def spread_loss(activations: np.ndarray, targets: np.ndarray, margin: float) -> float:
    """Sum over pairs of a present and an absent class of the squared lack of a lead."""
    total = 0.0
    for present, target in zip(activations, targets, strict=True):
        for absent, other in zip(activations, targets, strict=True):
            if target and not other:
                total += max(0.0, margin - (present - absent)) ** 2
    return total


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the present classes of the negative logarithm of their softmax."""
    whole = sum(math.exp(logit) for logit in logits)
    terms = [math.log(whole) - float(logit) for logit, t in zip(logits, targets, strict=True) if t]
    return sum(terms) / len(terms)


def negative_log_likelihood(activations: np.ndarray, targets: np.ndarray) -> float:
    """Sum over the present classes of the negative logarithm of their share, 1e-7 added to all."""
    some = [float(a) + 1e-7 for a in activations]
    return sum(math.log(sum(some) / a) for a, t in zip(some, targets, strict=True) if t)


def spread_margin(step: int, total: int, steps: int | None = None, official: bool = False) -> float:
    """From 0.2 to 0.9 in a straight line, or along the official logistic curve."""
    if official:
        return 0.2 + 0.79 / (1 + math.exp(-min(10.0, step / 50_000 - 4)))
    end = max(1, total // 2) if steps is None else steps
    return 0.2 + 0.7 * min(1.0, step / end)


def reconstruction_loss(
    reconstruction: np.ndarray, image: np.ndarray, weight: float = 0.0005
) -> float:
    """Weighted sum of squared differences over all pixels."""
    total = 0.0
    for a, b in zip(np.ravel(reconstruction), np.ravel(image), strict=True):
        total += (float(a) - float(b)) ** 2
    return weight * total
