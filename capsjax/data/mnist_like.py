"""Fashion-MNIST and KMNIST: made to take MNIST's place, in its format and sizes."""

from collections.abc import Mapping
from pathlib import Path

from capsjax.data import prepared
from capsjax.data.archives import Archive
from capsjax.data.dataset import Arrays, Dataset, check_arrays
from capsjax.data.readers import read_idx

_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_KMNIST = "http://codh.rois.ac.jp/kmnist/dataset/kmnist"

FASHION_ARCHIVES = {
    "train_image": Archive(
        f"{_FASHION}/train-images-idx3-ubyte.gz",
        26421880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    "train_label": Archive(
        f"{_FASHION}/train-labels-idx1-ubyte.gz",
        29515,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    "test_image": Archive(
        f"{_FASHION}/t10k-images-idx3-ubyte.gz",
        4422102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    "test_label": Archive(
        f"{_FASHION}/t10k-labels-idx1-ubyte.gz",
        5148,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}
KMNIST_ARCHIVES = {
    "train_image": Archive(
        f"{_KMNIST}/train-images-idx3-ubyte.gz",
        18165135,
        "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
    ),
    "train_label": Archive(
        f"{_KMNIST}/train-labels-idx1-ubyte.gz",
        29497,
        "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
    ),
    "test_image": Archive(
        f"{_KMNIST}/t10k-images-idx3-ubyte.gz",
        3041136,
        "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
    ),
    "test_label": Archive(
        f"{_KMNIST}/t10k-labels-idx1-ubyte.gz",
        5120,
        "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    ),
}


def read(paths: Mapping[str, Path], split: str) -> Arrays:
    """One split from its two archives.

    Args:
        paths: of the four archives.
        split: "train" or "test".

    Returns:
        ``{"image": uint8 [N, 28, 28, 1], "label": int32 [N]}``.

    Raises:
        ValueError: an archive is not of the format, or the two do not belong together.
        OSError: an archive cannot be read.
    """
    arrays = {key: read_idx(paths[f"{split}_{key}"]) for key in ("image", "label")}
    return check_arrays(arrays, where=str(paths[f"{split}_image"]))


def fashion_mnist() -> Dataset:
    """Fashion-MNIST from its prepared folder."""
    return prepared.dataset(
        "fashion_mnist",
        image_shape=(28, 28, 1),
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        sizes={"train": 60_000, "test": 10_000},
        source="Xiao, Rasul and Vollgraf 2017",
        licence="MIT",
    )


def kmnist() -> Dataset:
    """KMNIST, ten cursive Japanese characters, from its prepared folder."""
    return prepared.dataset(
        "kmnist",
        image_shape=(28, 28, 1),
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        sizes={"train": 60_000, "test": 10_000},
        source="Clanuwat et al. 2018",
        licence="CC BY-SA 4.0",
    )
