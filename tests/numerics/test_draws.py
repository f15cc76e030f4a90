"""What a seed draws is the same with 64 bits turned on, and is drawn under strict promotion."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import routing
from capsjax.data import (
    affine_mnist,
    augment,
    feeding,
    multi_mnist,
    recipes,
    rotated_mnist,
    translated_mnist,
    warp,
)
from capsjax.layers.dropout import Dropout
from tests.numerics.test_numerics import strict
from tests.routing import quick
from tests.training.small import assert_same_bits

_RANDOM = np.random.default_rng(0)
# A frame of 0, so that what is moved is not cut.
PIXELS = np.pad(_RANDOM.integers(1, 256, (9, 4, 4, 1), np.uint8), ((0, 0), (2, 2), (2, 2), (0, 0)))
BASE = multi_mnist.prepare({"image": PIXELS, "label": np.arange(9, dtype=np.int32) % 3})
COLOURED = _RANDOM.integers(0, 256, (32, 32, 3), np.uint8)

GENERATED = (affine_mnist, multi_mnist, rotated_mnist, translated_mnist)


def image() -> jax.Array:
    return jnp.asarray(PIXELS[0])


def of(module: Any, *config: Any) -> Any:
    """The fourth picture of the sixth digit."""

    def draw(key: jax.Array) -> Any:
        base = jax.tree.map(jnp.asarray, BASE)
        return module.example(key, base, jnp.int32(5), jnp.int32(3), *config)

    return draw


DRAWS = {
    "shift": lambda key: augment.shift(key, image(), limit=2),
    "random_affine": lambda key: warp.random_affine(
        key, image().astype(jnp.float32), rotation=20, shear=0.1, scale=(0.8, 1.2), shift=1
    ),
    "crop, flip and colours": lambda key: recipes.find("cifar10_sabour").train(
        key, jnp.asarray(COLOURED)
    ),
    "translated": lambda key: recipes.find("translated_mnist_sabour").train(key, image()),
    "order of an epoch": lambda key: feeding.Order(50, 5, key).of_epoch(1),
    **{module.__name__.rpartition(".")[2]: of(module) for module in GENERATED},
    "multi_mnist, shared": of(multi_mnist, multi_mnist.OFFICIAL),
    "dropout": lambda key: Dropout(0.3, rngs=nnx.Rngs(params=key))(jnp.ones((4, 8), jnp.float32)),
    **{f"init of {name}": None for name in routing.ALGORITHMS},
}
SIZES = {"parents": 3, "dim": 4, "children": 5, "child_dim": 6}


@pytest.mark.core
@pytest.mark.parametrize("name", DRAWS)
def test_64_bits_and_strict_promotion_draw_the_same(name: str) -> None:
    draw = DRAWS[name]
    if draw is None:
        module = routing.find(name.rpartition(" ")[2])
        draw = lambda key: module.init(module.Config(), key, **SIZES)  # noqa: E731
    expected = quick.jit(draw)(jax.random.key(7))
    with jax.enable_x64(True), strict():
        assert_same_bits(quick.jit(lambda key: draw(key))(jax.random.key(7)), expected)
