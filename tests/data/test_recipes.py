"""Papers' preprocessing, against its steps in NumPy."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import data
from capsjax.data import recipes
from tests.conftest import bare

SHAPES = {
    "mnist_sabour": (28, 28, 1),
    "translated_mnist_sabour": (28, 28, 1),
    "cifar10_sabour": (32, 32, 3),
    "smallnorb_sabour": (96, 96, 2),
    "smallnorb_hinton": (96, 96, 2),
    "smallnorb_vb": (96, 96, 2),
}
NORB = [name for name in SHAPES if name.startswith("smallnorb")]
JITTERED = ["cifar10_sabour", "smallnorb_sabour", "smallnorb_hinton"]


@pytest.fixture(params=SHAPES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def images(name: str, random: np.random.Generator) -> np.ndarray:
    return random.integers(0, 256, (12, *SHAPES[name])).astype(np.uint8)


@functools.cache
def compiled(function: Callable) -> Callable:
    """For a batch; kept, since several recipes have the same functions."""
    return jax.jit(jax.vmap(function))


def in_training(name: str, images: np.ndarray, seed: int = 0) -> np.ndarray:
    keys = jax.random.split(jax.random.key(seed), len(images))
    return np.asarray(compiled(recipes.find(name).train)(keys, jnp.asarray(images)))


def in_testing(name: str, images: np.ndarray) -> np.ndarray:
    return np.asarray(compiled(recipes.find(name).test)(jnp.asarray(images)))


def standardised(image: np.ndarray) -> np.ndarray:
    image = image.astype(float)
    return (image - image.mean()) / image.std()


def halved(image: np.ndarray) -> np.ndarray:
    return image.reshape(48, 2, 48, 2, -1).astype(float).mean(axis=(1, 3))


@pytest.mark.core
def test_results_have_the_declared_size(name: str, images: np.ndarray) -> None:
    expected = (12, *recipes.RECIPES[name].size, images.shape[-1])
    for found in (in_training(name, images), in_testing(name, images)):
        assert (found.shape, found.dtype) == (expected, np.float32)


def test_every_recipe_is_tested_here() -> None:
    assert set(recipes.RECIPES) == set(SHAPES)


def test_training_is_random_and_follows_its_key(name: str, images: np.ndarray) -> None:
    assert np.array_equal(in_training(name, images), in_training(name, images))
    assert not np.array_equal(in_training(name, images), in_training(name, images, seed=1))


@pytest.mark.core
def test_mnist_is_shifted_by_up_to_two_in_training_only() -> None:
    images = data.load("mnist", split="test")["image"][:12]
    np.testing.assert_allclose(in_testing("mnist_sabour", images), images / 255.0, rtol=1e-6)
    found = in_training("mnist_sabour", images)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))) / 255
    for shifted, image in zip(found, padded, strict=True):
        windows = [image[y : y + 28, x : x + 28] for y in range(5) for x in range(5)]
        assert any(np.allclose(shifted, window) for window in windows)


def test_translated_digits_are_whole_and_reach_all_four_edges() -> None:
    images = np.full((12, 28, 28, 1), 255, np.uint8)
    seeds = range(25)
    found = np.concatenate([in_training("translated_mnist_sabour", images, s) for s in seeds])
    assert np.all(found.sum(axis=(1, 2, 3)) == 28 * 28)
    assert all(edge.any() for edge in (found[:, 0], found[:, -1], found[:, :, 0], found[:, :, -1]))
    centred = in_testing("translated_mnist_sabour", images[:1])[0]
    assert np.all(centred[6:-6, 6:-6] == 1)
    assert centred.sum() == 28 * 28


@pytest.mark.core
@pytest.mark.parametrize("name", [name for name in SHAPES if "mnist" not in name])
def test_test_images_are_central_and_standardised(name: str, images: np.ndarray) -> None:
    for found, image in zip(in_testing(name, images), images, strict=True):
        middle = halved(image)[8:40, 8:40] if name in NORB else image[4:28, 4:28]
        np.testing.assert_allclose(found, standardised(middle), rtol=1e-4, atol=1e-4)


def test_training_without_jitter_is_a_standardised_crop(random: np.random.Generator) -> None:
    images = random.integers(0, 256, (3, 96, 96, 2)).astype(np.uint8)
    for found, image in zip(in_training("smallnorb_vb", images), images, strict=True):
        half = halved(image)
        crops = (half[y : y + 32, x : x + 32] for y in range(17) for x in range(17))
        assert any(np.allclose(found, standardised(crop), atol=1e-3) for crop in crops)


@pytest.mark.parametrize("name", JITTERED)
def test_jitter_leaves_mean_0_and_deviation_1(name: str, images: np.ndarray) -> None:
    found = in_training(name, images)
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=(1, 2, 3)), 1, rtol=1e-4)


def test_half_of_cifars_training_images_are_mirrored() -> None:
    ramp = np.broadcast_to(8 * np.arange(32)[:, None], (12, 32, 32, 3)).astype(np.uint8)
    found = np.concatenate([in_training("cifar10_sabour", ramp, seed) for seed in range(33)])
    mirrored = found[:, 0, 0, 0] > found[:, 0, -1, 0]
    # Three standard deviations of a fair coin.
    assert abs(mirrored.sum() - 198) < 30


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown recipe 'mnist', expected one of: mnist_sabour"):
        bare(recipes.find)("mnist")


@pytest.mark.core
@pytest.mark.parametrize(
    ("name", "given", "made"),
    [
        ("mnist_sabour", (28, 28, 1), (28, 28, 1)),
        ("translated_mnist_sabour", (28, 28, 1), (40, 40, 1)),
        ("cifar10_sabour", (32, 32, 3), (24, 24, 3)),
        ("smallnorb_hinton", (96, 96, 2), (32, 32, 2)),
        ("smallnorb_vb", (48, 48, 2), (32, 32, 2)),
    ],
)
def test_the_shape_after_a_recipe_is_that_of_its_images(name, given, made) -> None:
    assert recipes.shape_after(name, given) == made
    image = jnp.zeros(given, jnp.uint8)
    recipe = recipes.find(name)
    assert jax.eval_shape(recipe.test, image).shape == made
    assert jax.eval_shape(recipe.train, jax.random.key(0), image).shape == made


def test_images_that_a_recipe_is_not_made_for_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images are 28x28, recipe 'cifar10_sabour' .* for 32x32"):
        recipes.shape_after("cifar10_sabour", (28, 28, 1))
    with pytest.raises(ValueError, match=r"32x32, recipe 'smallnorb_vb' .* 96x96 or 48x48"):
        recipes.shape_after("smallnorb_vb", (32, 32, 2))
    with pytest.raises(ValueError, match="unknown recipe 'cifar10'"):
        recipes.shape_after("cifar10", (32, 32, 3))
