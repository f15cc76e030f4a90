"""CapsNet: pinned parameter counts, shapes, the decoder's mask, official values, lowering."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import models
from capsjax.models import capsnet
from capsjax.routing import dynamic
from tests.conftest import bare, bare_config

CLASSES, IMAGE = 3, (16, 16, 1)
CIFAR = capsnet.Config(primary_types=64, padding="SAME", decoder=False)


def abstract(config, image_shape=(28, 28, 1), num_classes=10):
    """A network of any width that owns no memory."""

    def make():
        return models.create(
            "capsnet", config=config, image_shape=image_shape, num_classes=num_classes
        )

    return nnx.eval_shape(make)


def abstract_output(config, image_shape, num_classes):
    """Shapes of what a network returns for two images."""

    def run(images):
        network = models.create(
            "capsnet", config=config, image_shape=image_shape, num_classes=num_classes
        )
        return network(images)

    return jax.eval_shape(run, jax.ShapeDtypeStruct((2, *image_shape), jnp.float32))


def with_routing(config, **options):
    return dataclasses.replace(config, routing=dynamic.Config(**options))


def official(config, **options):
    return dataclasses.replace(
        config,
        semantics="official",
        routing=dynamic.Config(semantics="official", **options),
    )


@pytest.fixture(scope="module")
def network(small_network):
    """The narrow network compiled, once for this file."""
    return jax.jit(lambda images, targets=None: small_network(images, targets))


@pytest.fixture
def images(random):
    return jnp.asarray(random.uniform(size=(4, *IMAGE)), jnp.float32)


@pytest.mark.core
@pytest.mark.parametrize(
    ("config", "image_shape", "bias", "parameters"),
    [
        (capsnet.Config(), (28, 28, 1), False, 8_215_568),
        (capsnet.Config(), (28, 28, 1), True, 8_215_728),
        (capsnet.Config(decoder=False), (28, 28, 1), False, 6_804_224),
        (capsnet.Config(decoder=False), (28, 28, 1), True, 6_804_384),
        (capsnet.Config(), (36, 36, 1), False, 11_361_808),
        (capsnet.Config(), (36, 36, 1), True, 11_361_968),
        (CIFAR, (24, 24, 3), False, 22_476_288),
        (CIFAR, (24, 24, 3), True, 22_476_448),
    ],
)
def test_published_networks_have_this_many_parameters(config, image_shape, bias, parameters):
    leaky = config is CIFAR
    network = abstract(with_routing(config, bias=bias, leaky=leaky), image_shape)
    assert models.count_parameters(network) == parameters


def test_the_official_network_has_the_bias():
    network = abstract(official(capsnet.Config()))
    assert models.count_parameters(network) == 8_215_728


def test_the_published_decoder_has_1411344_parameters():
    assert models.count_parameters(abstract(capsnet.Config()).decoder) == 1_411_344


@pytest.mark.core
def test_mnist_has_1152_primary_capsules_of_8_dimensions():
    output = abstract_output(capsnet.Config(), (28, 28, 1), 10)
    chex.assert_shape(abstract(capsnet.Config()).classes.votes.weights, (8, 10, 16, 1152))
    chex.assert_shape(output.routed[0].votes, (2, 10, 16, 1152))
    chex.assert_shape(output.poses, (2, 10, 16))
    chex.assert_shape(output.activations, (2, 10))
    chex.assert_shape(output.reconstruction, (2, 28, 28, 1))


@pytest.mark.core
def test_shapes_and_dtypes_in_every_mode(small_network, images, apply):
    output = apply(small_network, images)
    chex.assert_shape(output.poses, (4, CLASSES, 16))
    chex.assert_shape(output.activations, (4, CLASSES))
    chex.assert_shape(output.reconstruction, (4, *IMAGE))
    chex.assert_type([output.poses, output.activations, output.reconstruction], jnp.float32)
    (routed,) = output.routed
    chex.assert_shape(routed.coefficients, (4, CLASSES, 32))
    chex.assert_trees_all_equal(routed.poses, output.poses)
    np.testing.assert_allclose(output.activations, np.linalg.norm(output.poses, axis=-1), rtol=1e-5)


@pytest.mark.parametrize(
    ("image_shape", "num_classes", "primary"),
    [((9, 9, 1), 2, 2), ((20, 13, 3), 5, 6 * 3 * 2), ((10, 30, 2), 12, 1 * 11 * 2)],
)
def test_other_images_and_classes(small_config, image_shape, num_classes, primary):
    output = abstract_output(small_config, image_shape, num_classes)
    chex.assert_shape(output.activations, (2, num_classes))
    chex.assert_shape(output.reconstruction, (2, *image_shape))
    chex.assert_shape(output.routed[0].coefficients, (2, num_classes, primary))


def test_same_padding_takes_images_smaller_than_the_receptive_field(small_config):
    config = dataclasses.replace(small_config, padding="SAME")
    output = abstract_output(config, (5, 6, 1), 2)
    chex.assert_shape(output.routed[0].coefficients, (2, 2, 3 * 3 * 2))


def test_without_a_decoder_there_is_no_reconstruction(small_config):
    config = dataclasses.replace(small_config, decoder=False)
    assert abstract(config, IMAGE, CLASSES).decoder is None
    assert abstract_output(config, IMAGE, CLASSES).reconstruction is None


@pytest.mark.core
def test_the_decoder_sees_the_longest_capsule_unless_told_otherwise(network, images):
    predicted = network(images)
    longest = np.argmax(predicted.activations, axis=-1)
    same = network(images, jnp.eye(CLASSES)[longest])
    np.testing.assert_array_equal(same.reconstruction, predicted.reconstruction)
    other = network(images, jnp.eye(CLASSES)[(longest + 1) % CLASSES])
    np.testing.assert_array_equal(other.activations, predicted.activations)
    assert np.all(np.any(other.reconstruction != predicted.reconstruction, axis=(1, 2, 3)))


def test_the_decoder_sees_the_target_capsule_alone(small_network, network, images):
    targets = jnp.eye(CLASSES)[jnp.array([0, 1, 2, 0])]
    output = network(images, targets)
    only = output.poses * targets[:, :, None]
    expected = jax.jit(small_network.decoder)(only, jnp.ones((4, CLASSES)))
    np.testing.assert_allclose(output.reconstruction, expected, rtol=1e-5)


def test_a_trace_shows_every_iteration_and_changes_nothing(small_network, network, images):
    traced = jax.jit(lambda x: small_network(x, trace=True))(images)
    plain = network(images)
    chex.assert_shape(traced.routed[0].trace.coefficients, (4, 3, CLASSES, 32))
    assert plain.routed[0].trace is None
    np.testing.assert_allclose(traced.activations, plain.activations, rtol=1e-6)


def test_an_example_alone_is_the_same_as_inside_a_batch(network, images):
    together = network(images)
    alone = network(images[2:3])
    np.testing.assert_allclose(alone.poses[0], together.poses[2], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(alone.reconstruction[0], together.reconstruction[2], rtol=1e-5)


def split_loss(network):
    """``loss(params, images)`` over everything that a network returns, and its parameters."""
    graph, params, rest = nnx.split(network, nnx.Param, ...)

    def loss(params, images):
        output = nnx.merge(graph, params, rest, copy=True)(images)
        return jnp.sum(output.activations) + jnp.sum(jnp.square(output.reconstruction - images))

    return loss, params


@pytest.fixture(scope="module")
def value_and_grad(small_network):
    """Of ``split_loss``, compiled once for this file; takes images."""
    loss, params = split_loss(small_network)
    run = jax.jit(jax.value_and_grad(loss))
    return lambda images: run(params, images)


def test_gradients_are_finite_and_reach_every_parameter(small_network, value_and_grad, images):
    results = value_and_grad(images)
    params = nnx.state(small_network, nnx.Param)
    chex.assert_trees_all_equal_shapes_and_dtypes(results[1], params)
    chex.assert_tree_all_finite(results)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(results[1]))


def test_black_images_give_finite_values_and_gradients(value_and_grad, images):
    chex.assert_tree_all_finite(value_and_grad(jnp.zeros_like(images)))


def test_a_second_batch_does_not_compile_again(network, images):
    network(images)
    compiled = network._cache_size()
    network(1 - images)
    assert network._cache_size() == compiled


@pytest.mark.core
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_gradient_lowers_for_other_platforms(small_network, images, platform):
    loss, params = split_loss(small_network)
    text = jax.export.export(jax.jit(jax.grad(loss)), platforms=[platform])(
        params, images
    ).mlir_module()
    # Two convolutions, and their gradients but for that of the images.
    assert text.count("stablehlo.convolution") in (5, 6)
    assert "stablehlo.while" not in text


@pytest.mark.core
@pytest.mark.parametrize(("leaky", "scale"), [(False, 1 / 32), (True, 1 / 33)])
def test_official_primary_capsules_are_scaled_by_the_routing_among_their_types(leaky, scale):
    network = abstract(official(capsnet.Config(), leaky=leaky))
    assert network.primary.scale == pytest.approx(scale, rel=1e-12)
    assert abstract(capsnet.Config()).primary.scale == 1


def biases(network):
    flat = nnx.to_flat_state(nnx.state(network, nnx.Param))
    return {path: np.asarray(value[...]) for path, value in flat if path[-1] == "bias"}


def test_official_biases_are_a_tenth(small_config):
    network = models.create(
        "capsnet", config=official(small_config), image_shape=IMAGE, num_classes=CLASSES
    )
    found = biases(network)
    assert len(found) == 5  # two convolutions, the class capsules, the decoder's two
    wrong = [path for path, value in found.items() if np.any(value != np.float32(0.1))]
    assert not wrong


def test_paper_biases_are_zero(small_network):
    found = biases(small_network)
    assert len(found) == 4
    assert not any(np.any(value) for value in found.values())


def test_official_kernels_are_truncated_normals_of_published_width(small_config):
    # A normal cut at two standard deviations keeps 0.8796 of its own.
    config = dataclasses.replace(official(small_config), features=64, decoder_widths=(64,))
    network = models.create("capsnet", config=config, image_shape=IMAGE, num_classes=CLASSES)
    for name, values, width in [
        ("convolution", network.convolution.kernel, 0.05),
        ("primary", network.primary.kernel, 0.1),
        ("classes", network.classes.votes.weights, 0.1),
        ("decoder", network.decoder.layers[1].kernel, 0.1),
    ]:
        values = np.asarray(values[...])
        assert np.max(np.abs(values)) <= 2 * width * 1.0001, name
        assert np.std(values) == pytest.approx(0.8796 * width, rel=0.06), name


def test_one_seed_gives_one_network(small_config):
    def parameters(seed):
        network = models.create(
            "capsnet", config=small_config, image_shape=IMAGE, num_classes=CLASSES, rngs=seed
        )
        return jax.tree.leaves(nnx.state(network, nnx.Param))

    chex.assert_trees_all_equal(parameters(1), parameters(1))
    assert any(np.any(a != b) for a, b in zip(parameters(1), parameters(2), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features is 0, expected at least 1"),
        ({"kernel_size": -1}, "kernel_size is -1, expected at least 1"),
        ({"primary_types": 0}, "primary_types is 0, expected at least 1"),
        ({"primary_dim": 0}, "primary_dim is 0, expected at least 1"),
        ({"class_dim": 0}, "class_dim is 0, expected at least 1"),
        ({"decoder_widths": (8, 0)}, r"decoder_widths are \(8, 0\), expected at least 1 each"),
        ({"padding": "full"}, "padding is 'full', expected one of: 'VALID', 'SAME'"),
        ({"semantics": "code"}, "semantics is 'code', expected one of: 'paper', 'official'"),
        ({"semantics": "official"}, "'official' and routing.semantics is 'paper'"),
    ],
)
def test_a_config_out_of_range_raises(options, message):
    with pytest.raises(ValueError, match=message):
        bare_config(capsnet.Config, **options)


@pytest.mark.parametrize("image_shape", [(16, 28, 1), (28, 16, 1)])
def test_images_smaller_than_the_receptive_field_raise(image_shape):
    size = f"{image_shape[0]}x{image_shape[1]}"
    with pytest.raises(ValueError, match=f"images of {size} are smaller .* field of 17x17"):
        models.create("capsnet", image_shape=image_shape)


def test_a_single_class_raises(small_config):
    with pytest.raises(ValueError, match="num_classes is 1, expected at least 2"):
        models.create("capsnet", config=small_config, image_shape=IMAGE, num_classes=1)


@pytest.mark.parametrize("shape", [(16, 16, 1), (2, 16, 15, 1), (2, 16, 16, 3)])
def test_images_of_another_shape_raise(small_network, shape):
    pattern = rf"shape \({', '.join(map(str, shape))}\), expected .*\(16, 16, 1\) after the batch"
    with pytest.raises(ValueError, match=pattern):
        bare(type(small_network).__call__)(small_network, jnp.ones(shape))


def test_an_unknown_model_raises():
    with pytest.raises(ValueError, match=r"unknown model 'resnet', expected one of: .*capsnet"):
        models.find("resnet")
