"""SVHN: house numbers from street views, single digits cropped to 32 x 32 in colour."""

from collections.abc import Mapping
from pathlib import Path

from capsjax.data import prepared
from capsjax.data.archives import Archive
from capsjax.data.dataset import Arrays, Dataset
from capsjax.data.readers import read_svhn

_URL = "http://ufldl.stanford.edu/housenumbers"

ARCHIVES = {
    "train": Archive(
        f"{_URL}/train_32x32.mat",
        182040794,
        "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    ),
    "test": Archive(
        f"{_URL}/test_32x32.mat",
        64275384,
        "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    ),
    "extra": Archive(
        f"{_URL}/extra_32x32.mat",
        1329278602,
        "a133a4beb38a00fcdda90c9489e0c04f900b660ce8a316a5e854838379a71eb3",
    ),
}


def read(paths: Mapping[str, Path], split: str) -> Arrays:
    """One split from its archive.

    Args:
        paths: of the three archives.
        split: "train", "test" or "extra".

    Returns:
        ``{"image": uint8 [N, 32, 32, 3], "label": int32 [N]}`` in the archive's order.

    Raises:
        ValueError: it is no such archive.
        OSError: it cannot be read.
    """
    return read_svhn(paths[split])


def dataset() -> Dataset:
    """SVHN's cropped digits from their prepared folder."""
    return prepared.dataset(
        "svhn_cropped",
        image_shape=(32, 32, 3),
        class_names=tuple("0123456789"),
        sizes={"train": 73_257, "test": 26_032, "extra": 531_131},
        source="Netzer et al. 2011",
        licence="for non-commercial use",
    )
