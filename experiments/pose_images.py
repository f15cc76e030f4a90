"""Synthetic images whose poses are known, and the same images with one factor changed.

Digits under affine transformations, as ``affine_mnist`` has them, and rendered toys, as
``toy_norb`` has them. Toys are rendered where they are wanted: nothing need be prepared.
"""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from capsjax import data
from capsjax.analysis.probes import circular
from capsjax.data import toy_norb, warp
from capsjax.data.affine_mnist import PARAMETERS

# Where the digits of the pairs start, and by how much one parameter is then changed: both stay
# within what affine_mnist shows in training.
STARTS = {
    "rotation": (-10.0, 10.0),
    "shear": (-0.1, 0.1),
    "scale_y": (0.9, 1.1),
    "scale_x": (0.9, 1.1),
    "shift_y": (-2.0, 2.0),
    "shift_x": (-2.0, 2.0),
}
DIGIT_CHANGES = {
    "rotation": 10.0,
    "shear": 0.1,
    "scale_y": 0.1,
    "scale_x": 0.1,
    "shift_y": 2.0,
    "shift_x": 2.0,
}
_PLAIN = np.array([0, 0, 1, 1, 0, 0], np.float32)  # in the order of PARAMETERS
_PAD = 6

TOY_CHANGES = {"azimuth": 20, "elevation": 10, "lighting": 3}
_HIGHEST = 60  # elevation that a change leaves within the data set's


class Pairs(NamedTuple):
    """Images, and what each change makes of them.

    Attributes:
        before: uint8 ``[N, H, W, C]``.
        after: the same by the change's name.
        labels: int ``[N]``.
    """

    before: np.ndarray
    after: Mapping[str, np.ndarray]
    labels: np.ndarray


