"""MNIST: 70,000 handwritten digits, 28 x 28, embedded in the package as its original archives."""

from functools import partial
from pathlib import Path

from capsjax.data.dataset import Arrays, Dataset, check_arrays
from capsjax.data.readers import check_sha256, read_idx

EMBEDDED = Path(__file__).parent / "mnist"

# Archive names and their SHA-256, the same that TFDS verifies.
ARCHIVES = {
    "train": {
        "image": (
            "train-images-idx3-ubyte.gz",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        "label": (
            "train-labels-idx1-ubyte.gz",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
    },
    "test": {
        "image": (
            "t10k-images-idx3-ubyte.gz",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        "label": (
            "t10k-labels-idx1-ubyte.gz",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    },
}


def dataset(directory: Path = EMBEDDED) -> Dataset:
    """MNIST as read from its four archives.

    Args:
        directory: where they are.

    Returns:
        The data set, with splits ``train`` (60,000) and ``test`` (10,000).
    """
    return Dataset(
        name="mnist",
        image_shape=(28, 28, 1),
        class_names=tuple("0123456789"),
        sizes={"train": 60_000, "test": 10_000},
        source="LeCun, Cortes and Burges",
        licence="commonly given as CC BY-SA 3.0",
        origin="embedded",
        read=partial(read, directory=directory),
    )


def read(split: str, directory: Path = EMBEDDED) -> Arrays:
    """One split, read directly from the archives after their checksums.

    Args:
        split: "train" or "test".
        directory: where the archives are.

    Returns:
        ``{"image": uint8 [N, 28, 28, 1], "label": int32 [N]}``.

    Raises:
        ValueError: an archive is corrupt or truncated.
        OSError: an archive is missing or unreadable.
    """
    arrays = {}
    for key, (name, checksum) in ARCHIVES[split].items():
        check_sha256(directory / name, checksum)
        arrays[key] = read_idx(directory / name)
    return check_arrays(arrays, where=f"mnist {split}")
