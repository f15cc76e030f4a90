"""Variational Bayes routing: Ribeiro, Leontidis and Kollias 2020.

A Bayesian Gaussian mixture (Bishop 2006, section 10.2) whose points, the children, count with
their activations. Psi is the inverse of the Wishart's W. The lower bound that every exact update
must raise stands beside it.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, gammaln

ALPHA0, MEAN0, KAPPA0 = 1.0, 0.0, 1.0  # and Psi0 = identity, nu0 = dim + 1


class Iteration(NamedTuple):
    """Coefficients, and the posterior that is made with them."""

    coefficients: np.ndarray  # [parents, children]
    poses: np.ndarray  # [parents, dim], the posterior means m
    activations: np.ndarray  # [parents], logits if those are asked for
    alpha: np.ndarray  # [parents], the Dirichlet's concentrations
    kappa: np.ndarray  # [parents], how many votes each mean is worth
    nu: np.ndarray  # [parents], the Wisharts' degrees of freedom
    psi: np.ndarray  # [parents, dim, dim], the Wisharts' inverse scales


def route(
    votes: np.ndarray,
    child_activations: np.ndarray,
    params: dict[str, np.ndarray],
    num_iterations: int,
    *,
    covariance: str = "diagonal",
    activation: str = "sigmoid",
) -> list[Iteration]:
    """Every iteration for one example's votes [parents, dim, children].

    Params: beta_a and beta_u [parents].
    """
    parents, _, children = votes.shape
    iterations: list[Iteration] = []
    for t in range(num_iterations):
        if t == 0:
            coefficients = np.full((parents, children), 1 / parents)
        else:
            coefficients = e_step(votes, iterations[-1])
        iteration = update(votes, child_activations, coefficients, covariance)
        logits = activation_logits(iteration, params)
        if activation == "sigmoid":
            logits = np.array([1 / (1 + math.exp(-x)) for x in logits])
        iterations.append(iteration._replace(activations=logits))
    return iterations


def update(
    votes: np.ndarray, child_activations: np.ndarray, coefficients: np.ndarray, covariance: str
) -> Iteration:
    """The posterior given the coefficients; activations are left at 0."""
    parents, dim, children = votes.shape
    alpha, kappa, nu = np.zeros(parents), np.zeros(parents), np.zeros(parents)
    means, psi = np.zeros((parents, dim)), np.zeros((parents, dim, dim))
    for j in range(parents):
        weights = [coefficients[j, i] * child_activations[i] for i in range(children)]
        count = sum(weights)
        center = np.zeros(dim)
        if count > 0:
            for i in range(children):
                center += weights[i] * votes[j, :, i] / count
        alpha[j] = ALPHA0 + count
        kappa[j] = KAPPA0 + count
        nu[j] = dim + 1 + count
        means[j] = (KAPPA0 * MEAN0 + count * center) / kappa[j]
        for d in range(dim):
            for e in range(dim):
                if covariance == "diagonal" and d != e:
                    continue
                psi[j, d, e] = 1.0 if d == e else 0.0
                for i in range(children):
                    vote = votes[j, :, i]
                    psi[j, d, e] += weights[i] * (vote[d] - center[d]) * (vote[e] - center[e])
                pull = (center[d] - MEAN0) * (center[e] - MEAN0)
                psi[j, d, e] += KAPPA0 * count / kappa[j] * pull
    return Iteration(coefficients, means, np.zeros(parents), alpha, kappa, nu, psi)


def expected_log_share(posterior: Iteration, j: int) -> float:
    """E ln pi_j."""
    return float(digamma(posterior.alpha[j]) - digamma(sum(posterior.alpha)))


def expected_log_determinant(posterior: Iteration, j: int) -> float:
    """E ln |Lambda_j|."""
    dim = posterior.poses.shape[1]
    total = dim * math.log(2) - math.log(np.linalg.det(posterior.psi[j]))
    for d in range(dim):
        total += float(digamma((posterior.nu[j] - d) / 2))
    return total


def expected_distance(posterior: Iteration, j: int, vote: np.ndarray) -> float:
    """E (V - mu_j)^T Lambda_j (V - mu_j) for one vote [dim]."""
    difference = vote - posterior.poses[j]
    precision = posterior.nu[j] * np.linalg.inv(posterior.psi[j])
    return len(vote) / posterior.kappa[j] + float(difference @ precision @ difference)


def log_joint(votes: np.ndarray, posterior: Iteration, j: int, i: int) -> float:
    """What the E step compares, without the constant -D/2 ln 2 pi."""
    return (
        expected_log_share(posterior, j)
        + expected_log_determinant(posterior, j) / 2
        - expected_distance(posterior, j, votes[j, :, i]) / 2
    )


def e_step(votes: np.ndarray, posterior: Iteration) -> np.ndarray:
    """R_ij, a softmax over parents."""
    parents, _, children = votes.shape
    coefficients = np.zeros((parents, children))
    for i in range(children):
        joint = [log_joint(votes, posterior, j, i) for j in range(parents)]
        exponentials = [math.exp(x - max(joint)) for x in joint]
        for j in range(parents):
            coefficients[j, i] = exponentials[j] / sum(exponentials)
    return coefficients


def activation_logits(posterior: Iteration, params: dict[str, np.ndarray]) -> np.ndarray:
    """beta_a_j - (exp(E ln pi_j) H_j + beta_u_j), H_j the entropy of the parent's Gaussian."""
    parents, dim = posterior.poses.shape
    logits = np.zeros(parents)
    for j in range(parents):
        entropy = dim / 2 * (1 + math.log(2 * math.pi)) - expected_log_determinant(posterior, j) / 2
        cost = math.exp(expected_log_share(posterior, j)) * entropy + params["beta_u"][j]
        logits[j] = params["beta_a"][j] - cost
    return logits


