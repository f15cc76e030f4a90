"""A trained CapsNet with other numbers of iterations than it was trained with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from capsjax.data import augment
from capsjax.routing import convergence, measures
from capsjax.training.step import split

_BATCH = 50


def traced(network: Any, images: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """What a CapsNet says after each iteration of its routing, from one pass with a trace.

    Args:
        network: of ``models.capsnet``, with an iterative routing; it is left as it is.
        images: uint8 ``[N, H, W, C]``.
        iterations: from 1 to so many.

    Returns:
        The classes, int ``[N, iterations]``, and the mean over images of the couplings'
        polarisation, ``[iterations]``.
    """
    longer = nnx.clone(network)
    longer.classes.routing.config = convergence.extrapolate(
        network.classes.routing.config, iterations
    )
    longer.eval()
    graph, params, rest = split(longer)

    @jax.jit
    def forward(params: Any, rest: Any, images: Array) -> tuple[Array, Array]:
        merged = nnx.merge(graph, params, rest, copy=True)
        trace = merged(augment.to_unit_interval(images), trace=True).routed[0].trace
        return trace.activations.argmax(-1), measures.polarisation(trace.coefficients)

    parts = [
        forward(params, rest, jnp.asarray(images[start : start + _BATCH]))
        for start in range(0, len(images), _BATCH)
    ]
    said, polarised = (np.concatenate(each) for each in zip(*parts, strict=True))
    return said, polarised.mean(0)
