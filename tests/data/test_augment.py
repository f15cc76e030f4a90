"""Moves of whole pixels, against moves written with NumPy."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import data
from capsjax.data import augment
from tests.conftest import bare

LIMIT = 2
KEY = jax.random.key(0)


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


@pytest.mark.parametrize("offset", [(0, 0), (3, -2), (-3, 3)])
def test_an_image_placed_on_a_canvas_is_cut_at_its_frame(
    image: np.ndarray, offset: tuple[int, int]
) -> None:
    found = augment.place(jnp.asarray(image), jnp.array(offset), limit=3, pad=1)
    canvas = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    assert np.array_equal(found, shifted(canvas, *offset))


@pytest.mark.core
def test_crops_are_windows_at_every_position_equally_often(image: np.ndarray) -> None:
    keys = jax.random.split(jax.random.key(0), 960)
    crop = jax.vmap(lambda key: augment.random_crop(key, jnp.asarray(image), size=(4, 7)))
    crops = np.asarray(crop(keys))
    windows = [image[y : y + 4, x : x + 7] for y in range(4) for x in range(3)]
    counts = [np.sum(np.all(crops == window, axis=(1, 2, 3))) for window in windows]
    assert sum(counts) == 960
    # Chi squared of 11 degrees of freedom: 31.3 is exceeded once in a thousand.
    assert np.sum((np.array(counts) - 80) ** 2 / 80) < 31.3


def test_the_central_crop_leaves_equal_margins(image: np.ndarray) -> None:
    found = augment.central_crop(jnp.asarray(image), size=(3, 4))
    assert np.array_equal(found, image[2:5, 2:6])


def test_a_crop_larger_than_the_image_is_refused(image: np.ndarray) -> None:
    for crop in (augment.central_crop, lambda *a, **k: augment.random_crop(KEY, *a, **k)):
        with pytest.raises(ValueError, match=r"size \(8, 4\), expected at most .*\(7, 9\)"):
            crop(jnp.asarray(image), size=(8, 4))


def test_half_of_all_images_are_mirrored(image: np.ndarray) -> None:
    keys = jax.random.split(jax.random.key(0), 1000)
    flipped = np.asarray(jax.vmap(lambda key: augment.random_flip(key, jnp.asarray(image)))(keys))
    mirrored = np.all(flipped == image[:, ::-1], axis=(1, 2, 3))
    same = np.all(flipped == image, axis=(1, 2, 3))
    assert np.all(mirrored | same)
    # Three standard deviations of a fair coin.
    assert abs(mirrored.sum() - 500) < 48


@pytest.mark.core
def test_half_the_size_is_the_mean_of_two_by_two(random: np.random.Generator) -> None:
    image = random.uniform(0, 255, (96, 96, 2)).astype(np.float32)
    found = augment.resize(jnp.asarray(image), size=(48, 48))
    expected = image.reshape(48, 2, 48, 2, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_same_size_is_the_same_image(random: np.random.Generator) -> None:
    image = jnp.asarray(random.uniform(0, 1, (5, 6, 1)), jnp.float32)
    np.testing.assert_allclose(augment.resize(image, size=(5, 6)), image, rtol=1e-6)


@pytest.mark.core
def test_a_composite_adds_and_saturates() -> None:
    first, second = (a.astype(np.uint8) for a in np.meshgrid(np.arange(256), np.arange(256)))
    found = augment.composite(jnp.asarray(first), jnp.asarray(second))
    assert found.dtype == jnp.uint8
    assert np.array_equal(found, np.minimum(first.astype(int) + second, 255))


@pytest.mark.parametrize("second", [jnp.zeros((2, 2)), jnp.zeros((2, 3), jnp.uint8)])
def test_a_composite_of_what_does_not_fit_is_refused(second: jax.Array) -> None:
    with pytest.raises(ValueError, match=r"expected two of uint8 and of one shape"):
        bare(augment.composite)(jnp.zeros((2, 2), jnp.uint8), second)


def test_resizing_integers_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="image is uint8, expected a floating dtype"):
        bare(augment.resize)(jnp.asarray(image), size=(3, 3))


@pytest.mark.parametrize(
    "transform",
    [partial(augment.random_crop, size=(5, 6)), augment.random_flip],
    ids=["crop", "flip"],
)
def test_other_draws_follow_the_key_and_batch(image: np.ndarray, transform: Any) -> None:
    keys = jax.random.split(jax.random.key(0), 16)
    looped = jnp.stack([transform(key, jnp.asarray(image)) for key in keys])
    batched = jax.jit(jax.vmap(transform, in_axes=(0, None)))(keys, jnp.asarray(image))
    assert np.array_equal(batched, looped)
    assert len(np.unique(looped, axis=0)) > 1
