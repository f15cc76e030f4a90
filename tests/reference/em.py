"""EM routing: Hinton, Sabour and Frosst 2018, Procedure 1, and the authors' released code.

Beside them stands a Gaussian mixture, written on its own with densities in place of their
logarithms, and the free energy that its steps must lower.
"""

import math
from typing import NamedTuple

import numpy as np


class Iteration(NamedTuple):
    """One E step (none in the first iteration, whose coefficients are uniform) and one M step."""

    coefficients: np.ndarray  # [parents, children]
    poses: np.ndarray  # [parents, dim], the means
    activations: np.ndarray  # [parents]
    variances: np.ndarray  # [parents, dim]
    logits: np.ndarray  # [parents], of the activations


class Mixture(NamedTuple):
    """A Gaussian mixture after its M step, and the coefficients of the E step that follows."""

    means: np.ndarray  # [parents, dim]
    variances: np.ndarray  # [parents, dim]
    proportions: np.ndarray  # [parents]
    coefficients: np.ndarray  # [parents, children]


def route(
    votes: np.ndarray,
    child_activations: np.ndarray,
    params: dict[str, np.ndarray],
    num_iterations: int,
    *,
    semantics: str = "paper",
    final_inverse_temperature: float = 0.01,
    minimum_variance: float = 5e-4,
) -> list[Iteration]:
    """Every iteration for one example's votes [parents, dim, children].

    Params: beta_u and beta_a [parents], or activation_bias and sigma_bias with "official".
    """
    parents, _, children = votes.shape
    iterations: list[Iteration] = []
    for t in range(num_iterations):
        if t == 0:
            coefficients = np.full((parents, children), 1 / parents)
        else:
            last = iterations[-1]
            coefficients = e_step(votes, last.poses, last.variances, last.logits)
        inverse_temperature = final_inverse_temperature * (1 - 0.95 ** (t + 1))
        if semantics == "paper":
            means, variances, logits = m_step_paper(
                votes,
                child_activations,
                coefficients,
                params,
                inverse_temperature,
                minimum_variance,
            )
        else:
            previous = iterations[-1].poses if iterations else np.zeros(votes.shape[:2])
            means, variances, logits = m_step_official(
                votes,
                child_activations,
                coefficients,
                params,
                inverse_temperature,
                minimum_variance,
                previous,
            )
        activations = np.array([math.exp(log_logistic(logit)) for logit in logits])
        iterations.append(Iteration(coefficients, means, activations, variances, logits))
    return iterations


def log_logistic(logit: float) -> float:
    """log(1 / (1 + exp(-logit))), without overflow."""
    if logit < 0:
        return logit - math.log1p(math.exp(logit))
    return -math.log1p(math.exp(-logit))


