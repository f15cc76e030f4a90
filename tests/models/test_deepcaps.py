"""DeepCaps: counts, its particulars, refusals, any routing."""

from dataclasses import replace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import models, routing
from capsjax.models import deepcaps
from capsjax.routing import dynamic
from capsjax.types import Capsules
from tests.conftest import bare_config
from tests.training.small import digits

_SMALL = deepcaps.Config(
    features=8,
    types=4,
    dims=(4, 4),
    class_dim=8,
    decoder_channels=4,
    decoder_features=(4, 4),
)
NARROW = {"deepcaps": (_SMALL, (28, 28, 1))}


def create(config: Any = _SMALL, **options: Any) -> Any:
    return models.create("deepcaps", config=config, **options)


@pytest.mark.core
def test_the_count_is_that_of_the_official_layers() -> None:
    """By hand: first convolution and normalisation, cells, routed shortcut, classes, decoder."""
    first = 9 * 128 + 128 + 2 * 128
    cell_1 = 9 * 128 * 128 + 3 * 9 * 128 * 128
    cell_2 = 9 * 128 * 256 + 3 * 9 * 256 * 256
    cell_3, cell_4 = 4 * 9 * 256 * 256, 3 * 9 * 256 * 256 + 9 * 8 * 256 + 256
    classes = 32 * (16 + 4) * 10 * 8 * 32 + 10 * 32
    decoder = 32 * 784 + 784 + 2 * 16
    decoder += 9 * (16 * 64 + 64 * 32 + 32 * 16 + 16) + 64 + 32 + 16 + 1
    network = nnx.eval_shape(lambda: models.create("deepcaps"))
    assert models.count_parameters(network.cells[0]) == cell_1
    assert models.count_parameters(network.cells[3]) == cell_4
    assert models.count_parameters(network.classes) == classes
    assert models.count_parameters(network.decoder) == decoder == 58_417
    total = first + cell_1 + cell_2 + cell_3 + cell_4 + classes + decoder
    assert models.count_parameters(network) == total == 8_500_337


@pytest.mark.parametrize("form", deepcaps.MODEL.forms, ids=lambda form: str(form.image_shape))
def test_the_maps_halve_rounding_up_and_the_last_two_cells_are_seen(form: Any) -> None:
    network = nnx.eval_shape(
        lambda: create(form.config, image_shape=form.image_shape, num_classes=form.num_classes)
    )
    assert models.count_parameters(network) == form.parameters
    sides = {28: (4, 2), 32: (4, 2), 64: (8, 4)}[form.image_shape[0]]
    children = 32 * sum(side**2 for side in sides)
    assert network.classes.votes.weights.shape == (8, 10, 32, children)


def test_odd_images_give_capsules_lengths_reconstructions_and_both_routings() -> None:
    network = create(image_shape=(13, 18, 3), num_classes=3)
    network.eval()
    images = jax.random.uniform(jax.random.key(0), (2, 13, 18, 3))
    run = nnx.jit(lambda network, images: network(images, trace=True))
    output = run(network, images)
    chex.assert_shape(output.poses, (2, 3, 8))
    chex.assert_shape(output.activations, (2, 3))
    chex.assert_shape(output.reconstruction, (2, 13, 18, 3))
    of_cell, of_classes = output.routed
    chex.assert_shape(of_cell.coefficients, (2, 4, 5, 4, 4))
    chex.assert_shape(of_cell.trace.poses, (2, 3, 4, 5, 4, 4))
    # The last cell's capsules first, row after row, then those of the one before.
    chex.assert_shape(of_classes.coefficients, (2, 3, (4 * 5 + 7 * 9) * 4))
    np.testing.assert_allclose(
        np.linalg.norm(output.poses, axis=-1), output.activations, rtol=0, atol=1e-6
    )
    with pytest.raises(ValueError, match=r"images have shape \(2, 5, 5, 1\), expected"):
        network(jnp.zeros((2, 5, 5, 1)))


def test_class_capsules_see_the_last_cell_then_the_one_before() -> None:
    network = create(replace(_SMALL, decoder=False), image_shape=(6, 6, 1), num_classes=2)
    network.eval()

    def by_hand(network: Any, images: Any) -> Any:
        features = network.normalisation(jax.nn.relu(network.convolution(images)))
        before, _ = network.cells[0](Capsules(features[..., None], features))
        last, _ = network.cells[1](before)
        poses = [x.poses.reshape(1, -1, 4) for x in (last, before)]
        capsules = Capsules(jnp.concatenate(poses, 1), jnp.ones((1, 4 * (4 + 9))))
        return network.classes(capsules).votes, network(images).routed[-1].votes

    expected, found = nnx.jit(by_hand)(network, jnp.ones((1, 6, 6, 1)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_k_reconstructions_are_one_batch() -> None:
    network = create(image_shape=(8, 8, 1), num_classes=3)
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    run = nnx.jit(lambda network, images, targets: network(images, targets).reconstruction)
    both = jnp.stack([jnp.eye(3)[jnp.array([0, 0])], jnp.eye(3)[jnp.array([2, 1])]], axis=1)
    before = np.asarray(network.decoder.normalisation.mean[...])
    chex.assert_shape(run(network, images, both), (2, 2, 8, 8, 1))  # it updates the statistics
    assert np.any(np.asarray(network.decoder.normalisation.mean[...]) != before)
    network.eval()
    together = run(network, images, jnp.concatenate([both, both[:, ::-1]], axis=1))
    np.testing.assert_array_equal(together[:, :2], together[:, :1:-1])
    assert np.any(together[:, 0] != together[:, 1])


@pytest.mark.parametrize("name", routing.ALGORITHMS)
def test_any_routing_fits_both_layers(name: str) -> None:
    config = replace(_SMALL, routing=routing.config_of(name), decoder=False)
    network = create(config, image_shape=(12, 12, 1))
    network.eval()
    output = nnx.eval_shape(lambda: network(jnp.zeros((2, 12, 12, 1))))
    shapes = [routed.coefficients.shape for routed in output.routed]
    assert shapes == [(2, 3, 3, 4, 4), (2, 10, (9 + 36) * 4)]
    assert output.activations.shape == (2, 10)


# One that looks at activations, which a sum of two capsules may not have above 1, and one whose
# poses are not squashed.
@pytest.mark.parametrize("name", ["em", "inverted_attention"])
def test_another_routing_gives_finite_capsules(name: str) -> None:
    config = replace(_SMALL, routing=routing.config_of(name), decoder=False)
    network = create(config, image_shape=(12, 12, 1))
    images = jnp.asarray(digits(4)["image"][:, 8:20, 8:20], jnp.float32) / 255
    output = nnx.jit(lambda network, images: network(images))(network, images)
    assert output.reconstruction is None
    assert np.all(np.isfinite(output.poses))
    assert np.all((output.activations >= 0) & (output.activations <= 1 + 1e-6))
    for routed in output.routed:
        assert np.all(np.isfinite(routed.coefficients))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"types": 0}, "types is 0"),
        ({"dims": ()}, r"dims are \(\)"),
        ({"dims": (8,)}, r"dims are \(8,\), expected at least two, the last two equal"),
        ({"dims": (4, 8)}, r"dims are \(4, 8\), expected at least two, the last two equal"),
        ({"decoder_features": ()}, r"decoder_features are \(\)"),
        ({"routing": 3}, "routing is 3"),
        ({"routing": dynamic.Config(leaky=True)}, "routing.leaky is True, .* use leaky=False"),
    ],
)
def test_choices_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bare_config(deepcaps.Config, **options)


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="num_classes is 1"):
        create(num_classes=1)
