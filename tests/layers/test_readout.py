"""Readouts: how active a routed capsule is."""

import dataclasses
import sys
from types import ModuleType

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Routed
from capsjax.layers.readout import Readout
from capsjax.routing import dynamic, em, inverted_attention


@pytest.fixture
def routed(random):
    poses = jnp.asarray(random.normal(size=(2, 3, 4)), jnp.float32)
    own = jnp.asarray(random.uniform(size=(2, 3)), jnp.float32)
    return Routed(poses, own, jnp.zeros((2, 3, 5)), jnp.zeros((2, 3, 4, 5)), None)


def readout(config):
    return Readout(3, 4, config=config, rngs=nnx.Rngs(params=0))


@pytest.mark.core
def test_length(routed):
    expected = np.linalg.norm(np.asarray(routed.poses), axis=-1)
    np.testing.assert_allclose(readout(dynamic.Config())(routed), expected, rtol=1e-6)


@pytest.mark.core
def test_own(routed):
    np.testing.assert_array_equal(readout(em.Config())(routed), routed.activations)


@pytest.mark.core
def test_linear_is_one_logistic_unit_shared_by_all_capsules(routed):
    layer = readout(inverted_attention.Config())
    kernel, bias = np.asarray(layer.linear.kernel[...]), np.asarray(layer.linear.bias[...])
    assert (kernel.shape, bias.shape) == ((4, 1), (1,))
    logits = np.asarray(routed.poses) @ kernel[:, 0] + bias[0]
    np.testing.assert_allclose(layer(routed), 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_another_word_is_refused(monkeypatch):
    module = ModuleType("strange_routing")
    module.Config = dataclasses.make_dataclass(
        "Config", [], namespace={"__module__": module.__name__}
    )
    module.SOURCE = "nowhere"
    module.init = module.route = dynamic.route
    module.READOUT = "loudness"
    monkeypatch.setitem(sys.modules, "strange_routing", module)
    with pytest.raises(ValueError, match=r"READOUT is 'loudness', expected 'length', 'own' or"):
        readout(module.Config())
