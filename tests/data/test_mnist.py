"""MNIST from its archives and through TFDS, against well-known facts and independent reads."""

import gzip
import hashlib
import importlib.resources
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsjax import data
from capsjax.data import mnist, readers

ARCHIVES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
NAMES = [name for names in ARCHIVES.values() for name in names]
COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
FIRST = {"train": [5, 0, 4, 1, 9], "test": [7, 2, 1, 0, 4]}
SIZES = {"train": 60_000, "test": 10_000}


@pytest.fixture(scope="module")
def splits() -> dict[str, data.Arrays]:
    return {split: data.load("mnist", split=split) for split in SIZES}


@pytest.mark.core
@pytest.mark.parametrize("split", SIZES)
def test_arrays_have_the_documented_shapes_and_dtypes(splits: Any, split: str) -> None:
    image, label = splits[split]["image"], splits[split]["label"]
    assert (image.dtype, image.shape) == (np.uint8, (SIZES[split], 28, 28, 1))
    assert (label.dtype, label.shape) == (np.int32, (SIZES[split],))


@pytest.mark.core
@pytest.mark.parametrize("split", SIZES)
def test_labels_are_those_of_the_real_mnist(splits: Any, split: str) -> None:
    label = splits[split]["label"]
    assert label[:5].tolist() == FIRST[split]
    assert np.bincount(label).tolist() == COUNTS[split]


def test_training_pixels_have_the_well_known_mean_and_deviation(splits: Any) -> None:
    pixels = splits["train"]["image"] / np.float32(255)
    assert pixels.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std(dtype=np.float64) == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.parametrize("split", SIZES)
def test_arrays_equal_an_independent_read(splits: Any, split: str) -> None:
    images, labels = ARCHIVES[split]
    with gzip.open(mnist.EMBEDDED / images) as file:
        pixels = np.frombuffer(file.read()[16:], np.uint8)
    with gzip.open(mnist.EMBEDDED / labels) as file:
        digits = np.frombuffer(file.read()[8:], np.uint8)
    assert np.array_equal(splits[split]["image"].ravel(), pixels)
    assert np.array_equal(splits[split]["label"], digits)
    assert splits[split]["image"].sum(dtype=np.int64) == pixels.sum(dtype=np.int64)


def test_the_data_set_describes_what_it_holds() -> None:
    found = data.find("mnist")
    assert found.image_shape == (28, 28, 1)
    assert found.num_classes == 10
    assert found.class_names == tuple("0123456789")
    assert dict(found.sizes) == SIZES
    assert "mnist" in data.names()


def test_an_unknown_split_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(ValueError, match=r"'validation'.*train, test"):
        data.load("mnist", split="validation")


def test_an_unknown_name_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(ValueError, match=r"'mnits'.*mnist"):
        data.load("mnits")
    with pytest.raises(ValueError, match=r"'mnits'.*mnist"):
        data.builder("mnits")


def official_checksums() -> dict[str, str]:
    """SHA-256 by archive name, as TFDS itself verifies."""
    folder = importlib.resources.files("tensorflow_datasets") / "url_checksums"
    lines = (folder / "mnist.txt").read_text().splitlines()
    return {line.split("\t")[0].rsplit("/", 1)[1]: line.split("\t")[2] for line in lines}


def directory_with(folder: Path, name: str, content: bytes) -> Path:
    """The four archives, one of them replaced."""
    for other in NAMES:
        if other != name:
            (folder / other).symlink_to(mnist.EMBEDDED / other)
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_archive_is_named_with_both_checksums(
    tmp_path: Path, name: str, damage: str
) -> None:
    content = bytearray((mnist.EMBEDDED / name).read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    else:
        del content[len(content) // 2 if damage == "truncated" else 0 :]
    damaged = mnist.dataset(directory_with(tmp_path, name, bytes(content)))
    split = next(split for split, names in ARCHIVES.items() if name in names)
    with pytest.raises(ValueError, match="corrupt, truncated or another file") as error:
        damaged.load(split)
    for part in (name, official_checksums()[name], hashlib.sha256(content).hexdigest()):
        assert part in str(error.value)


def test_the_undamaged_split_beside_a_damaged_one_loads(tmp_path: Path) -> None:
    damaged = mnist.dataset(directory_with(tmp_path, NAMES[0], b"garbage"))
    assert damaged.load("test")["label"][:5].tolist() == FIRST["test"]


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=NAMES[0]):
        mnist.dataset(tmp_path).load("train")


def write_idx(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content))
    return path