def log_density(vote: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
    """log N of one vote [dim] under one parent's diagonal Gaussian."""
    total = 0.0
    for v, mu, var in zip(vote, mean, variance, strict=True):
        total += (v - mu) ** 2 / var + math.log(var) + math.log(2 * math.pi)
    return -0.5 * total


def e_step(
    votes: np.ndarray, means: np.ndarray, variances: np.ndarray, logits: np.ndarray
) -> np.ndarray:
    """R_ij = a_j N_ij / sum_k a_k N_ik, with a_j = logistic(logits_j)."""
    parents, _, children = votes.shape
    coefficients = np.zeros((parents, children))
    for i in range(children):
        joint = [
            log_logistic(logits[j]) + log_density(votes[j, :, i], means[j], variances[j])
            for j in range(parents)
        ]
        exponentials = [math.exp(x - max(joint)) for x in joint]
        for j in range(parents):
            coefficients[j, i] = exponentials[j] / sum(exponentials)
    return coefficients


def m_step_paper(
    votes: np.ndarray,
    child_activations: np.ndarray,
    coefficients: np.ndarray,
    params: dict[str, np.ndarray],
    inverse_temperature: float,
    minimum_variance: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, variances and the activations' logits, by the paper."""
    parents, dim, children = votes.shape
    means = np.zeros((parents, dim))
    variances = np.full((parents, dim), minimum_variance)
    logits = np.zeros(parents)
    for j in range(parents):
        weights = [coefficients[j, i] * child_activations[i] for i in range(children)]
        mass = sum(weights)
        cost = 0.0
        if mass > 0:
            for d in range(dim):
                means[j, d] = sum(weights[i] * votes[j, d, i] for i in range(children)) / mass
                squares = sum(
                    weights[i] * (votes[j, d, i] - means[j, d]) ** 2 for i in range(children)
                )
                variances[j, d] = max(squares / mass, minimum_variance)
                cost += (params["beta_u"][j] + math.log(math.sqrt(variances[j, d]))) * mass
        logits[j] = inverse_temperature * (params["beta_a"][j] - cost)
    return means, variances, logits


def m_step_official(
    votes: np.ndarray,
    child_activations: np.ndarray,
    coefficients: np.ndarray,
    params: dict[str, np.ndarray],
    inverse_temperature: float,
    minimum_variance: float,
    previous: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, variances and the activations' logits, by the released code."""
    parents, dim, children = votes.shape
    means = np.zeros((parents, dim))
    variances = np.zeros((parents, dim))
    logits = np.zeros(parents)
    for j in range(parents):
        weights = [coefficients[j, i] * child_activations[i] for i in range(children)]
        mass = sum(weights) + 1e-7
        log_variances = 0.0
        for d in range(dim):
            mean = sum(weights[i] * votes[j, d, i] for i in range(children)) / mass
            means[j, d] = 0.9 * mean + 0.1 * previous[j, d]
            squares = sum(weights[i] * (votes[j, d, i] - means[j, d]) ** 2 for i in range(children))
            variances[j, d] = minimum_variance + squares / mass
            log_variances += math.log(variances[j, d])
        reference = params["sigma_bias"][j] * dim * (1 + math.log(2 * math.pi))
        evidence = mass * (-log_variances - reference) - 5000 * params["activation_bias"][j]
        logits[j] = inverse_temperature * evidence
    return means, variances, logits


def gaussian_mixture_step(
    votes: np.ndarray,
    weights: np.ndarray,
    coefficients: np.ndarray,
    proportions: np.ndarray | None = None,
) -> Mixture:
    """An exact M step, then an exact E step, for children counted with weights [children].

    Every parent sees the children through its own votes. Proportions None are the exact ones, each
    parent's share of the weights; EM routing has its activations there.
    """
    parents, dim, children = votes.shape
    means = np.zeros((parents, dim))
    variances = np.zeros((parents, dim))
    shares = np.zeros(parents)
    for j in range(parents):
        count = np.array([weights[i] * coefficients[j, i] for i in range(children)])
        shares[j] = np.sum(count) / np.sum(weights)
        for d in range(dim):
            means[j, d] = np.average(votes[j, d], weights=count)
            variances[j, d] = np.average(votes[j, d] ** 2, weights=count) - means[j, d] ** 2
    if proportions is None:
        proportions = shares
    posterior = np.zeros((parents, children))
    for i in range(children):
        for j in range(parents):
            posterior[j, i] = proportions[j]
            for d in range(dim):
                deviation = math.sqrt(variances[j, d])
                z = (votes[j, d, i] - means[j, d]) / deviation
                posterior[j, i] *= math.exp(-(z**2) / 2) / (deviation * math.sqrt(2 * math.pi))
        posterior[:, i] /= np.sum(posterior[:, i])
    return Mixture(means, variances, np.asarray(proportions, np.float64), posterior)


def free_energy(
    votes: np.ndarray,
    child_activations: np.ndarray,
    coefficients: np.ndarray,
    means: np.ndarray,
    variances: np.ndarray,
    activations: np.ndarray,
) -> float:
    """F = sum_ij a_i R_ij (log R_ij - log a_j - log N_ij); a share of 0 adds 0."""
    parents, _, children = votes.shape
    total = 0.0
    for i in range(children):
        for j in range(parents):
            share = coefficients[j, i]
            if share > 0:
                joint = math.log(activations[j])
                joint += log_density(votes[j, :, i], means[j], variances[j])
                total += child_activations[i] * share * (math.log(share) - joint)
    return total