def warped(images: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Digits under affine transformations, as ``affine_mnist`` makes them.

    Args:
        images: uint8 ``[N, 28, 28, 1]``.
        parameters: float ``[N, 6]`` in the order of ``PARAMETERS``.

    Returns:
        uint8 ``[N, 40, 40, 1]``.
    """
    at_once = min(500, len(images))
    made = np.empty((len(images), *(n + 2 * _PAD for n in images.shape[1:3]), 1), np.uint8)
    for start in range(0, len(images), at_once):
        stop = min(start + at_once, len(images))
        rows = np.arange(start, start + at_once) % len(images)  # the last part is filled up
        made[start:stop] = np.asarray(_warped(images[rows], parameters[rows]))[: stop - start]
    return made


@jax.jit
def _warped(images: jax.Array, parameters: jax.Array) -> jax.Array:
    def one(image: jax.Array, parameters: jax.Array) -> jax.Array:
        framed = jnp.pad(image.astype(jnp.float32), ((1, 1), (1, 1), (0, 0)))
        size = (image.shape[0] + 2 * _PAD, image.shape[1] + 2 * _PAD)
        moved = warp.affine(framed, warp.affine_matrix(*parameters), size=size)
        return jnp.round(moved).astype(jnp.uint8)

    return jax.vmap(one)(images, parameters.astype(jnp.float32))


def drawn(count: int, seed: int) -> np.ndarray:
    """Numbers of so many of MNIST's test digits, of all of them: the first half is the easier."""
    return np.random.default_rng(seed).permutation(data.find("mnist").sizes["test"])[:count]


def digit_pairs(count: int, seed: int) -> Pairs:
    """Test digits of MNIST, each at a place of its own, with each parameter changed."""
    test, which = data.load("mnist", "test"), drawn(count, seed)
    random = np.random.default_rng(seed)
    starts = np.stack([random.uniform(*STARTS[name], count) for name in PARAMETERS], axis=1)
    images = test["image"][which]
    after = {
        name: warped(images, starts + by * (np.array(PARAMETERS) == name))
        for name, by in DIGIT_CHANGES.items()
    }
    return Pairs(warped(images, starts), after, test["label"][which])


def digit_path(
    count: int, seed: int, name: str, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Test digits of MNIST with one parameter at each of some values, all else plain.

    Returns:
        uint8 ``[values, count, 40, 40, 1]``, and the labels.
    """
    test, which = data.load("mnist", "test"), drawn(count, seed)
    images = test["image"][which]
    column = np.array(PARAMETERS) == name
    places = [np.tile(np.where(column, value, _PLAIN), (count, 1)) for value in values]
    return np.stack([warped(images, place) for place in places]), test["label"][which]


def digit_factors(arrays: data.Arrays) -> dict[str, np.ndarray]:
    """The true parameters of ``affine_mnist``'s pictures, the angle as sine and cosine."""
    factors: dict[str, np.ndarray] = dict(zip(PARAMETERS, arrays["parameters"].T, strict=True))
    return {**factors, "rotation": circular(factors["rotation"])}


@lru_cache(maxsize=2)
def toys(train: int, test: int, seed: int) -> data.Dataset:
    """``toy_norb`` with some images of each toy.

    Args:
        train: images of each of the 25 toys to train on.
        test: views of each of the 25 toys to test on, each under one lighting, so that no image has
            a near copy.
        seed: chooses them.

    Returns:
        A data set that sets the same toys aside for validation.
    """
    random = np.random.default_rng(seed)
    arrays = {
        "train": toy_norb.render(_some(toy_norb.TRAIN_INSTANCES, train, random, alone=False)),
        "test": toy_norb.render(_some(toy_norb.TEST_INSTANCES, test, random)),
    }
    sizes = {split: len(found["label"]) for split, found in arrays.items()}
    whole = toy_norb.dataset()
    return dataclasses.replace(whole, sizes=sizes, parts={}, read=arrays.__getitem__)


def _some(
    instances: tuple[int, ...], count: int, random: np.random.Generator, *, alone: bool = True
) -> np.ndarray:
    """Places of so many images of each toy; alone each is the only one of its view."""
    lightings = len(toy_norb.LIGHTINGS)
    views = toy_norb.EXAMPLES_PER_TOY // lightings
    places = []
    for category in range(toy_norb.SHAPE[0]):
        for instance in instances:
            first = (category * toy_norb.INSTANCES + instance) * toy_norb.EXAMPLES_PER_TOY
            if alone:
                chosen = lightings * random.choice(views, count, replace=False)
                chosen += random.integers(lightings, size=count)
            else:
                chosen = random.choice(toy_norb.EXAMPLES_PER_TOY, count, replace=False)
            places.append(first + chosen)
    return np.sort(np.concatenate(places))


@lru_cache(maxsize=2)
def toy_pairs(count: int, seed: int) -> Pairs:
    """Views of the test toys, each turned, seen from higher up, and under another lamp.

    Args:
        count: views of each of the 25 toys.
        seed: chooses them.

    Returns:
        Pictures that differ in nothing but the change: shift, scale, roll, ground, contrast and
        brightness stay.
    """
    random = np.random.default_rng(seed)
    places = _some(toy_norb.TEST_INSTANCES, count, random)
    known = toy_norb.labels(places)
    known["elevation"] = np.minimum(known["elevation"], _HIGHEST)
    known["lighting"] = np.zeros_like(known["lighting"])
    pictures: dict[str, list[np.ndarray]] = {name: [] for name in ("before", *TOY_CHANGES)}
    for place in range(len(places)):
        one = {name: values[place : place + 1] for name, values in known.items()}
        lit = {name: np.repeat(values, 2, axis=0) for name, values in one.items()}
        lit["lighting"] = np.array([0, TOY_CHANGES["lighting"]])
        before, lighting = toy_norb.render_view(lit)
        pictures["before"].append(before)
        pictures["lighting"].append(lighting)
        for name in ("azimuth", "elevation"):
            moved = {**one, name: one[name] + TOY_CHANGES[name]}
            pictures[name].append(toy_norb.render_view(moved)[0])
    stacked = {name: np.stack(images) for name, images in pictures.items()}
    return Pairs(stacked.pop("before"), stacked, known["label"])


def toy_factors(arrays: data.Arrays) -> dict[str, np.ndarray]:
    """The true viewpoints: azimuth as sine and cosine, lightings as six columns of 0 and 1."""
    return {
        "azimuth": circular(arrays["azimuth"]),
        "elevation": arrays["elevation"],
        "lighting": np.eye(len(toy_norb.LIGHTINGS))[arrays["lighting"]],
    }
