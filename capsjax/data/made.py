"""MNIST's derivatives by name: pictures made of its digits when they are wanted.

What ``load`` gives is one picture of each base digit: for training a sample, for testing the fixed
test set. Training draws a new one in every epoch.
"""

from functools import partial
from typing import Any

import numpy as np

from capsjax.data import affine_mnist, mnist, multi_mnist, rotated_mnist, translated_mnist
from capsjax.data.dataset import Arrays, Dataset, Made
from capsjax.data.generated import examples

_SEEDS = {"train": 0, "test": 1}
_SIZES = {"train": 60_000, "test": 10_000}


def multi(config: multi_mnist.Config = multi_mnist.PAPER) -> Dataset:
    """MultiMNIST: ``label`` is int32 ``[N, 2]``, ``sources`` holds both digits alone."""
    made = Made(multi_mnist.example, config, _SEEDS["train"], multi_mnist.prepare)
    return _dataset("multi_mnist", made, multi_mnist.SOURCE, 28 + 2 * config.pad)


def affine(config: affine_mnist.Config = affine_mnist.Config()) -> Dataset:
    """Synthetic affNIST, with its six ``parameters``."""
    made = Made(affine_mnist.example, config, _SEEDS["train"])
    return _dataset("affine_mnist", made, affine_mnist.SOURCE, 28 + 2 * config.pad)


def translated(config: translated_mnist.Config = translated_mnist.Config()) -> Dataset:
    """Digits anywhere on a larger canvas, with their ``shift``."""
    made = Made(translated_mnist.example, config, _SEEDS["train"])
    return _dataset("translated_mnist", made, translated_mnist.SOURCE, 28 + 2 * config.pad)


def rotated(config: rotated_mnist.Config = rotated_mnist.Config()) -> Dataset:
    """Digits turned by any angle, with their ``rotation``."""
    made = Made(rotated_mnist.example, config, _SEEDS["train"])
    return _dataset("rotated_mnist", made, rotated_mnist.SOURCE, 28)


def _dataset(name: str, made: Made, source: str, side: int) -> Dataset:
    return Dataset(
        name=name,
        image_shape=(side, side, 1),
        class_names=tuple("0123456789"),
        sizes=_SIZES,
        source=source,
        licence="as MNIST's",
        origin="made from mnist",
        read=partial(_read, made),
        made=made,
        base=mnist.read,
    )


def _read(made: Made, split: str) -> Arrays:
    return sample(made._replace(seed=_SEEDS[split]), mnist.read(split))


def sample(made: Made, base: Arrays, variant: int = 0) -> Arrays:
    """One picture of every base image.

    Args:
        made: how they are made.
        base: images and labels of one split.
        variant: which of a base image's pictures.

    Returns:
        What the data set's ``example`` gives, with an axis of N in front.
    """
    count = len(base["label"])
    whole: Any = made.prepare(base) if made.prepare else base
    variants = np.full(count, variant, np.int32)
    return examples(
        made.example, whole, made.seed, np.arange(count, dtype=np.int32), variants, made.config
    )
