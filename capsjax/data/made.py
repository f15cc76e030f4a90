"""MNIST's derivatives by name: pictures made of its digits when they are wanted.

What ``load`` gives is one picture of each base digit, always the same: of MNIST's test digits in
``test``, of its last 5,000 training digits in ``validation``, of the others in ``train``. Training
draws a new picture of each in every epoch; ``variants`` makes as many as are wanted.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from capsjax.data import affine_mnist, mnist, multi_mnist, rotated_mnist, translated_mnist
from capsjax.data.dataset import Arrays, Dataset, Made
from capsjax.data.generated import examples

_SEEDS = {"train": 0, "test": 1, "validation": 2}
_SIZES = {"train": 55_000, "validation": 5_000, "test": 10_000}


def multi(config: multi_mnist.Config = multi_mnist.PAPER) -> Dataset:
    """MultiMNIST: ``label`` is int32 ``[N, 2]``, ``sources`` holds both digits alone."""
    made = Made(multi_mnist.example, config, _SEEDS["train"], multi_mnist.prepare)
    return _dataset("multi_mnist", made, multi_mnist.SOURCE, 28 + 2 * config.pad, classes=2)


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


def _dataset(name: str, made: Made, source: str, side: int, classes: int = 1) -> Dataset:
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
        classes_per_image=classes,
    )


def base_of(split: str) -> Arrays:
    """The digits of MNIST that a split's pictures are made of, and nothing but these.

    Args:
        split: "train", "validation" or "test".

    Returns:
        ``{"image": uint8 [N, 28, 28, 1], "label": int32 [N]}``.
    """
    if split == "test":
        return mnist.read("test")
    count = _SIZES["train"]
    part = slice(count) if split == "train" else slice(count, None)
    return {key: value[part] for key, value in mnist.read("train").items()}


def _read(made: Made, split: str) -> Arrays:
    return sample(made._replace(seed=_SEEDS[split]), base_of(split))


def for_training(made: Made, seed: int) -> Made:
    """The same with draws of a training run's own.

    Args:
        made: how pictures are made.
        seed: the run's.

    Returns:
        One whose draws are neither those of ``load`` nor those of another run.
    """
    return made._replace(seed=(seed + len(_SEEDS)) % 2**32)


def for_validation(made: Made) -> Made:
    """The same with the draws of the validation split, which are those of every run."""
    return made._replace(seed=_SEEDS["validation"])


def variants(made: Made, base: Arrays, count: int) -> Iterator[Arrays]:
    """So many pictures of every base image, a round at a time.

    Args:
        made: how they are made.
        base: of one split, see ``base_of``.
        count: rounds; 1,000 of the training digits are the paper's 60 million MultiMNIST pairs.

    Yields:
        What ``sample`` gives for variant 0, 1 and so on.

    Example:
        >>> how = multi().made
        >>> [len(part["label"]) for part in variants(how, base_of("test"), 2)]
        [10000, 10000]
    """
    for variant in range(count):
        yield sample(made, base, variant)


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
