"""Losses: Sabour, Frosst and Hinton 2017, equation 4 and section 4.1."""

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


def reconstruction_loss(
    reconstruction: np.ndarray, image: np.ndarray, weight: float = 0.0005
) -> float:
    """Weighted sum of squared differences over all pixels."""
    total = 0.0
    for a, b in zip(np.ravel(reconstruction), np.ravel(image), strict=True):
        total += (float(a) - float(b)) ** 2
    return weight * total
