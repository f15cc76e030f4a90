"""Brightness, contrast and standardisation, against their formulas in NumPy."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax.data import colour
from tests.conftest import bare

TRANSFORMS = {
    "brightness": partial(colour.random_brightness, limit=63.0),
    "contrast": partial(colour.random_contrast, lower=0.2, upper=1.8),
}
KEYS = jax.random.split(jax.random.key(0), 500)


@pytest.fixture
def image(random: np.random.Generator) -> np.ndarray:
    return random.uniform(0, 255, (7, 5, 3)).astype(np.float32)


@pytest.mark.core
def test_brightness_adds_one_number_within_the_limit(image: np.ndarray) -> None:
    many = jax.vmap(TRANSFORMS["brightness"], in_axes=(0, None))(KEYS, jnp.asarray(image))
    change = np.asarray(many) - image
    np.testing.assert_allclose(
        change, np.broadcast_to(change[:, :1, :1, :1], change.shape), atol=1e-4
    )
    assert -63 <= change.min() < -60
    assert 60 < change.max() <= 63
    assert abs(change[:, 0, 0, 0].mean()) < 3 * 63 / np.sqrt(3 * 500)


@pytest.mark.core
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.8])
def test_contrast_moves_pixels_from_their_channels_mean(image: np.ndarray, factor: float) -> None:
    mean = image.mean(axis=(0, 1))
    found = colour.contrast(jnp.asarray(image), factor)
    np.testing.assert_allclose(found, (image - mean) * factor + mean, rtol=1e-5, atol=1e-3)


def test_factors_of_the_contrast_are_uniform_in_their_range(image: np.ndarray) -> None:
    many = jax.vmap(TRANSFORMS["contrast"], in_axes=(0, None))(KEYS, jnp.asarray(image))
    factors = np.asarray(many).std(axis=(1, 2))[:, 0] / image.std(axis=(0, 1))[0]
    assert 0.2 - 1e-4 < factors.min() < 0.22
    assert 1.78 < factors.max() < 1.8 + 1e-4
    assert abs(factors.mean() - 1) < 3 * 0.8 / np.sqrt(3 * 500)


@pytest.mark.core
def test_standardised_images_have_mean_0_and_deviation_1(image: np.ndarray) -> None:
    found = colour.standardise(jnp.asarray(image))
    np.testing.assert_allclose(found, (image - image.mean()) / image.std(), rtol=1e-4, atol=1e-5)


def test_the_divisor_has_a_floor() -> None:
    faint = np.array([0, 1e-3, 0, 1e-3], np.float32).reshape(2, 2, 1)
    found = colour.standardise(jnp.asarray(faint))
    np.testing.assert_allclose(found, (faint - 5e-4) * np.sqrt(4), rtol=1e-5)
    uniform = colour.standardise(jnp.full((3, 3, 2), 128.0))
    assert np.array_equal(uniform, np.zeros((3, 3, 2)))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_draws_follow_the_key_and_batch(image: np.ndarray, name: str) -> None:
    looped = jnp.stack([TRANSFORMS[name](key, jnp.asarray(image)) for key in KEYS[:8]])
    batched = jax.jit(jax.vmap(TRANSFORMS[name], in_axes=(0, None)))(KEYS[:8], jnp.asarray(image))
    np.testing.assert_allclose(batched, looped, rtol=1e-4, atol=1e-3)
    assert len(np.unique(looped, axis=0)) == 8


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    "transform", [*(partial(t, KEYS[0]) for t in TRANSFORMS.values()), colour.standardise]
)
def test_dtype_is_kept_and_integers_are_refused(transform: Any, dtype: str) -> None:
    assert transform(jnp.ones((2, 2, 1), dtype)).dtype == dtype
    inner = getattr(transform, "func", transform)
    arguments = getattr(transform, "args", ()), getattr(transform, "keywords", {})
    with pytest.raises(ValueError, match="image is uint8, expected a floating dtype"):
        bare(inner)(*arguments[0], jnp.ones((2, 2, 1), jnp.uint8), **arguments[1])
