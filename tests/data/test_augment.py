"""Shifts of images, against shifts written with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import data
from capsjax.data import augment

LIMIT = 2


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """7x9 pixels of 3 channels, none of them 0, all different in the first channel."""
    values = np.random.default_rng(0).integers(1, 256, (7, 9, 3))
    values[..., 0] = 1 + np.arange(63).reshape(7, 9)
    return values.astype(np.uint8)


def shifted(image: np.ndarray, row: int, column: int) -> np.ndarray:
    """Moved down and right, with zeros from outside; pixel by pixel."""
    height, width, _ = image.shape
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - row < height and 0 <= x - column < width:
                result[y, x] = image[y - row, x - column]
    return result


def offset(image: np.ndarray, moved: np.ndarray) -> tuple[int, int]:
    """Where the middle pixel went."""
    middle = image.shape[0] // 2, image.shape[1] // 2
    [[row, column]] = np.argwhere(moved[..., 0] == image[(*middle, 0)])
    return int(row) - middle[0], int(column) - middle[1]


@pytest.fixture(scope="module")
def many(image: np.ndarray) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), 1000)
    return np.asarray(
        jax.vmap(lambda key: augment.shift(key, jnp.asarray(image), limit=LIMIT))(keys)
    )


@pytest.mark.core
def test_every_offset_up_to_the_limit_occurs_and_no_other(
    image: np.ndarray, many: np.ndarray
) -> None:
    found = {offset(image, moved) for moved in many}
    within = range(-LIMIT, LIMIT + 1)
    assert found == {(row, column) for row in within for column in within}


def test_offsets_are_uniform(image: np.ndarray, many: np.ndarray) -> None:
    offsets = [offset(image, moved) for moved in many]
    counts = np.unique(offsets, axis=0, return_counts=True)[1]
    # Chi squared of 24 degrees of freedom: 51.2 is exceeded once in a thousand.
    assert np.sum((counts - 40) ** 2 / 40) < 51.2


@pytest.mark.core
def test_a_shifted_image_is_the_image_moved_with_zeros_from_outside(
    image: np.ndarray, many: np.ndarray
) -> None:
    for moved in many[:100]:
        assert np.array_equal(moved, shifted(image, *offset(image, moved)))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "bfloat16"])
def test_shape_and_dtype_are_kept(dtype: str) -> None:
    image = jnp.ones((6, 5, 2), dtype)
    moved = augment.shift(jax.random.key(1), image, limit=1)
    assert (moved.dtype, moved.shape) == (image.dtype, image.shape)


def test_limit_zero_is_the_identity(image: np.ndarray) -> None:
    for seed in range(5):
        moved = augment.shift(jax.random.key(seed), jnp.asarray(image), limit=0)
        assert np.array_equal(moved, image)


def test_the_same_key_shifts_alike(image: np.ndarray) -> None:
    moved = [augment.shift(jax.random.key(3), jnp.asarray(image), limit=2) for _ in range(2)]
    assert np.array_equal(*moved)


def test_vmapped_and_compiled_equals_looped() -> None:
    images = jnp.asarray(data.load("mnist", split="test")["image"][:16])
    keys = jax.random.split(jax.random.key(0), 16)
    looped = jnp.stack(
        [augment.shift(key, image, limit=LIMIT) for key, image in zip(keys, images, strict=True)]
    )
    batched = jax.jit(jax.vmap(lambda key, image: augment.shift(key, image, limit=LIMIT)))
    assert np.array_equal(batched(keys, images), looped)
    assert not np.array_equal(looped, images)


@pytest.mark.core
def test_pixels_become_float32_from_0_to_1() -> None:
    pixels = jnp.arange(256, dtype=jnp.uint8).reshape(16, 16, 1)
    found = augment.to_unit_interval(pixels)
    assert found.dtype == jnp.float32
    expected = (np.arange(256) / 255).reshape(16, 16, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=0)
    assert (found.min(), found.max()) == (0, 1)
