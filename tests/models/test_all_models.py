"""What every network of the registry does alike, in a narrow form; the published ones by name.

A network's own file of tests says what is particular to it, and names its narrow form.
"""

import dataclasses
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import data, models, weights
from capsjax.models import capsnet
from capsjax.training import loop, losses
from capsjax.training.evaluation import evaluate
from capsjax.types import Output
from tests.models import (
    test_affine_capsnet,
    test_baselines,
    test_deepcaps,
    test_efficient_capsnet,
    test_inverted_attention_resnet,
    test_matrix_capsules,
    test_self_routing_resnet,
    test_small_resnet,
)
from tests.training.small import digits

NARROW: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "capsnet": (
        capsnet.Config(features=8, kernel_size=5, primary_types=4, decoder_widths=(16,)),
        (20, 20, 1),
    ),
    **test_efficient_capsnet.NARROW,
    **test_matrix_capsules.NARROW,
    **test_affine_capsnet.NARROW,
    **test_baselines.NARROW,
    **test_deepcaps.NARROW,
    **test_inverted_attention_resnet.NARROW,
    **test_self_routing_resnet.NARROW,
    **test_small_resnet.NARROW,
}
# Those that need more than 60 epochs of 4 steps to know 32 digits: with dropout, or with running
# statistics that follow slowly, or with three routed layers.
PATIENT = {"epochs": 160}
TRAINING: dict[str, dict[str, Any]] = {
    "affine_capsnet": {"epochs": 100},
    "matrix_capsules_small": {"epochs": 150},
    **dict.fromkeys(("sabour_cnn", "hinton_cnn", "efficient_cnn", "small_resnet"), PATIENT),
    # Its batch normalisation of ten activations wants more than eight images.
    "variational_capsnet": {"epochs": 300, "batch_size": 32, "learning_rate": 0.02},
}
# Narrow forms that are too narrow for that: one matrix for all children, two times half of eight
# units dropped, three routed layers.
WIDER = {
    "affine_capsnet": {
        "features": 32,
        "kernel_size": 5,
        "primary_types": 8,
        "share": "positions",
        "decoder": False,
    },
    "sabour_cnn": {"features": (8, 8, 4), "hidden": (32, 32)},
    "variational_capsnet": {
        "features": 16,
        "primary_types": 4,
        "types": (8,),
        "kernel_sizes": (3,),
        "strides": (2,),
    },
}
# Over a minute each; matrix_capsules_small is the same network as matrix_capsules.
LONG = {"variational_capsnet", "matrix_capsules"}
FORMS = [
    pytest.param(name, form, id=f"{name}, {form.dataset}, {form.parameters}")
    for name, model in models.MODELS.items()
    for form in model.forms
]
NAMES = list(models.MODELS)


def test_no_network_is_without_a_narrow_form():
    assert set(NARROW) == set(models.MODELS)


def create(name: str, **options: Any) -> Any:
    config, image_shape = NARROW[name]
    return models.create(name, config=config, image_shape=image_shape, **options)


