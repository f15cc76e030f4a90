"""Votes: Sabour, Frosst and Hinton 2017, equation 2."""

import numpy as np


def dense_votes(poses: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """u_hat_{j|i} = W_ij u_i for every example.

    Args:
        poses: [batch, children, child_dim].
        weights: [child_dim, parents, dim, children].

    Returns:
        [batch, parents, dim, children].
    """
    batch, children, child_dim = poses.shape
    _, parents, dim, _ = weights.shape
    votes = np.zeros((batch, parents, dim, children))
    for b in range(batch):
        for i in range(children):
            for j in range(parents):
                for d in range(dim):
                    for a in range(child_dim):
                        votes[b, j, d, i] += float(weights[a, j, d, i]) * float(poses[b, i, a])
    return votes
