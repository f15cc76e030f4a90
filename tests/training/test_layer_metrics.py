"""Metrics of layers by hand, and stacks of capsule layers that train on real digits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax.models import capsnet
from capsjax.routing import dynamic
from capsjax.training import Config, fit, layer_metrics
from capsjax.types import Routed
from tests.training.small import digits


def routed(activations: Any) -> Routed:
    nothing = jnp.zeros(())
    return Routed(nothing, activations, nothing, nothing, None)


@pytest.mark.core
def test_gradient_norms_are_those_of_each_part() -> None:
    gradients = {
        "primary": {"kernel": jnp.array([[2.0, 3.0]]), "bias": jnp.array([6.0])},
        "hidden": {0: {"weights": jnp.array([3.0])}, 1: {"weights": jnp.array([-4.0])}},
        "scale": jnp.array(0.5),
    }
    found = layer_metrics.gradient_norms(gradients)
    assert {name: float(norm) for name, norm in found.items()} == {
        "gradient_norm/primary": 7.0,
        "gradient_norm/hidden.0": 3.0,
        "gradient_norm/hidden.1": 4.0,
        "gradient_norm/scale": 0.5,
    }


@pytest.mark.core
def test_dead_share_and_percentiles_are_numpy_s(random: np.random.Generator) -> None:
    activations = random.uniform(0.1, 1, size=(5, 8))
    activations[:, [1, 6]] = 0.001  # two of eight are dead
    activations[0, 1] = 0.02  # alive once, but not on average
    grid = random.uniform(0.1, 1, size=(5, 2, 2, 4))
    layers = [routed(jnp.asarray(activations)), routed(None), routed(jnp.asarray(grid))]
    found = layer_metrics.routed_metrics(layers)
    assert set(found) == {
        f"{name}/{layer}"
        for name in ("dead_share", "activation_p5", "activation_p50", "activation_p95")
        for layer in (0, 2)
    }
    assert float(found["dead_share/0"]) == 0.25
    assert float(found["dead_share/2"]) == 0
    for layer, values in ((0, activations), (2, grid)):
        for q in (5, 50, 95):
            expected = np.percentile(values, q)
            assert float(found[f"activation_p{q}/{layer}"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("depth", [2, 4, 6])
def test_stacked_capsule_layers_train_and_show_their_metrics(depth: int) -> None:
    """Of depth - 1 hidden layers and the class capsules."""
    config = capsnet.Config(
        features=8,
        kernel_size=3,
        primary_types=2,
        primary_dim=8,
        hidden=(16,) * (depth - 1),
        class_dim=8,
        decoder=False,
        routing=dynamic.Config(num_iterations=2),
    )
    network = capsnet.Network(
        config, image_shape=(14, 14, 1), num_classes=10, rngs=nnx.Rngs(params=0)
    )
    training = Config(epochs=1, batch_size=16, validation=16, layer_metrics=True, shift=0)
    real = digits(80)
    result = fit(network, {**real, "image": real["image"][:, ::2, ::2]}, training)
    steps = [entry for entry in result.history if entry["split"] == "train"]
    assert len(steps) == 4
    parts = ["convolution", "primary", *(f"hidden.{k}" for k in range(depth - 1)), "classes"]
    for entry in steps:
        assert np.isfinite([value for key, value in entry.items() if key != "split"]).all()
        # Every layer learns: none has a gradient that vanished on the way.
        assert min(entry[f"gradient_norm/{part}"] for part in parts) > 0
        for layer in range(depth):
            low, middle, high = (entry[f"activation_p{q}/{layer}"] for q in (5, 50, 95))
            assert 0 < low <= middle <= high < 0.99
            assert 0 <= entry[f"dead_share/{layer}"] <= 1
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))
