"""Efficient-CapsNet: published counts, the released weights' outputs, shapes, learning."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import models, serial
from capsjax.models import efficient_capsnet
from capsjax.routing import dynamic
from capsjax.training import loop, run
from capsjax.training.evaluation import evaluate
from tests.conftest import bare_config
from tests.training.small import digits

NARROW = efficient_capsnet.Config(features=(4, 8, 8, 16), decoder_widths=(16,))
RELEASED = (
    Path(os.environ.get("CAPSJAX_MANUAL_DIR", ""))
    / "efficient_capsnet_smallnorb"
    / "released_weights_and_outputs.npz"
)


def create(config: Any = NARROW, **options: Any) -> Any:
    return models.create("efficient_capsnet", config=config, **options)


@pytest.mark.core
@pytest.mark.parametrize(
    ("config", "image_shape", "classes", "count"),
    [
        (efficient_capsnet.Config(), (28, 28, 1), 10, 1_573_168),
        (efficient_capsnet.Config(decoder=False), (28, 28, 1), 10, 161_824),
        (replace(efficient_capsnet.MULTI_MNIST, decoder=False), (36, 36, 1), 10, 154_656),
        (replace(efficient_capsnet.SMALLNORB, decoder=False), (48, 48, 2), 5, 151_664),
    ],
    ids=["mnist", "mnist, encoder", "multi_mnist, encoder", "smallnorb, encoder"],
)
def test_published_networks_have_their_published_parameters(
    config: Any, image_shape: tuple[int, int, int], classes: int, count: int
) -> None:
    network = nnx.eval_shape(lambda: create(config, image_shape=image_shape, num_classes=classes))
    assert models.count_parameters(network) == count


@pytest.mark.skipif(not RELEASED.is_file(), reason="the released weights are absent")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_released_weights_give_the_released_outputs(dtype: str) -> None:
    released = np.load(RELEASED)
    with jax.enable_x64(dtype == "float64"):
        config = replace(efficient_capsnet.SMALLNORB, decoder=False)
        network = create(config, image_shape=(48, 48, 2), num_classes=5)

        def array(name: str) -> Any:
            return jnp.asarray(released[name], dtype)

        for number in range(4):
            convolution = network.convolutions[number]
            convolution.kernel = nnx.Param(array(f"w_conv{number + 1}_kernel"))
            convolution.bias = nnx.Param(array(f"w_conv{number + 1}_bias"))
            normalisation = network.normalisations[number]
            normalisation.scale = nnx.Param(array(f"w_inorm{number + 1}_gamma"))
            normalisation.bias = nnx.Param(array(f"w_inorm{number + 1}_beta"))
        network.primary.kernel = nnx.Param(array("w_primary_dwconv_kernel"))
        network.primary.bias = nnx.Param(array("w_primary_dwconv_bias"))
        # Stored as [parents, children, child_dim, dim] and [parents, children, 1].
        network.classes.votes.weights = nnx.Param(array("w_fccaps_W").transpose(2, 0, 3, 1))
        network.classes.routing.params["prior"] = nnx.Param(array("w_fccaps_b")[..., 0])
        output = network(array("x"))
    tolerance = {"float32": 1e-5, "float64": 1e-9}[dtype]
    np.testing.assert_allclose(output.poses, released["digit_caps"], atol=tolerance)
    lengths = np.sqrt(np.square(np.asarray(output.activations, float)) + 1e-7)
    np.testing.assert_allclose(lengths, released["lengths"], atol=tolerance)


@pytest.mark.parametrize(
    ("image_shape", "targets"),
    [((28, 28, 1), None), ((30, 26, 3), np.eye(3, dtype=np.float32)[:2])],
)
def test_any_image_gives_capsules_lengths_and_a_reconstruction(
    image_shape: tuple[int, int, int], targets: Any
) -> None:
    network = create(image_shape=image_shape, num_classes=3)
    images = jax.random.uniform(jax.random.key(0), (2, *image_shape))
    output = network(images, targets, trace=True)
    chex.assert_shape(output.poses, (2, 3, 16))
    chex.assert_shape(output.activations, (2, 3))
    chex.assert_shape(output.reconstruction, (2, *image_shape))
    chex.assert_shape(output.routed[0].coefficients, (2, 3, 2))
    assert float(output.activations.max()) < 1
    with pytest.raises(ValueError, match=r"images have shape \(2, 5, 5, 1\), expected"):
        network(jnp.zeros((2, 5, 5, 1)))


def test_batch_statistics_serve_training_and_running_ones_evaluation() -> None:
    network = create()
    images = jax.random.uniform(jax.random.key(0), (8, 28, 28, 1))
    before = jax.tree.map(jnp.copy, nnx.state(network, nnx.BatchStat))
    alone, together = network(images[:1]).poses, network(images).poses[:1]
    assert float(jnp.abs(alone - together).max()) > 1e-3
    after = nnx.state(network, nnx.BatchStat)
    changes = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before, after)
    assert min(jax.tree.leaves(changes)) > 0
    network.eval()
    np.testing.assert_allclose(network(images[:1]).poses, network(images).poses[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strides": (1, 1, 2)}, r"strides are \(1, 1, 2\), expected .* the 4 convolutions"),
        ({"kernel_sizes": (5, 3, 3, 0)}, "expected at least 1 each"),
        ({"primary_dim": 7}, "the last of features is 128, expected a multiple of primary_dim, 7"),
        ({"primary_kernel": 0}, "primary_kernel is 0"),
        ({"primary_stride": 0}, "primary_stride is 0"),
        ({"decoder_widths": (0,)}, "decoder_widths are"),
        ({"activation": "gelu"}, "activation is 'gelu'"),
        ({"normalisation": "layer"}, "normalisation is 'layer'"),
        ({"routing": 3}, "routing is 3"),
    ],
)
def test_choices_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bare_config(efficient_capsnet.Config, **options)


def test_images_that_are_too_small_are_refused_with_the_map_that_is_left() -> None:
    with pytest.raises(ValueError, match="images of 10x10 leave a map of 2x2 for a kernel of 3x3"):
        create(image_shape=(10, 10, 1))
    with pytest.raises(ValueError, match="num_classes is 1"):
        create(num_classes=1)


def test_settings_survive_json() -> None:
    settings = run.Settings(
        "efficient_capsnet",
        "mnist",
        efficient_capsnet.SMALLNORB,
        loop.Config(),
        (48, 48, 2),
        ("a", "b"),
    )
    values = json.loads(json.dumps(serial.to_json(settings)))
    found = serial.from_json(run.Settings, values, {"model_config": efficient_capsnet.Config})
    assert found == settings
    assert hash(found.model_config) == hash(settings.model_config)


@pytest.mark.parametrize(
    "config",
    [
        NARROW,
        replace(NARROW, normalisation="instance", activation="leaky_relu"),
        replace(NARROW, routing=dynamic.Config()),
    ],
    ids=["batch", "instance", "dynamic"],
)
def test_32_real_digits_are_learnt(config: Any) -> None:
    arrays = digits(64)
    train = {key: value[:32] for key, value in arrays.items()}
    training = loop.Config(
        epochs=80, batch_size=8, validation=8, shift=0, learning_rate=5e-3, schedule="cosine"
    )
    result = loop.fit(create(config), train, training, validation=train)
    assert evaluate(result.model, train).errors <= 1
