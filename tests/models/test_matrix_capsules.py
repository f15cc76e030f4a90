"""Matrix capsules: what their layers are, and what they refuse."""

from dataclasses import replace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import models
from capsjax.models import matrix_capsules, variational_capsnet
from capsjax.routing import dynamic, em
from tests.conftest import bare_config

IMAGE = (20, 20, 1)
_SIZES = {"features": 8, "primary_types": 3, "types": (4, 4)}
NARROW = {
    "matrix_capsules": (matrix_capsules.Config(**_SIZES), IMAGE),
    "matrix_capsules_small": (
        replace(models.find("matrix_capsules_small").config, **_SIZES),
        IMAGE,
    ),
    "variational_capsnet": (variational_capsnet.Config(**_SIZES), IMAGE),
}


def create(name: str = "matrix_capsules", config: Any = None, **options: Any) -> Any:
    config = NARROW[name][0] if config is None else config
    return models.create(name, config=config, **{"image_shape": IMAGE, **options})


def by_hand(a: int, b: int, c: int, d: int, channels: int, classes: int) -> int:
    """Section 4 of the paper, with a bias for every convolution and two betas for every type."""
    convolution = 5 * 5 * channels * a + a
    primary = (a + 1) * b * (16 + 1)
    capsules = 9 * b * c * 16 + 2 * c + 9 * c * d * 16 + 2 * d
    return convolution + primary + capsules + d * classes * 16 + 2 * classes


@pytest.mark.core
@pytest.mark.parametrize(
    ("name", "sizes"), [("matrix_capsules", (32,) * 4), ("matrix_capsules_small", (64, 8, 16, 16))]
)
def test_the_counts_are_those_of_the_layers_named_in_the_paper(name, sizes):
    for form in models.find(name).forms:
        assert form.parameters == by_hand(*sizes, form.image_shape[2], form.num_classes)


@pytest.mark.parametrize("name", NARROW)
def test_it_gives_a_routing_for_every_layer(name):
    network = create(name, num_classes=3)
    graph, state = nnx.split(network)

    def run(state: Any, images: Any) -> Any:
        return nnx.merge(graph, state)(images, trace=True)

    output = jax.eval_shape(run, state, jax.ShapeDtypeStruct((2, *IMAGE), jnp.float32))
    first, second, classes = output.routed
    chex.assert_shape(first.poses, (2, 3, 3, 4, 16))
    chex.assert_shape(first.coefficients, (2, 3, 3, 4, 9 * 3))
    chex.assert_shape(second.poses, (2, 1, 1, 4, 16))
    chex.assert_shape(classes.coefficients, (2, 3, 4))
    chex.assert_shape(classes.trace.coefficients, (2, 3, 3, 4))
    chex.assert_shape(output.poses, (2, 3, 16))
    chex.assert_shape(output.activations, (2, 3))
    assert output.reconstruction is None


def test_vectors_may_take_the_place_of_matrices_and_any_number_of_layers():
    config = replace(NARROW["matrix_capsules"][0], matrix=False, dim=6, routing=dynamic.Config())
    flat = replace(config, types=(), kernel_sizes=(), strides=(), coordinates=False)
    deep = replace(config, types=(2,) * 4, kernel_sizes=(2,) * 4, strides=(1,) * 4, padding="SAME")
    images = jnp.zeros((1, *IMAGE))
    for layers, choice in ((1, flat), (3, config), (5, deep)):
        network = create(config=choice)
        assert network.classes.votes.weights.shape[0] == 6
        assert len(jax.eval_shape(network, images).routed) == layers


def test_what_it_sees_at_one_position_moves_with_the_image():
    """Convolutional capsules are equivariant; only the coordinates tell positions apart."""
    config = replace(
        NARROW["matrix_capsules"][0],
        types=(4,),
        kernel_sizes=(3,),
        strides=(1,),
        coordinates=False,
        competition="position",
        routing=em.Config(num_iterations=2),
    )
    images = np.zeros((2, *IMAGE), np.float32)
    images[0, 6:12, 6:12] = np.random.default_rng(0).uniform(size=(6, 6, 1))
    images[1] = np.roll(images[0], 2, axis=1)  # the convolution's stride: one grid position
    network = create(config=config)
    (first, _) = jax.jit(lambda x: network(x))(images).routed
    np.testing.assert_allclose(first.poses[1, :, 1:], first.poses[0, :, :-1], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dim": 8}, "poses have dimension 8 below and 8 here, expected the same square"),
        ({"dim": 1}, "dim is 1, expected at least 2 for two coordinates"),
        ({"types": (4,)}, "expected as many of each"),
        ({"types": (4, 0)}, "types are"),
        ({"features": 0}, "features is 0"),
        ({"padding": "FULL"}, "padding is 'FULL'"),
        ({"competition": "some"}, "competition is 'some'"),
        ({"routing": 3}, "routing is 3"),
    ],
)
def test_choices_that_cannot_be_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        bare_config(matrix_capsules.Config, **options)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="a grid of 2x2 capsules is smaller than the window"):
        create(image_shape=(8, 8, 1))
    with pytest.raises(ValueError, match="num_classes is 1"):
        create(num_classes=1)
    with pytest.raises(ValueError, match=r"images have shape \(1, 5, 5, 1\)"):
        create()(jnp.zeros((1, 5, 5, 1)))
