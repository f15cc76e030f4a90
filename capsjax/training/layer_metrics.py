"""Metrics of every layer: is it learning, are its capsules alive?"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from capsjax.routing import measures
from capsjax.types import Routed

_PERCENTILES = (5, 50, 95)


def gradient_norms(gradients: Any) -> dict[str, Array]:
    """Norm of the gradient of every top-level part of a network.

    Args:
        gradients: of the network's parameters, an ``nnx.State`` or another tree with names.

    Returns:
        ``gradient_norm/PART`` by the part's attribute; in a list of parts ``LIST.0`` and so on.

    Example:
        >>> import jax.numpy as jnp
        >>> norms = gradient_norms({"hidden": {0: {"bias": jnp.array([3.0, 4.0])}}})
        >>> {name: float(norm) for name, norm in norms.items()}
        {'gradient_norm/hidden.0': 5.0}
    """
    parts: dict[str, list[Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        keys = [getattr(key, "key", getattr(key, "name", getattr(key, "idx", ""))) for key in path]
        listed = len(keys) > 1 and isinstance(keys[1], int)
        parts.setdefault(f"{keys[0]}.{keys[1]}" if listed else str(keys[0]), []).append(leaf)
    return {f"gradient_norm/{name}": optax.tree.norm(leaves) for name, leaves in parts.items()}


def routed_metrics(routed: Sequence[Routed]) -> dict[str, Array]:
    """Share of dead capsules and percentiles of the activations of every routed layer.

    A capsule is one parent in one window; ``measures.dead_share`` says when it is dead.

    Args:
        routed: of a batch, from the first layer to the last.

    Returns:
        ``dead_share/K`` and ``activation_p5/K``, ``activation_p50/K``, ``activation_p95/K`` of
        layer K, counted from 0; none of a layer without activations.
    """
    metrics = {}
    for layer, result in enumerate(routed):
        if result.activations is None:
            continue
        activations = result.activations.astype(jnp.float32)
        metrics[f"dead_share/{layer}"] = measures.dead_share(activations).mean()
        values = jnp.percentile(activations, jnp.array(_PERCENTILES, jnp.float32))
        for percentile, value in zip(_PERCENTILES, values, strict=True):
            metrics[f"activation_p{percentile}/{layer}"] = value
    return metrics
