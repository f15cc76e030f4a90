"""What happens in each layer of a capsnet: gradients in training, capsules and couplings after."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from capsjax.routing import measures

SPANS, FIRST_STEPS = 20, 10
# A capsule is still if its pose varies over images by less than this share of its length.
STILL = 0.01


def parts(history: Sequence[dict[str, Any]]) -> list[str]:
    """The parts of a network that have gradients, from the images on."""
    entry = next(entry for entry in history if entry["split"] == "train")
    named = [key.partition("/")[2] for key in entry if key.startswith("gradient_norm/")]
    order = ("convolution", "primary", "hidden", "classes")
    return sorted(named, key=lambda part: (order.index(part.partition(".")[0]), part))


def gradient_norms(history: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each part: the mean over the first steps, and those over equal spans of training."""
    steps = [entry for entry in history if entry["split"] == "train"]
    found = {}
    for part in parts(history):
        norms = np.array([entry[f"gradient_norm/{part}"] for entry in steps])
        spans = np.array_split(norms, min(SPANS, len(norms)))
        found[part] = {
            "first": _short(norms[:FIRST_STEPS].mean()),
            "spans": [_short(span.mean()) for span in spans],
        }
    return found


def look(network: Any, images: np.ndarray, batch: int = 100) -> dict[str, list[float]]:
    """What capsules and couplings of a trained network do on images, layer by layer.

    Args:
        network: a capsnet.
        images: uint8 ``[N, height, width, channels]``.
        batch: so many at a time.

    Returns:
        From the primary capsules on: ``mean_length``, ``dead_share``, ``still_share`` (of capsules
        whose pose is the same for all images, however long it is). From the first routed layer on:
        ``coefficient_variance`` over images, ``coefficient_deviation`` (its root, in units of the
        even share), ``image_share``: how much of all the coefficients' variance it is.
    """
    graph, state = nnx.split(network)

    @jax.jit
    def see(state: Any, images: jax.Array) -> tuple[list[jax.Array], ...]:
        model: Any = nnx.merge(graph, state, copy=True)
        model.eval()
        images = images.astype(jnp.float32) / 255
        primary = model.primary(jax.nn.relu(model.convolution(images)))
        routed = model(images).routed
        lengths = [primary.activations.reshape(len(images), -1), *(r.activations for r in routed)]
        poses = [primary.poses.reshape(len(images), -1, primary.poses.shape[-1])]
        poses += [r.poses for r in routed]
        return lengths, [r.coefficients for r in routed], poses

    seen = [see(state, images[start : start + batch]) for start in range(0, len(images), batch)]
    lengths, coefficients, poses = (
        [np.concatenate(layer) for layer in zip(*(each[kind] for each in seen), strict=True)]
        for kind in range(3)
    )
    variances = [float(measures.coefficient_variance(jnp.asarray(c))) for c in coefficients]
    totals = [float(c.var(dtype=np.float64)) for c in coefficients]
    parents = [c.shape[1] for c in coefficients]
    return {
        "mean_length": [_short(each.mean()) for each in lengths],
        "dead_share": [_short(measures.dead_share(jnp.asarray(each))) for each in lengths],
        "still_share": [_short(_still_share(each)) for each in poses],
        "coefficient_variance": [_short(each) for each in variances],
        "coefficient_deviation": [
            _short(count * each**0.5) for count, each in zip(parents, variances, strict=True)
        ],
        "image_share": [
            _short(min(1.0, each / total)) if total > 0 else 0.0
            for each, total in zip(variances, totals, strict=True)
        ],
    }


def _still_share(poses: np.ndarray) -> float:
    """Of ``[N, capsules, dim]``."""
    wide = poses.astype(np.float64)
    varying = wide.var(0).sum(-1)
    return float((varying <= STILL**2 * np.square(wide).sum(-1).mean(0)).mean())


def _short(value: Any) -> float:
    return float(f"{float(value):.4g}")
