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
from capsjax.types import Capsules
from tests.conftest import bare_config
from tests.training.small import digits

_SMALL = efficient_capsnet.Config(features=(4, 8, 8, 16), decoder_widths=(16,))
NARROW = {"efficient_capsnet": (_SMALL, (28, 28, 1))}
RELEASED = (
    Path(os.environ.get("CAPSJAX_MANUAL_DIR", ""))
    / "efficient_capsnet_smallnorb"
    / "released_weights_and_outputs.npz"
)
PART = Path(__file__).parent / "fixtures" / "efficient_capsnet_smallnorb_part.npz"


def create(config: Any = _SMALL, **options: Any) -> Any:
    return models.create("efficient_capsnet", config=config, **options)


@pytest.mark.core
@pytest.mark.parametrize(
    ("config", "image_shape", "classes", "count"),
    [
        (efficient_capsnet.Config(), (28, 28, 1), 10, 1_573_168),
        (efficient_capsnet.Config(decoder="none"), (28, 28, 1), 10, 161_824),
        (efficient_capsnet.MULTI_MNIST, (36, 36, 1), 10, 154_656 + 1_936_144),
        (replace(efficient_capsnet.MULTI_MNIST, decoder="none"), (36, 36, 1), 10, 154_656),
        (efficient_capsnet.SMALLNORB, (48, 48, 2), 5, 151_664 + 229_570),
        (replace(efficient_capsnet.SMALLNORB, decoder="none"), (48, 48, 2), 5, 151_664),
    ],
    ids=[
        "mnist",
        "mnist, encoder",
        "multi_mnist",
        "multi_mnist, encoder",
        "smallnorb",
        "smallnorb, encoder",
    ],
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
        network = create(efficient_capsnet.SMALLNORB, image_shape=(48, 48, 2), num_classes=5)

        def array(name: str) -> Any:
            return jnp.asarray(released[name], dtype)

        def fill(layer: Any, name: str) -> None:
            layer.kernel = nnx.Param(array(f"{name}_kernel"))
            layer.bias = nnx.Param(array(f"{name}_bias"))

        for number in range(4):
            fill(network.convolutions[number], f"w_conv{number + 1}")
            normalisation = network.normalisations[number]
            normalisation.scale = nnx.Param(array(f"w_inorm{number + 1}_gamma"))
            normalisation.bias = nnx.Param(array(f"w_inorm{number + 1}_beta"))
            fill(network.decoder.convolutions[number], f"w_gen_conv{number + 1}")
        fill(network.primary, "w_primary_dwconv")
        fill_classes(network.classes, released, dtype)
        fill(network.decoder.linear, "w_gen_dense")
        output = nnx.jit(lambda network, x: network(x))(network, array("x"))
    tolerance = {"float32": 1e-5, "float64": 1e-9}[dtype]
    np.testing.assert_allclose(output.poses, released["digit_caps"], atol=tolerance)
    assert_lengths(output.activations, released["lengths"], tolerance)
    # Of a run in float32, at any rate.
    found, expected = output.reconstruction, released["reconstruction"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_of_the_released_weights_give_the_released_intermediate_results(dtype: str) -> None:
    """Without the whole file: the first block, the primary and the class capsules."""
    part = np.load(PART)
    with jax.enable_x64(dtype == "float64"):
        config = replace(efficient_capsnet.SMALLNORB, decoder="none")
        network = create(config, image_shape=(48, 48, 2), num_classes=5)
        network.convolutions[0].kernel = nnx.Param(jnp.asarray(part["w_conv1_kernel"], dtype))
        network.convolutions[0].bias = nnx.Param(jnp.asarray(part["w_conv1_bias"], dtype))
        network.normalisations[0].scale = nnx.Param(jnp.asarray(part["w_inorm1_gamma"], dtype))
        network.normalisations[0].bias = nnx.Param(jnp.asarray(part["w_inorm1_beta"], dtype))
        network.primary.kernel = nnx.Param(jnp.asarray(part["w_primary_dwconv_kernel"], dtype))
        network.primary.bias = nnx.Param(jnp.asarray(part["w_primary_dwconv_bias"], dtype))
        fill_classes(network.classes, part, dtype)
        block = network.block(0, jnp.asarray(part["x_sample0"], dtype))
        primary = network.primary(jnp.asarray(part["block4_sample0"], dtype))
        lengths = np.linalg.norm(part["primary_caps"], axis=-1)
        below = Capsules(jnp.asarray(part["primary_caps"], dtype), jnp.asarray(lengths, dtype))
        routed = network.classes(below)
    every = block[:, ::4, ::4]
    np.testing.assert_allclose(every, part["block1_sample0_every_4th"], rtol=0, atol=1e-5)
    # Stored in float32, as the input is.
    first = primary.poses.reshape(1, 16, 8)
    np.testing.assert_allclose(first, part["primary_caps"][:1], rtol=0, atol=1e-6)
    tolerance = {"float32": 1e-6, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(routed.poses, part["digit_caps"], rtol=0, atol=tolerance)
    assert_lengths(routed.activations, part["lengths"], tolerance)


def fill_classes(classes: Any, released: Any, dtype: str) -> None:
    # Stored as [parents, children, child_dim, dim] and [parents, children, 1].
    weights = released["w_fccaps_W"].transpose(2, 0, 3, 1)
    classes.votes.weights = nnx.Param(jnp.asarray(weights, dtype))
    classes.routing.params["prior"] = nnx.Param(jnp.asarray(released["w_fccaps_b"][..., 0], dtype))


def assert_lengths(found: Any, released: Any, tolerance: float) -> None:
    lengths = np.sqrt(np.square(np.asarray(found, float)) + 1e-7)
    np.testing.assert_allclose(lengths, released, rtol=0, atol=tolerance)


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
        ({"weights_stddev": 0.0}, "weights_stddev is 0.0, expected a positive number or None"),
        ({"decoder_widths": (0,)}, "decoder_widths are"),
        ({"decoder_features": ()}, r"decoder_features are \(\), expected .* at least one"),
        ({"decoder": True}, "decoder is True, expected one of: 'none', 'dense', 'convolutional'"),
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


@pytest.mark.parametrize(("chosen", "stddev"), [(None, 0.1), (0.5, 0.5)])
def test_the_first_matrices_are_as_wide_as_asked_for(chosen: float | None, stddev: float) -> None:
    network = create(replace(efficient_capsnet.Config(), weights_stddev=chosen))
    weights = network.classes.votes.weights[...]
    # A normal distribution that is cut at two deviations keeps 0.8796 of its own.
    np.testing.assert_allclose(weights.std(), 0.8796 * stddev, rtol=0.05)


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
        _SMALL,
        replace(
            _SMALL,
            normalisation="instance",
            activation="leaky_relu",
            decoder="convolutional",
            decoder_features=(4,),
        ),
        replace(_SMALL, routing=dynamic.Config()),
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