def some_digits(shape: tuple[int, int, int], count: int = 32) -> dict[str, np.ndarray]:
    """Real ones, cropped to their middle."""
    arrays = digits(count)
    cut = [slice((28 - side) // 2, (28 + side) // 2) for side in shape[:2]]
    return {**arrays, "image": np.repeat(arrays["image"][:, cut[0], cut[1]], shape[2], -1)}


@pytest.mark.parametrize(
    "name", ["capsnet", "matrix_capsules_small", "variational_capsnet", "deepcaps"]
)
def test_votes_of_a_few_images_at_a_time_change_nothing(name):
    network = create(name, rngs=0)
    images = jnp.asarray(some_digits(network.image_shape, 7)["image"]) / 255
    graph, params, rest = nnx.split(network, nnx.Param, ...)

    def run(size: int | None) -> Any:
        def loss(params: Any) -> Any:
            network = nnx.merge(graph, params, rest, copy=True)
            network.set_attributes(votes_at_once=size)
            output = network(images)
            return (output.activations**2).sum(), (output, nnx.state(network, nnx.BatchStat))

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    chex.assert_trees_all_close(run(3), run(None), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_published_form_has_the_parameters_that_it_names(name, form):
    make = partial(
        models.create,
        name,
        config=form.config,
        image_shape=form.image_shape,
        num_classes=form.num_classes,
    )
    assert models.count_parameters(nnx.eval_shape(make)) == form.parameters
    assert form.published


@pytest.mark.parametrize("name", NAMES)
def test_the_default_config_is_that_of_the_first_form(name):
    model = models.find(name)
    assert model.forms[0].config == model.config
    assert isinstance(losses.Config(**model.training.get("loss", {})), losses.Config)
    assert {form.dataset for form in model.forms} <= set(data.names())


def outputs(network: Any, dtype: Any, image_shape: tuple[int, ...]) -> Output:
    graph, state = nnx.split(network)

    def cast(x: Any) -> Any:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    def run(state: Any, images: Any) -> Output:
        return nnx.merge(graph, state)(images)

    images = jnp.linspace(0, 1, 2 * int(np.prod(image_shape))).reshape(2, *image_shape)
    return jax.jit(run)(jax.tree.map(cast, state), cast(images))


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_in_bfloat16_as_in_float32(name):
    network = create(name)
    network.eval()
    image_shape = NARROW[name][1]
    half = outputs(network, jnp.bfloat16, image_shape)
    chex.assert_tree_all_finite(half.activations)
    chex.assert_shape(half.activations, (2, 10))
    full = outputs(network, jnp.float32, image_shape)
    assert full.activations.dtype == jnp.float32
    difference = np.abs(np.float32(half.activations) - np.float32(full.activations))
    assert np.median(difference) < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_it_works_under_vmap_for_any_image_and_any_number_of_classes(name):
    config, (height, width, _) = NARROW[name]
    shape = (height + 3, width + 4, 2)
    make = partial(models.create, name, config=config, image_shape=shape, num_classes=3)

    def run(images: Any) -> Any:
        network: Any = make()
        network.eval()
        return jax.vmap(network)(images)

    output = jax.eval_shape(run, jax.ShapeDtypeStruct((5, 2, *shape), jnp.float32))
    chex.assert_shape(output.activations, (5, 2, 3))
    if output.poses is not None:
        assert output.poses.shape[:3] == (5, 2, 3)
    if output.reconstruction is not None:
        chex.assert_shape(output.reconstruction, (5, 2, *shape))


@pytest.mark.parametrize("name", [n for n in NAMES if hasattr(NARROW[n][0], "routing")])
def test_every_routing_that_it_takes_runs_in_it(name):
    config, image_shape = NARROW[name]
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    for routing, refusal in models.pairs(name)[name].items():
        make = partial(models.create, name, config=config, image_shape=image_shape)

        def run(images: Any, make: Any = partial(make, routing=routing)) -> Any:
            return make()(images).activations

        if refusal is None:
            chex.assert_shape(jax.eval_shape(run, images), (2, 10))
        else:
            with pytest.raises(ValueError, match="routing"):
                jax.eval_shape(run, images)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_its_weights_gives_it_back(name, tmp_path):
    network = create(name, num_classes=3)
    weights.save(tmp_path / "saved.safetensors", network)
    found: Any = weights.load(tmp_path / "saved.safetensors")
    assert found.config == network.config
    chex.assert_trees_all_equal(nnx.state(found, nnx.Param), nnx.state(network, nnx.Param))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in LONG else ())
        for name in NAMES
        if name != "efficient_capsnet"  # in three variants in its own file
    ],
)
def test_it_learns_32_real_digits_by_heart(name):
    config, image_shape = NARROW[name]
    arrays = some_digits(image_shape)
    training = loop.Config(
        **{
            "epochs": 60,
            "batch_size": 8,
            "validation": 8,
            "shift": 0,
            "learning_rate": 5e-3,
            **TRAINING.get(name, {}),
        },
        loss=losses.Config(**models.find(name).training.get("loss", {})),
    )
    network = models.create(
        name, config=dataclasses.replace(config, **WIDER.get(name, {})), image_shape=image_shape
    )
    result = loop.fit(network, arrays, training, validation=arrays)
    # The best of a network with a short memory of its batches may miss some.
    assert evaluate(result.model, arrays).errors <= (4 if name in LONG else 1)
    values = [entry["loss"] for entry in result.history if entry["split"] == "train"]
    assert np.all(np.isfinite(values))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_published_form_takes_a_step_on_real_images(name, form):
    """At its published width; data sets that are not at hand are stood in for by digits."""
    height, width, channels = form.image_shape
    images = digits(4)["image"]
    pad = [max(side - 28, 0) for side in (height, width)]
    frame = [(p // 2, p - p // 2) for p in pad]
    images = np.pad(images, ((0, 0), *frame, (0, 0)))[:, :height, :width]
    arrays = {
        "image": np.repeat(images, channels, -1),
        "label": digits(4)["label"] % form.num_classes,
    }
    network = models.create(
        name, config=form.config, image_shape=form.image_shape, num_classes=form.num_classes
    )
    loss = dict(models.find(name).training.get("loss", {}))
    config = loop.Config(epochs=1, batch_size=2, validation=2, loss=losses.Config(**loss))
    result = loop.fit(network, arrays, config, validation=arrays)
    assert np.isfinite(result.history[0]["loss"])
