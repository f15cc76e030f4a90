"""Translated and rotated MNIST, against NumPy and SciPy."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from capsjax import data
from capsjax.data import generated, rotated_mnist, translated_mnist
from tests.conftest import bare_config

COUNT, VARIANTS = 20, 100


@pytest.fixture(scope="module")
def base() -> dict[str, np.ndarray]:
    arrays = data.load("mnist", split="test")
    return {name: array[:COUNT] for name, array in arrays.items()}


def made(module: ModuleType, base: dict, config: Any = None) -> dict:
    n, k = np.repeat(np.arange(COUNT), VARIANTS), np.tile(np.arange(VARIANTS), COUNT)
    return generated.examples(module.example, base, 0, n, k, config or module.Config())


@pytest.mark.core
def test_translated_digits_lie_where_their_shift_says(base: dict) -> None:
    found = made(translated_mnist, base)
    assert found["image"].shape == (COUNT * VARIANTS, 40, 40, 1)
    assert (found["image"].dtype, found["shift"].dtype) == (np.uint8, np.int32)
    assert np.array_equal(found["label"], np.repeat(base["label"], VARIANTS))
    for p, (image, (y, x)) in enumerate(zip(found["image"], found["shift"], strict=True)):
        expected = np.zeros((40, 40, 1), np.uint8)
        expected[6 + y : 34 + y, 6 + x : 34 + x] = base["image"][p // VARIANTS]
        assert np.array_equal(image, expected)
    counts = np.stack([np.bincount(axis + 6, minlength=13) for axis in found["shift"].T])
    assert counts.shape == (2, 13)
    # Chi squared of 12 degrees of freedom: 32.9 is exceeded once in a thousand.
    assert np.all(np.sum((counts - 2000 / 13) ** 2 / (2000 / 13), axis=1) < 32.9)


@pytest.mark.core
def test_rotated_digits_are_turned_by_their_angle(base: dict) -> None:
    found = made(rotated_mnist, base)
    assert (found["image"].dtype, found["rotation"].dtype) == (np.uint8, np.float32)
    assert np.array_equal(found["label"], np.repeat(base["label"], VARIANTS))
    for p in range(0, COUNT * VARIANTS, 3):
        source = base["image"][p // VARIANTS, ..., 0].astype(float)
        expected = ndimage.rotate(
            source, found["rotation"][p], reshape=False, order=1, prefilter=False
        )
        np.testing.assert_allclose(found["image"][p, ..., 0], expected, atol=0.51)
    counts, _ = np.histogram(found["rotation"], 12, (0, 360))
    # Chi squared of 11 degrees of freedom: 31.3 is exceeded once in a thousand.
    assert np.sum((counts - 2000 / 12) ** 2 / (2000 / 12)) < 31.3


def test_a_range_of_rotations_is_kept_to(base: dict) -> None:
    found = made(rotated_mnist, base, rotated_mnist.Config(rotation=(-30.0, 30.0)))["rotation"]
    assert -30 <= found.min() < -29
    assert 29 < found.max() <= 30


@pytest.mark.parametrize("module", [translated_mnist, rotated_mnist])
def test_an_image_follows_from_its_numbers_alone(module: ModuleType, base: dict) -> None:
    many, n, k = made(module, base), np.array([19, 7, 0, 7]), np.array([99, 3, 0, 4])
    found = generated.examples(module.example, base, 0, n, k, module.Config())
    for name, array in found.items():
        assert np.array_equal(array, many[name][n * VARIANTS + k])
    other = generated.examples(module.example, base, 1, n, k, module.Config())
    assert not np.array_equal(other["image"], found["image"])


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (translated_mnist.Config, {"shift": -1, "pad": 6}),
        (translated_mnist.Config, {"shift": 6, "pad": -1}),
        (rotated_mnist.Config, {"rotation": (10, 0)}),
    ],
)
def test_configs_out_of_range_are_refused(config: type, options: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        bare_config(config, **options)
