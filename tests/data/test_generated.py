"""Examples made in chunks, of a data set that shows which numbers it was made from."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax.data import generated
from tests.conftest import bare

BASE = {
    "image": np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2, 1),
    "label": np.arange(5, dtype=np.int32),
}
INDICES, VARIANTS = np.array([3, 0, 4, 4, 2, 3, 1]), np.array([0, 7, 1, 2, 0, 1, 999])


def example(key: jax.Array, base: Mapping[str, Any], index: Any, variant: Any, config: Any) -> Any:
    own = generated.example_key(key, index, variant)
    return {
        "image": base["image"][index] + jnp.uint8(config),
        "numbers": jnp.stack([index, variant]),
        "draw": jax.random.uniform(own),
    }


def made(seed: int = 0, **options: Any) -> dict[str, np.ndarray]:
    return generated.examples(example, BASE, seed, INDICES, VARIANTS, 100, **options)


@pytest.mark.core
def test_examples_come_in_the_order_asked_for() -> None:
    found = made()
    assert np.array_equal(found["numbers"], np.stack([INDICES, VARIANTS], 1))
    assert np.array_equal(found["image"], BASE["image"][INDICES] + 100)
    assert {name: array.dtype for name, array in found.items()} == {
        "image": np.uint8,
        "numbers": np.int32,
        "draw": np.float32,
    }


@pytest.mark.core
@pytest.mark.parametrize("batch", [1, 3])
def test_chunks_make_no_difference(batch: int) -> None:
    expected, found = made(), made(batch=batch)
    for name, array in expected.items():
        assert np.array_equal(found[name], array)


def test_each_example_equals_itself_made_alone() -> None:
    base = {name: jnp.asarray(array) for name, array in BASE.items()}
    for n, k, draw in zip(INDICES, VARIANTS, made(seed=5)["draw"], strict=True):
        alone = example(jax.random.key(5), base, jnp.int32(n), jnp.int32(k), 100)
        assert alone["draw"] == draw


def test_draws_differ_between_images_variants_and_seeds() -> None:
    n, k = (a.ravel() for a in np.meshgrid(np.arange(5), np.arange(200)))
    draws = [generated.examples(example, BASE, seed, n, k, 0)["draw"] for seed in (0, 1)]
    # Of 2,000 draws of 23 bits 0.24 pairs are expected to be equal.
    assert len(np.unique(draws)) > 1995


def test_no_examples_are_empty_arrays() -> None:
    found = generated.examples(example, BASE, 0, np.arange(0), np.arange(0), 0)
    assert found["image"].shape == (0, 2, 2, 1)


@pytest.mark.parametrize(
    ("indices", "variants", "message"),
    [
        ([5], [0], "indices are not all integers from 0 to 4"),
        ([-1], [0], "indices are not all integers from 0 to 4"),
        ([0], [-1], "variants are not all integers from 0 to"),
        ([0], [2**31 - 1], "variants are not all integers from 0 to"),
        ([0.5], [0], "indices are not all integers"),
        ([0, 1], [0], r"shapes \(2,\) and \(1,\)"),
        ([[0]], [[0]], "expected one axis"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(indices: list, variants: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bare(generated.examples)(example, BASE, 0, np.array(indices), np.array(variants), 0)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch is 0, expected at least 1"):
        made(batch=0)
