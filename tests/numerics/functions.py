"""Squashing and losses beside their references."""

from collections.abc import Callable
from typing import Any

import numpy as np

from capsjax import ops
from capsjax.training import losses
from tests.numerics.case import Arrays, Case
from tests.reference import losses as losses_reference
from tests.reference import squash as squash_reference

# Each an output of its own: the error of short vectors is measured by short vectors.
_LENGTHS = (1e-3, 0.3, 1.0, 3.0, 1e3)

# No two of the activations below differ by nearly as much, nor are any near the margin loss's
# margins: there the second derivative jumps, and numerical differentiation is off.
_MARGIN = 0.85


def _of_vectors(function: Callable[..., Any], refer: Callable[[np.ndarray], Any]) -> Case:
    def draw(random: np.random.Generator, dim: int) -> Arrays:
        drawn = {str(length): random.normal(size=dim) for length in _LENGTHS}
        return {name: float(name) * x / np.linalg.norm(x) for name, x in drawn.items()}

    def library(given: Arrays) -> Arrays:
        return {name: function(x) for name, x in given.items()}

    def expected(given: Arrays, _: str) -> Arrays:
        return {name: refer(x) for name, x in given.items()}

    return Case(draw, {"small": 8, "published": 16}, library, expected, lambda _: library)


def _activations(random: np.random.Generator, count: int) -> np.ndarray:
    return (random.integers(0, 10, count) + 0.5) / 10 + random.uniform(-0.02, 0.02, count)


def _logits(random: np.random.Generator, count: int) -> np.ndarray:
    return 5 * random.normal(size=count)


def _shares(random: np.random.Generator, count: int) -> np.ndarray:
    return random.dirichlet(np.ones(count))


def _of_classes(
    function: Callable[..., Any],
    refer: Callable[..., float],
    draw_activations: Callable[[np.random.Generator, int], np.ndarray],
    **options: Any,
) -> Case:
    def draw(random: np.random.Generator, classes: int) -> Arrays:
        targets = np.zeros(classes)
        targets[random.permutation(classes)[:2]] = 1
        return {"activations": draw_activations(random, classes), "targets": targets}

    def library(given: Arrays) -> Arrays:
        return {"loss": function(given["activations"], given["targets"], **options)}

    def expected(given: Arrays, _: str) -> Arrays:
        return {"loss": refer(given["activations"], given["targets"], **options)}

    return Case(draw, {"small": 5, "published": 10}, library, expected, lambda _: library)


def _of_pictures() -> Case:
    names = ("reconstruction", "image")

    def draw(random: np.random.Generator, side: int) -> Arrays:
        return {name: random.uniform(size=(side, side, 1)) for name in names}

    def library(given: Arrays) -> Arrays:
        return {"loss": losses.reconstruction_loss(*(given[name] for name in names))}

    def expected(given: Arrays, _: str) -> Arrays:
        return {"loss": losses_reference.reconstruction_loss(*(given[name] for name in names))}

    return Case(draw, {"small": 6, "published": 28}, library, expected, lambda _: library)


CASES = {
    "squash": _of_vectors(ops.squash, squash_reference.squash),
    "squash_exponential": _of_vectors(ops.squash_exponential, squash_reference.squash_exponential),
    "safe_norm": _of_vectors(ops.safe_norm, squash_reference.norm),
    "margin_loss": _of_classes(losses.margin_loss, losses_reference.margin_loss, _activations),
    "spread_loss": _of_classes(
        losses.spread_loss, losses_reference.spread_loss, _activations, margin=_MARGIN
    ),
    "cross_entropy": _of_classes(losses.cross_entropy, losses_reference.cross_entropy, _logits),
    "negative_log_likelihood": _of_classes(
        losses.negative_log_likelihood, losses_reference.negative_log_likelihood, _shares
    ),
    "reconstruction_loss": _of_pictures(),
}
