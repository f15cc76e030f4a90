"""Networks without capsules: one of them against NumPy, dropout in training, refusals."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from capsjax import models
from capsjax.models import baselines
from capsjax.training import losses
from capsjax.training.checkpoint import Checkpoints
from capsjax.training.step import State, make_step, split
from tests.conftest import bare_config
from tests.training.small import assert_same_bits, digits

_SABOUR = replace(baselines.SABOUR, features=(4, 4, 2), kernel_sizes=(3, 3, 3), hidden=(12, 8))
NARROW: dict[str, tuple[baselines.Config, tuple[int, int, int]]] = {
    "sabour_cnn": (_SABOUR, (28, 28, 1)),
    "sabour_cnn_pooled": (
        replace(baselines.SABOUR_POOLED, features=(8, 4), kernel_sizes=(3, 3), hidden=(16,)),
        (28, 28, 1),
    ),
    "hinton_cnn": (
        replace(baselines.HINTON, features=(4, 8), kernel_sizes=(3, 3), hidden=(32,)),
        (28, 28, 1),
    ),
    "efficient_cnn": (
        replace(baselines.EFFICIENT, features=(4, 8, 8, 16, 4), kernel_sizes=(3, 3, 3, 3, 3)),
        (28, 28, 1),
    ),
}
# Kernels and biases, the map that is left, and the fully connected layers, from the papers.
PUBLISHED: dict[str, list[tuple[int, ...]]] = {
    "sabour_cnn": [
        *[(25, 1, 256), (25, 256, 256), (25, 256, 128)],
        *[(28 * 28, 128, 328), (328, 192), (192, 10)],
    ],
    "sabour_cnn_pooled": [(25, 1, 512), (25, 512, 256), (9 * 9, 256, 1024), (1024, 10)],
    "hinton_cnn": [(25, 2, 32), (25, 32, 64), (8 * 8, 64, 1024), (1024, 5)],
    "efficient_cnn": [
        *[(25, 1, 32), (9, 32, 64), (9, 64, 64), (9, 64, 128), (9, 128, 32)],
        (4 * 4, 32, 10),
    ],
}
IMAGE = (11, 9, 2)
SMALL = baselines.Config(
    features=(3, 4),
    kernel_sizes=(3, 2),
    strides=(1, 2),
    pools=(2, 1),
    normalisation="batch",
    hidden=(6,),
    dropout=0.5,
)


def create(config: Any = SMALL, **options: Any) -> Any:
    settings = {"image_shape": IMAGE, "num_classes": 3, **options}
    return models.create("sabour_cnn", config=config, **settings)


@pytest.mark.core
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_the_parameters_of_their_layers(name: str) -> None:
    form = models.find(name).forms[0]
    count = sum(math.prod(sizes) + sizes[-1] for sizes in PUBLISHED[name])
    if form.config.normalisation == "batch":
        count += 2 * sum(form.config.features)
    assert form.parameters == count
    assert form.config == models.find(name).config


def test_a_network_is_what_numpy_makes_of_its_layers(
    random: np.random.Generator, x64: None
) -> None:
    network = create()
    parameters = nnx.state(network, nnx.Param)
    statistics = nnx.state(network.normalisations, nnx.BatchStat)
    drawn = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape)), parameters)
    nnx.update(network, drawn)
    drawn = jax.tree.map(lambda x: jnp.asarray(random.uniform(0.5, 2, x.shape)), statistics)
    nnx.update(network.normalisations, drawn)
    network.eval()
    images = random.uniform(size=(2, *IMAGE))
    output = nnx.jit(lambda network, images: network(images))(network, jnp.asarray(images))
    x = images
    for number, (stride, pool) in enumerate([(1, 2), (2, 1)]):
        layer, normalisation = network.convolutions[number], network.normalisations[number]
        x = _normalise(np.maximum(_convolve(x, layer, stride), 0), normalisation)
        rows, columns = x.shape[1] // pool, x.shape[2] // pool
        x = x[:, : rows * pool, : columns * pool]
        x = x.reshape(2, rows, pool, columns, pool, -1).max((2, 4))
    assert x.shape == (2, 3, 2, 4)
    x = np.maximum(_dense(x.reshape(2, -1), network.hidden[0]), 0)
    np.testing.assert_allclose(network.features(jnp.asarray(images)), x, rtol=1e-10)
    logits = _dense(x, network.classes)
    np.testing.assert_allclose(output.logits, logits, rtol=1e-10)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(output.activations, shares / shares.sum(1, keepdims=True), 1e-10)
    assert (output.poses, output.reconstruction, output.routed) == (None, None, ())


def _convolve(x: np.ndarray, layer: Any, stride: int) -> np.ndarray:
    """With zeros around the image, more of them below and to the right where it is odd."""
    kernel = np.asarray(layer.kernel[...])
    size = kernel.shape[0]
    sides = [-(-side // stride) for side in x.shape[1:3]]
    pads = [
        max((out - 1) * stride + size - side, 0)
        for out, side in zip(sides, x.shape[1:3], strict=True)
    ]
    x = np.pad(x, ((0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)))
    out = np.empty((x.shape[0], *sides, kernel.shape[3]))
    for i in range(sides[0]):
        for j in range(sides[1]):
            patch = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            out[:, i, j] = np.tensordot(patch, kernel, 3)
    return out + np.asarray(layer.bias[...])


def _normalise(x: np.ndarray, layer: Any) -> np.ndarray:
    centred = x - np.asarray(layer.mean[...])
    scaled = centred / np.sqrt(np.asarray(layer.var[...]) + 1e-3)
    return scaled * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])


def _dense(x: np.ndarray, layer: Any) -> np.ndarray:
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def test_the_last_layer_alone_sees_dropout_and_in_training_alone() -> None:
    network = create()
    network.hidden[0].bias[...] = jnp.ones(6)
    network.classes.kernel[...] = jnp.eye(6, 3)
    images = jax.random.uniform(jax.random.key(0), (8, *IMAGE))
    call = nnx.jit(lambda network: network(images).logits)
    first, second = call(network), call(network)
    kept = (first != 0) & (second != 0)
    assert (first != second).any()
    np.testing.assert_allclose(first[kept], second[kept], rtol=1e-5)
    network.eval()
    np.testing.assert_array_equal(call(network), call(network))
    assert create(replace(SMALL, dropout=0.0)).dropout is None


def test_a_run_that_was_stopped_drops_what_it_would_have(tmp_path: Path) -> None:
    arrays = digits(8)
    graph, params, rest = split(create(image_shape=(28, 28, 1), num_classes=10))
    optimizer = optax.sgd(0.1)
    loss, key = losses.Config(), jax.random.key(0)
    step = jax.jit(make_step(graph, optimizer, num_classes=10, limit=2, loss=loss, key=key))
    states = [State(params, rest, optimizer.init(params), jnp.zeros((), jnp.int32))]
    for _ in range(4):
        states.append(step(states[-1], arrays["image"], arrays["label"])[0])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, states[2])
    resumed = checkpoints.restore(2, states[0])
    checkpoints.close()
    for _ in range(2):
        resumed = step(resumed, arrays["image"], arrays["label"])[0]
    assert int(resumed.rest["dropout"]["calls"][...]) == 4
    assert_same_bits(resumed, states[4])


def test_what_capsules_need_is_ignored_or_refused() -> None:
    network = create()
    network.eval()
    images = jax.random.uniform(jax.random.key(0), (2, *IMAGE))
    plain, asked = jax.jit(
        lambda: (network(images), network(images, jnp.eye(3)[:2], longest=3, trace=True))
    )()
    assert_same_bits(asked, plain)
    with pytest.raises(ValueError, match="sabour_cnn has no capsules to route"):
        create(routing="dynamic")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strides": (1, 1)}, r"strides are \(1, 1\), expected one for every of the 3"),
        ({"pools": (1, 0, 1)}, r"pools are \(1, 0, 1\), expected at least 1 each"),
        ({"features": ()}, r"features are \(\), expected at least 1 each"),
        ({"kernel_sizes": (5, 5, 0)}, "kernel_sizes are"),
        ({"hidden": (0,)}, "hidden are"),
        ({"padding": "FULL"}, "padding is 'FULL'"),
        ({"normalisation": "layer"}, "normalisation is 'layer'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_choices_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bare_config(baselines.Config, **options)


@pytest.mark.parametrize(
    ("config", "image_shape", "said"),
    [
        (baselines.EFFICIENT, (12, 12, 1), "images of 12x12 leave a map of 1x1 for a kernel of 3x"),
        (baselines.HINTON, (9, 3, 1), "images of 9x3 leave a map of 4x1 for a pool of 2x2"),
    ],
)
def test_images_that_are_too_small_are_refused_with_the_map_that_is_left(
    config: Any, image_shape: tuple[int, int, int], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        nnx.eval_shape(lambda: create(config, image_shape=image_shape))
    with pytest.raises(ValueError, match="num_classes is 1"):
        create(num_classes=1)
    with pytest.raises(ValueError, match=r"images have shape \(2, 5, 5, 1\), expected"):
        create()(jnp.zeros((2, 5, 5, 1)))
