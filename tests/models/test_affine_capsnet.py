"""The affine CapsNet: shared matrices against NumPy, other routings, refusals."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import models
from capsjax.models import affine_capsnet
from capsjax.routing import dynamic
from tests.conftest import bare_config

CONFIG = affine_capsnet.Config(
    features=8, kernel_size=3, primary_types=3, primary_dim=4, decoder_widths=(16,)
)
NARROW: dict[str, tuple[affine_capsnet.Config, tuple[int, int, int]]] = {
    "affine_capsnet": (CONFIG, (28, 28, 1)),
}
IMAGE = (9, 11, 2)  # 3 x 4 positions of 3 types of primary capsules


def create(config: Any = CONFIG, **options: Any) -> Any:
    settings = {"image_shape": IMAGE, "num_classes": 5, **options}
    return models.create("affine_capsnet", config=config, **settings)


@pytest.mark.core
@pytest.mark.parametrize(
    ("share", "size", "count"),
    # Sabour's convolutions, then 10 x 8 x 16 for all children or for each of 32 types.
    [("all", 28, 1280), ("positions", 28, 40_960), ("all", 40, 1280)],
)
def test_the_published_encoder_has_few_matrices(share: Any, size: int, count: int) -> None:
    config = affine_capsnet.Config(share=share, decoder=False)
    network = nnx.eval_shape(
        lambda: models.create("affine_capsnet", config=config, image_shape=(size, size, 1))
    )
    convolutions = 81 * 256 + 256 + 81 * 256 * 256 + 256
    assert models.count_parameters(network) == convolutions + count


@pytest.mark.parametrize("share", ["all", "positions"])
def test_class_capsules_are_the_squashed_sum_of_children_through_shared_matrices(
    share: Any, x64: None
) -> None:
    network = create(replace(CONFIG, share=share))
    images = jax.random.uniform(jax.random.key(0), (2, *IMAGE))
    output = jax.jit(network)(images)
    children = network.primary(jax.nn.relu(network.convolution(images))).poses
    assert children.shape == (2, 3, 4, 3, 4)
    # [child_dim, parents, dim, types], one type standing for all where all share.
    weights = np.asarray(network.classes.votes.weights[...])
    assert weights.shape == (4, 5, 16, 1 if share == "all" else 3)
    weights = np.broadcast_to(weights, (4, 5, 16, 3))
    votes = np.einsum("bhwta,ajdt->bjdhwt", np.asarray(children), weights)
    total = votes.sum((3, 4, 5)) / 5
    length = np.linalg.norm(total, axis=-1)
    squashed = length / (1 + length**2)
    np.testing.assert_allclose(output.poses, squashed[..., None] * total, rtol=1e-6)
    np.testing.assert_allclose(output.activations, length**2 / (1 + length**2), rtol=1e-6)
    np.testing.assert_allclose(output.routed[0].votes, votes.reshape(2, 5, 16, 36), rtol=1e-6)
    np.testing.assert_allclose(output.routed[0].coefficients, np.full((2, 5, 36), 0.2))


def test_a_stem_comes_before_all_else() -> None:
    config = replace(CONFIG, share="positions", decoder=False)
    network = create(replace(config, stem=((6, 3, 2), (4, 2, 1))), image_shape=(20, 23, 2))
    images = jax.random.uniform(jax.random.key(0), (3, 20, 23, 2))
    x = images
    for convolution, stride in zip(network.stem, (2, 1), strict=True):
        kernel, bias = convolution.kernel[...], convolution.bias[...]
        axes = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "VALID", dimension_numbers=axes
        )
        x = np.maximum(x + bias[None, None, None], 0)
        # In training a normalisation has the statistics of the batch.
        x = (x - x.mean((0, 1, 2), keepdims=True)) / np.sqrt(x.var((0, 1, 2), keepdims=True) + 1e-3)
    assert x.shape == (3, 8, 10, 4)
    plain = create(config, image_shape=(8, 10, 4))
    for name in ("convolution", "primary", "classes"):
        nnx.update(getattr(plain, name), nnx.state(getattr(network, name)))
    expected = jax.jit(plain)(x).poses
    found = nnx.jit(lambda network, images: network(images).poses)(network, images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="map of 4x9 for a receptive field of 5x5"):
        create(replace(config, stem=((6, 3, 2),)), image_shape=(9, 20, 2))
    with pytest.raises(ValueError, match="map of 2x20 for a kernel of 3x3"):
        create(replace(config, stem=((6, 3, 2),)), image_shape=(2, 20, 2))


def test_another_routing_takes_all_children() -> None:
    network = create(routing=dynamic.Config())
    images = jax.random.uniform(jax.random.key(0), (2, *IMAGE))
    output = jax.jit(network)(images, jnp.eye(5)[:2])
    coefficients = np.asarray(output.routed[0].coefficients)
    assert coefficients.shape == (2, 5, 36)
    assert (np.ptp(coefficients, 2) > 0).all()
    assert output.reconstruction.shape == (2, *IMAGE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"share": "types"}, "share is 'types', expected one of: 'all', 'positions'"),
        ({"padding": "FULL"}, "padding is 'FULL'"),
        ({"primary_dim": 0}, "primary_dim is 0"),
        ({"decoder_widths": (0,)}, "decoder_widths are"),
        ({"routing": 3}, "routing is 3"),
        ({"stem": ((4, 3),)}, r"stem is \(\(4, 3\),\)"),
        ({"stem": ((4, 3, 0),)}, r"stem is \(\(4, 3, 0\),\)"),
    ],
)
def test_choices_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bare_config(affine_capsnet.Config, **options)


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="map of 4x20 for a receptive field of 5x5"):
        create(image_shape=(4, 20, 1))
    with pytest.raises(ValueError, match="num_classes is 1"):
        create(num_classes=1)
    with pytest.raises(ValueError, match=r"images have shape \(2, 5, 5, 1\), expected"):
        create()(jnp.zeros((2, 5, 5, 1)))
    assert create(replace(CONFIG, padding="SAME", decoder=False), image_shape=(4, 20, 1))