def lower_bound(
    votes: np.ndarray,
    child_activations: np.ndarray,
    coefficients: np.ndarray,
    posterior: Iteration,
) -> float:
    """The evidence lower bound; updates with covariance="full" and E steps never lower it."""
    parents, dim, children = votes.shape
    bound = 0.0
    for i in range(children):
        for j in range(parents):
            share = coefficients[j, i]
            if share > 0:
                density = log_joint(votes, posterior, j, i) - dim / 2 * math.log(2 * math.pi)
                bound += child_activations[i] * share * (density - math.log(share))
    bound -= gammaln(sum(posterior.alpha)) - gammaln(parents * ALPHA0)
    for j in range(parents):
        bound += gammaln(posterior.alpha[j]) - gammaln(ALPHA0)
        bound -= (posterior.alpha[j] - ALPHA0) * expected_log_share(posterior, j)
        bound -= _normal_divergence(posterior, j) + _wishart_divergence(posterior, j)
    return float(bound)


def _normal_divergence(posterior: Iteration, j: int) -> float:
    """Expected KL of N(m, (kappa Lambda)^-1) from N(m0, (kappa0 Lambda)^-1)."""
    dim = posterior.poses.shape[1]
    ratio = KAPPA0 / posterior.kappa[j]
    shift = posterior.poses[j] - MEAN0
    distance = KAPPA0 * posterior.nu[j] * float(shift @ np.linalg.inv(posterior.psi[j]) @ shift)
    return (dim * (ratio - 1 - math.log(ratio)) + distance) / 2


def _wishart_divergence(posterior: Iteration, j: int) -> float:
    """KL of the parent's Wishart from the prior with Psi0 = identity and nu0 = dim + 1."""
    psi, nu = posterior.psi[j], posterior.nu[j]
    dim, nu0 = len(psi), len(psi) + 1
    trace = float(np.trace(np.linalg.inv(psi)))
    return (
        _log_wishart_constant(psi, nu)
        - _log_wishart_constant(np.eye(dim), nu0)
        + (nu - nu0) / 2 * expected_log_determinant(posterior, j)
        + nu / 2 * (trace - dim)
    )


def _log_wishart_constant(psi: np.ndarray, nu: float) -> float:
    """ln B(W, nu) of Bishop 2006, equation B.79."""
    dim = len(psi)
    total = nu / 2 * math.log(np.linalg.det(psi)) - nu * dim / 2 * math.log(2)
    total -= dim * (dim - 1) / 4 * math.log(math.pi)
    for d in range(dim):
        total -= float(gammaln((nu - d) / 2))
    return total
