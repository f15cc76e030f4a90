"""What a line of the table is, and what it is given."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Arrays = dict[str, Any]

# What is chosen and not computed with has no gradient.
CONSTANT = ("targets",)


class Case(NamedTuple):
    """A function of the library beside its float64 reference.

    Attributes:
        draw: inputs by name, from a generator and for one of the sizes.
        sizes: "small" is the suite's, "published" that of a paper.
        library: outputs by name, of inputs.
        reference: the same in float64; it is told the dtype that the library computes in.
        exact: given a dtype, what computes in float64 what ``library`` computes in that dtype.
    """

    draw: Callable[[np.random.Generator, Any], Arrays]
    sizes: dict[str, Any]
    library: Callable[[Arrays], Arrays]
    reference: Callable[[Arrays, str], Arrays]
    exact: Callable[[str], Callable[[Arrays], Arrays]]


def inputs(case: Case, size: str, seed: int) -> Arrays:
    """Float64 inputs that bfloat16 holds as they are: every dtype is given the same numbers."""
    drawn = case.draw(np.random.default_rng(seed), case.sizes[size])
    return {name: _held(array) for name, array in drawn.items()}


def weights(case: Case, given: Arrays) -> Arrays:
    """By which the outputs are summed for a gradient: normal, one for each of their numbers."""
    random = np.random.default_rng(1)
    narrow = {name: array.astype(np.float32) for name, array in given.items()}
    shapes = jax.eval_shape(case.library, narrow)
    return {name: _held(random.normal(size=shapes[name].shape)) for name in sorted(shapes)}


def _held(array: Any) -> np.ndarray:
    return np.asarray(array).astype(jnp.bfloat16).astype(np.float64)
