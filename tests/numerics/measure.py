"""Errors of the library's values and gradients.

An error is the largest absolute difference from the exact array over the largest absolute number in
that array; of several arrays the largest error counts. Exact values are the reference's. Exact
gradients are the library's own in float64, and these are held to the slopes of the reference: along
a normal direction d the error is the difference from the numerical slope over the gradient's norm,
whose expected square is that of the gradient's own error (E (e.d)^2 = |e|^2).
"""

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.numerics import functions, routings
from tests.numerics.case import CONSTANT, Arrays, inputs, weights

CASES = {**routings.CASES, **functions.CASES}
DTYPES = ("float64", "float32", "bfloat16")

# Of the numerical slopes, beside the size of what is moved: with the first, rounding and what is
# left out of the series both come to about 1e-12.
_STEPS = 3e-4, 3e-5


class Results(NamedTuple):
    """Outputs, and gradients of their weighted sum, by name."""

    values: Arrays
    gradients: Arrays


def differentiated(function: Callable[[Arrays], Arrays]) -> Callable[[Arrays, Arrays], Results]:
    """A function of inputs and weights that gives results."""

    def run(given: Arrays, weights: Arrays) -> Results:
        constant = {name: array for name, array in given.items() if name in CONSTANT}
        free = {name: array for name, array in given.items() if name not in CONSTANT}
        values, pull = jax.vjp(lambda free: function(free | constant), free)
        return Results(values, *pull(weights))

    return run


@functools.cache
def compiled(function: Callable[[Arrays], Arrays]) -> Callable[[Arrays, Arrays], Results]:
    """The same, compiled once for each shape and dtype."""
    return jax.jit(differentiated(function))


@functools.cache
def drawn(name: str, size: str, seed: int) -> tuple[Arrays, Arrays]:
    """A case's inputs and weights, float64 in NumPy."""
    given = inputs(CASES[name], size, seed)
    return given, weights(CASES[name], given)


def in_dtype(tree: Any, dtype: str) -> Any:
    """Arrays of JAX."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def found(name: str, size: str, seed: int, dtype: str, run: Callable = compiled) -> Results:
    """What the library computes in a dtype, where 64 bits are turned on if it is float64."""
    arguments = in_dtype(drawn(name, size, seed), dtype)
    return run(CASES[name].library)(*arguments)


def exact(name: str, size: str, seed: int, dtype: str) -> Results:
    """What it would compute in that dtype without rounding."""
    of_dtype = CASES[name].exact(dtype) is not CASES[name].library
    return _exact(name, size, seed, dtype if of_dtype else "float64")


@functools.cache
def _exact(name: str, size: str, seed: int, dtype: str) -> Results:
    case = CASES[name]
    given, weights = drawn(name, size, seed)
    with jax.enable_x64(True):
        function = compiled(case.exact(dtype))
        gradients = function(*in_dtype((given, weights), "float64")).gradients
    return Results(case.reference(given, dtype), gradients)


def errors(results: Results, expected: Results) -> tuple[float, float]:
    """Of values and of gradients, the largest."""
    value, gradient = (
        max(relative(ours[name], theirs[name]) for name in theirs)
        for ours, theirs in zip(results, expected, strict=True)
    )
    return value, gradient


def relative(found: Any, expected: Any) -> float:
    """Infinite where a number is not finite, or where there should be nothing but zeros."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    if not np.isfinite(found).all():
        return np.inf
    worst = np.abs(found - expected).max()
    largest = np.abs(expected).max()
    return float(worst / largest) if largest else (np.inf if worst else 0.0)


def error_of_exact_gradients(
    name: str, size: str, seed: int, *, without: Collection[str] = ()
) -> float:
    """Against slopes of the reference, one input after the other, but for those that do not count.

    Of two steps the closer slope counts: the longer one may reach across a sharp bend, the shorter
    one loses digits. A wrong gradient is close to neither.
    """
    given, weights = drawn(name, size, seed)
    gradients = exact(name, size, seed, "float64").gradients
    random, worst = np.random.default_rng(2), 0.0
    for moved, gradient in gradients.items():
        if moved in without:
            continue
        gradient, scale = np.asarray(gradient), np.sqrt(np.mean(np.square(given[moved])))
        direction = random.normal(size=gradient.shape)
        differences = []
        for step in scale * np.array(_STEPS):
            slope = _slope(name, given, weights, moved, step * direction) / step
            differences.append(np.abs(np.sum(gradient * direction) - slope))
        worst = max(worst, float(min(differences) / np.linalg.norm(gradient)))
    return worst


def _slope(name: str, given: Arrays, weights: Arrays, moved: str, step: np.ndarray) -> float:
    """Of the reference's weighted outputs for one step, by central differences of fourth order."""

    def at(steps: int) -> Arrays:
        there = {**given, moved: given[moved] + steps * step}
        return CASES[name].reference(there, "float64")

    near, far = ((at(steps), at(-steps)) for steps in (1, 2))
    total = 0.0
    for output, weight in weights.items():
        (one, other), (third, fourth) = ([x[output] for x in pair] for pair in (near, far))
        difference = 8 * (np.asarray(one) - other) - (np.asarray(third) - fourth)
        total += float(np.sum(weight * difference)) / 12
    return total
