"""What each paper does to its images before the network sees them, in training and in testing.

A recipe is a pair of pure functions of one uint8 image ``[height, width, channels]``; ``jax.vmap``
makes the batch. Only what the papers or their official code specify is here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax import Array

from capsjax import checks
from capsjax.data import augment, colour

# Official code of Sabour 2017 and Hinton 2018, on pixels from 0 to 255.
_BRIGHTNESS, _CONTRAST = 63.0, (0.2, 1.8)
_CIFAR_CROP, _NORB_SIZE, _NORB_CROP = (24, 24), (48, 48), (32, 32)
# Of the data sets' own images; half-size smallNORB is what the first step would make of it.
_MNIST_SIZES, _CIFAR_SIZES, _NORB_SIZES = ((28, 28),), ((32, 32),), ((96, 96), _NORB_SIZE)
# Pixels; the official code calls them shift and pad.
_MNIST_SHIFT, _TRANSLATED_SHIFT, _TRANSLATED_PAD = 2, 6, 6


@dataclass(frozen=True)
class Recipe:
    """Preprocessing of one paper for one data set.

    Attributes:
        train: ``(key, image uint8 [H, W, C]) -> float32 [*size, C]``, augmented as there.
        test: ``image uint8 [H, W, C] -> float32 [*size, C]``, without randomness.
        size: rows and columns of the result.
        source: where it is specified, and what differs here.
        takes: rows and columns of the images that it is made for.
    """

    train: Callable[[Array, Array], Array]
    test: Callable[[Array], Array]
    size: tuple[int, int]
    source: str
    takes: tuple[tuple[int, int], ...]


@checks.arguments
def find(name: str) -> Recipe:
    """A recipe by its name, which is the data set's and the paper's first author's.

    Args:
        name: a key of ``RECIPES``.

    Returns:
        The recipe.

    Raises:
        ValueError: there is no such recipe.

    Example:
        >>> image = jnp.zeros((96, 96, 2), jnp.uint8)
        >>> find("smallnorb_hinton").test(image).shape
        (32, 32, 2)
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}, expected one of: {', '.join(RECIPES)}")
    return RECIPES[name]


@checks.arguments
def shape_after(name: str, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Shape of the images that a recipe makes of a data set's.

    Args:
        name: a key of ``RECIPES``.
        image_shape: height, width and channels of the data set's images.

    Returns:
        The recipe's rows and columns, and the channels.

    Raises:
        ValueError: there is no such recipe, or it is not made for images of this size.

    Example:
        >>> shape_after("cifar10_sabour", (32, 32, 3))
        (24, 24, 3)
    """
    recipe = find(name)
    if image_shape[:2] not in recipe.takes:
        sizes = " or ".join(f"{height}x{width}" for height, width in recipe.takes)
        raise ValueError(
            f"images are {image_shape[0]}x{image_shape[1]}, recipe {name!r} is made for {sizes}: "
            "use it on its own data set, or leave recipe at None"
        )
    return (*recipe.size, image_shape[2])


def _train_mnist(key: Array, image: Array) -> Array:
    return augment.to_unit_interval(augment.shift(key, image, limit=_MNIST_SHIFT))


def _train_translated(key: Array, image: Array) -> Array:
    limit = _TRANSLATED_SHIFT
    offset = jax.random.randint(key, (2,), -limit, limit + 1, jnp.int32)
    return augment.to_unit_interval(augment.place(image, offset, limit=limit, pad=_TRANSLATED_PAD))


def _test_translated(image: Array) -> Array:
    pad = _TRANSLATED_PAD
    return augment.to_unit_interval(jnp.pad(image, ((pad, pad), (pad, pad), (0, 0))))


def _train_cifar(key: Array, image: Array) -> Array:
    crop, flip, colours = jax.random.split(key, 3)
    pixels = augment.random_crop(crop, image.astype(jnp.float32), size=_CIFAR_CROP)
    return colour.standardise(_jitter(colours, augment.random_flip(flip, pixels)))


def _test_cifar(image: Array) -> Array:
    pixels = augment.central_crop(image.astype(jnp.float32), size=_CIFAR_CROP)
    return colour.standardise(pixels)


def _train_norb(key: Array, image: Array, *, jitter: bool) -> Array:
    crop, colours = jax.random.split(key)
    pixels = augment.resize(image.astype(jnp.float32), size=_NORB_SIZE)
    # Before the crop, as in the official code: contrast is relative to the whole picture's mean.
    pixels = _jitter(colours, pixels) if jitter else pixels
    return colour.standardise(augment.random_crop(crop, pixels, size=_NORB_CROP))


_train_jittered_norb = partial(_train_norb, jitter=True)


def _test_norb(image: Array) -> Array:
    pixels = augment.resize(image.astype(jnp.float32), size=_NORB_SIZE)
    return colour.standardise(augment.central_crop(pixels, size=_NORB_CROP))


def _jitter(key: Array, pixels: Array) -> Array:
    brightness, contrast = jax.random.split(key)
    pixels = colour.random_brightness(brightness, pixels, limit=_BRIGHTNESS)
    lower, upper = _CONTRAST
    return colour.random_contrast(contrast, pixels, lower=lower, upper=upper)


_RESIZED = "96 to 48 here by the mean of 2x2 pixels; TensorFlow 1 took every second pixel"

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "mnist_sabour": Recipe(
            _train_mnist,
            augment.to_unit_interval,
            (28, 28),
            "Sabour, Frosst and Hinton 2017, section 5: shifts up to 2 pixels, none in testing",
            _MNIST_SIZES,
        ),
        "translated_mnist_sabour": Recipe(
            _train_translated,
            _test_translated,
            (40, 40),
            "Sabour, Frosst and Hinton 2017, section 5.2 and official code (pad 6, shift 6): what "
            "affNIST is tested after; in testing the digit is in the middle",
            _MNIST_SIZES,
        ),
        "cifar10_sabour": Recipe(
            _train_cifar,
            _test_cifar,
            _CIFAR_CROP,
            "Sabour, Frosst and Hinton 2017, official code: random 24x24 crop, mirroring, "
            "brightness, contrast, standardisation; central crop in testing",
            _CIFAR_SIZES,
        ),
        "smallnorb_sabour": Recipe(
            _train_jittered_norb,
            _test_norb,
            _NORB_CROP,
            "Sabour, Frosst and Hinton 2017, official code: brightness, contrast, random 32x32 "
            f"crop, standardisation; central crop in testing; {_RESIZED}",
            _NORB_SIZES,
        ),
        "smallnorb_hinton": Recipe(
            _train_jittered_norb,
            _test_norb,
            _NORB_CROP,
            "Hinton, Sabour and Frosst 2018, section 4, in the order of the official code: as "
            f"smallnorb_sabour; {_RESIZED}",
            _NORB_SIZES,
        ),
        "smallnorb_vb": Recipe(
            partial(_train_norb, jitter=False),
            _test_norb,
            _NORB_CROP,
            "Ribeiro, Leontidis and Kollias 2020, official code's defaults: random 32x32 crop and "
            "standardisation, no change of brightness or contrast; central crop in testing",
            _NORB_SIZES,
        ),
    }
)
