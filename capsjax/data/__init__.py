"""Data sets by name, and the user's own by path."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from capsjax import checks
from capsjax.data import cifar10, coil20, files, made, mnist, mnist_like, smallnorb, svhn, toy_norb
from capsjax.data.archives import data_dir as _data_dir
from capsjax.data.dataset import Arrays, Dataset, check_arrays
from capsjax.data.files import from_arrays

__all__ = [
    "DATASETS",
    "Arrays",
    "Dataset",
    "builder",
    "check_arrays",
    "find",
    "from_arrays",
    "load",
    "names",
]

DATASETS: dict[str, Callable[[], Dataset]] = {
    "mnist": mnist.dataset,
    "fashion_mnist": mnist_like.fashion_mnist,
    "kmnist": mnist_like.kmnist,
    "cifar10": cifar10.dataset,
    "svhn_cropped": svhn.dataset,
    "smallnorb": smallnorb.dataset,
    "coil20": coil20.dataset,
    "multi_mnist": made.multi,
    "affine_mnist": made.affine,
    "translated_mnist": made.translated,
    "rotated_mnist": made.rotated,
    "toy_norb": toy_norb.dataset,
    "toy_norb_96": partial(toy_norb.dataset, 96),
}


def names() -> list[str]:
    """Names of all data sets.

    Returns:
        Those that ``find`` and ``load`` know.

    Example:
        >>> names()[:3]
        ['mnist', 'fashion_mnist', 'kmnist']
    """
    return list(DATASETS)


@checks.arguments
def find(name: str | Path) -> Dataset:
    """A data set by its name, or the user's own by its path.

    Args:
        name: one of ``names()``, an ``.npz`` file, a folder with one folder per class, or a
            ``.mat`` file of affNIST.

    Returns:
        The data set, with its shape, classes and splits.

    Raises:
        ValueError: no such name, or files that are not of either form.

    Example:
        >>> find("mnist").image_shape
        (28, 28, 1)
        >>> find("smallnorb").class_names
        ('four-legged animals', 'human figures', 'airplanes', 'trucks', 'cars')
    """
    if str(name) in DATASETS:
        return DATASETS[str(name)]()
    if not checks.exists(name):
        raise ValueError(
            f"unknown dataset {str(name)!r}, expected one of: {', '.join(DATASETS)}, or the path "
            "of an .npz file or of a folder with one folder of images per class (nothing of that "
            "name is there)"
        )
    return files.dataset(Path(name))


@checks.arguments
def load(name: str | Path, split: str = "train") -> Arrays:
    """Images and labels of one split.

    Args:
        name: as for ``find``.
        split: "train", "test", or another one that the data set has.

    Returns:
        ``{"image": uint8 [N, H, W, C], "label": int32 [N]}`` and the data set's factors.

    Raises:
        ValueError: no such name or split, or a corrupt file.

    Example:
        >>> load("mnist", split="test")["image"].shape
        (10000, 28, 28, 1)
    """
    return find(name).load(split)


@checks.arguments
def builder(name: str, *, data_dir: str | Path | None = None) -> Any:
    """A TFDS builder under the data set's official name, which needs no TensorFlow.

    ``builder("mnist", data_dir=DIR).download_and_prepare()`` writes array_record files that
    ``tfds.data_source("mnist", data_dir=DIR)`` reads.

    Args:
        name: of a data set with archives.
        data_dir: where prepared data sets live; None is
            ``CAPSJAX_DATA_DIR``, or TFDS's own default.

    Returns:
        A ``tfds.core.DatasetBuilder``.

    Raises:
        ValueError: no such name.

    Example:
        >>> builder("mnist", data_dir="prepared").download_and_prepare()  # doctest: +SKIP
        >>> import tensorflow_datasets as tfds  # doctest: +SKIP
        >>> digits = tfds.data_source("mnist", split="test", data_dir="prepared")  # doctest: +SKIP
        >>> len(digits)  # doctest: +SKIP
        10000
    """
    from capsjax.data import builders  # TFDS takes seconds to import and few need it

    if name not in builders.BUILDERS:
        raise ValueError(
            f"{name!r} is not a data set with archives, expected one of: "
            f"{', '.join(builders.BUILDERS)}"
        )
    return builders.BUILDERS[name](data_dir=data_dir or _data_dir())
