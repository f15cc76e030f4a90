"""The peers compute what our networks do: from the same weights, the same loss on the same digits.

The expected losses are PyTorch's and TensorFlow's, which agree to the last digit given (both
``--check --batch-size 8``, PyTorch 2.13 and TensorFlow 2.21).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import models
from capsjax.training import losses
from capsjax.training.step import example_losses
from experiments.benchmarks import peer_inputs

PATHS = {
    "first": "convolution",
    "second": "primary",
    "primary": "primary",
    "capsules": "classes.votes.weights",
    "prior": "classes.routing.params.prior",
}
PARTS = {"gain": "scale", "offset": "bias", "mean": "mean", "variance": "var"}


def path(name):
    """Where our network keeps what the peers' weights call by this name."""
    layer, _, part = name.partition(".")
    if layer.startswith("conv"):
        return f"{'normalisations' if part in PARTS else 'convolutions'}.{layer[4:]}." + PARTS.get(
            part, part
        )
    if layer.startswith("dense"):
        return f"decoder.layers.{layer[5:]}.{part}"
    return ".".join(p for p in (PATHS[layer], part) if p)


@pytest.mark.parametrize(
    ("name", "expected"), [("capsnet", 0.654474), ("efficient_capsnet", 0.652213)]
)
def test_our_first_loss_is_the_peers_first_loss(name, expected):
    network = models.create(name, rngs=0)
    drawn = peer_inputs.weights(name)
    state = nnx.state(network)
    flat = {".".join(map(str, p)): v for p, v in nnx.to_flat_state(state)}
    assert {path(w) for w in drawn} == set(flat)
    for w in drawn.values():
        value = np.frombuffer(w.raw, np.int32) / 2**31 * w.scale + w.centre
        value = value.astype(np.float32).reshape(w.shape)
        if w.name == "capsules":
            value = value.transpose(3, 1, 2, 0)
        if w.name == "prior":
            value = value.T
        assert flat[path(w.name)].shape == value.shape
        flat[path(w.name)].set_value(jnp.asarray(value))
    nnx.update(network, state)
    images, labels = peer_inputs.digits(8)
    x = np.frombuffer(images, np.uint8).reshape(8, 28, 28, 1) / np.float32(255)
    graph, arrays = nnx.split(network)

    @jax.jit
    def loss(arrays, x, targets):
        output = nnx.merge(graph, arrays, copy=True)(x, targets)
        return sum(jnp.mean(part) for part in example_losses(output, x, targets, losses.Config()))

    found = loss(arrays, x, jax.nn.one_hot(jnp.asarray(labels), 10))
    assert float(found) == pytest.approx(expected, abs=3e-6)