@pytest.mark.core
def test_idx_bytes_come_back_in_their_shape(tmp_path: Path) -> None:
    header = b"\0\0\x08\x02" + (2).to_bytes(4, "big") + (3).to_bytes(4, "big")
    found = readers.read_idx(write_idx(tmp_path / "array.gz", header + bytes(range(6))))
    assert found.dtype == np.uint8
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0\0", id="half a magic number"),
        pytest.param(b"\0\1\x08\x01\0\0\0\1\0", id="wrong magic number"),
        pytest.param(b"\0\0\x0d\x01\0\0\0\1\0\0\0\0", id="floats"),
        pytest.param(b"\0\0\x08\x01\0\0\0\3\0\0", id="a byte too few"),
        pytest.param(b"\0\0\x08\x01\0\0\0\3\0\0\0\0", id="a byte too many"),
        pytest.param(b"\0\0\x08\x02\0\0\0\3", id="an axis missing"),
        pytest.param(b"\0\0\x08\x02\0\0\0\3\0\0", id="half an axis missing"),
    ],
)
def test_a_file_that_is_no_idx_of_bytes_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"array\.gz"):
        readers.read_idx(write_idx(tmp_path / "array.gz", content))


@pytest.mark.parametrize("kept", [0, 5, 15, -4])
def test_a_file_that_is_no_complete_gzip_is_named(tmp_path: Path, kept: int) -> None:
    path = write_idx(tmp_path / "array.gz", b"\0\0\x08\x01\0\0\0\3\0\0\0")
    path.write_bytes(path.read_bytes()[:kept] or b"garbage")
    with pytest.raises(ValueError, match=r"array\.gz"):
        readers.read_idx(path)


@given(content=st.binary(max_size=64))
def test_any_bytes_are_an_array_or_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.gz"
    for written in (content, gzip.compress(b"\0\0\x08" + content)):
        path.write_bytes(written)
        try:
            assert readers.read_idx(path).dtype == np.uint8
        except ValueError:
            continue


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole MNIST, prepared by our builder."""
    folder = tmp_path_factory.mktemp("tfds")
    data.builder("mnist", data_dir=folder).download_and_prepare()
    return folder


def digests(image: Any, label: Any) -> Counter:
    return Counter(
        hashlib.blake2b(bytes([y]) + x.tobytes(), digest_size=16).digest()
        for x, y in zip(image, label, strict=True)
    )


@pytest.mark.parametrize("split", SIZES)
def test_plain_tfds_reads_the_same_images_and_labels(
    prepared: Path, splits: Any, split: str
) -> None:
    import tensorflow_datasets as tfds

    source = tfds.data_source("mnist", data_dir=prepared)[split]
    assert len(source) == SIZES[split]
    examples = [source[index] for index in range(len(source))]
    assert examples[0]["image"].shape == (28, 28, 1)
    assert examples[0]["image"].dtype == np.uint8
    found = digests([x["image"] for x in examples], [int(x["label"]) for x in examples])
    assert found == digests(splits[split]["image"], splits[split]["label"])


def test_the_builder_has_the_official_name_version_and_features(prepared: Path) -> None:
    import tensorflow_datasets as tfds

    ours, official = data.builder("mnist", data_dir=prepared), tfds.builder_cls("mnist")
    assert ours.name == official.name == "mnist"
    assert str(ours.version) == str(official.VERSION)
    assert (prepared / "mnist" / str(official.VERSION)).is_dir()
    assert ours.info.features["image"].shape == (28, 28, 1)
    assert ours.info.features["label"].names == list("0123456789")
    assert {split: ours.info.splits[split].num_examples for split in SIZES} == SIZES


_WITHOUT_TENSORFLOW = """
import sys
import numpy as np
from capsjax import data
from capsjax.data import mnist

few = {"image": np.arange(2 * 784).reshape(2, 28, 28, 1).astype(np.uint8)}
mnist.read = lambda split: {**few, "label": np.array([3, 1])}
data.builder("mnist", data_dir=sys.argv[1]).download_and_prepare()

import tensorflow_datasets as tfds
source = tfds.data_source("mnist", data_dir=sys.argv[1], split="test")
print(sorted(int(source[index]["label"]) for index in range(2)), "tensorflow" in sys.modules)
"""


def test_preparing_and_reading_never_import_tensorflow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TENSORFLOW, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "[1, 3] False", done.stderr


def test_reading_mnist_directly_does_not_import_tfds() -> None:
    code = (
        "import sys; from capsjax import data; data.load('mnist', split='test'); "
        "print('tensorflow_datasets' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.strip() == "False"
