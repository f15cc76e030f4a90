"""CIFAR-10: 60,000 colour images of ten classes, 32 x 32, from its binary version."""

from collections.abc import Mapping
from pathlib import Path

from capsjax.data import prepared
from capsjax.data.archives import Archive
from capsjax.data.dataset import Arrays, Dataset
from capsjax.data.readers import read_cifar10

ARCHIVES = {
    "all": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        170052171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    )
}
CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def read(paths: Mapping[str, Path], split: str) -> Arrays:
    """One split from the archive.

    Args:
        paths: of the archive.
        split: "train" or "test".

    Returns:
        ``{"image": uint8 [N, 32, 32, 3], "label": int32 [N]}`` in the archive's order.

    Raises:
        ValueError: it is no such archive.
        OSError: it cannot be read.
    """
    return read_cifar10(paths["all"])[split]


def dataset() -> Dataset:
    """CIFAR-10 from its prepared folder."""
    return prepared.dataset(
        "cifar10",
        image_shape=(32, 32, 3),
        class_names=CLASS_NAMES,
        sizes={"train": 50_000, "test": 10_000},
        source="Krizhevsky 2009",
        licence="none stated",
    )
