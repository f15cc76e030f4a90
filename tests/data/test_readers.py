"""Readers of official formats: what was written comes back, what is damaged is named."""

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from capsjax.data import readers
from tests.data import archives

NUMBERS = np.random.default_rng(0)
PIXELS = NUMBERS.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)


@pytest.mark.core
@pytest.mark.parametrize(
    "array",
    [
        NUMBERS.integers(0, 256, (4, 2, 5, 5)).astype(np.uint8),
        NUMBERS.integers(-(2**31), 2**31, (4, 4)).astype(np.int32),
        np.arange(6, dtype=np.int32),
    ],
    ids=["images", "table", "column"],
)
def test_a_norb_matrix_comes_back(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "matrix.mat.gz"
    path.write_bytes(gzip.compress(archives.norb(array)))
    found = readers.read_norb(path)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_a_norb_column_has_three_sizes_in_its_header() -> None:
    # The published cat files start so: type, one axis, 24,300, 1, 1.
    head = archives.norb(np.zeros(24300, np.int32))[:20]
    assert np.frombuffer(head, "<i4").tolist() == [0x1E3D4C54, 1, 24300, 1, 1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x55\x4c\x3d\x1e",
        b"MATLAB 5.0 MAT-file",
        archives.norb(np.zeros((2, 3), np.uint8))[:14],
        archives.norb(np.zeros((2, 3), np.uint8))[:-1],
        archives.norb(np.zeros((2, 3), np.uint8)) + b"0",
    ],
    ids=["nothing", "half", "matlab", "short header", "a byte too few", "a byte too many"],
)
def test_what_is_no_norb_matrix_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "matrix.mat.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=r"matrix\.mat\.gz"):
        readers.read_norb(path)


@given(content=st.binary(max_size=64))
def test_any_bytes_are_a_norb_matrix_or_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.mat.gz"
    path.write_bytes(gzip.compress(b"\x54\x4c\x3d\x1e" + content))
    try:
        assert readers.read_norb(path).dtype == np.int32
    except ValueError:
        return


@pytest.mark.core
def test_cifar10_comes_back_in_the_order_of_its_batches(tmp_path: Path) -> None:
    batches = {
        "data_batch_2": (PIXELS[2:], np.array([9])),
        "data_batch_1": (PIXELS[:2], np.array([0, 7])),
        "test_batch": (PIXELS[1:2], np.array([3])),
    }
    found = readers.read_cifar10(archives.write_cifar10(tmp_path, batches))
    np.testing.assert_array_equal(found["train"]["image"], PIXELS)
    np.testing.assert_array_equal(found["test"]["image"], PIXELS[1:2])
    assert found["train"]["label"].tolist() == [0, 7, 9]
    assert found["test"]["label"].tolist() == [3]


def test_a_wrong_cifar10_archive_is_named(tmp_path: Path) -> None:
    one = (PIXELS[:1], np.array([1]))
    path = archives.write_cifar10(tmp_path / "a", {"data_batch_1": one})
    with pytest.raises(ValueError, match="1 training and 0 test batches, expected CIFAR-10's bin"):
        readers.read_cifar10(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a complete"):
        readers.read_cifar10(path)
    path.write_bytes(b"garbage")
    with pytest.raises(ValueError, match="not a complete"):
        readers.read_cifar10(path)
    label = archives.write_cifar10(tmp_path / "b", {"test_batch": (PIXELS[:1], np.array([10]))})
    with pytest.raises(ValueError, match=r"test_batch.bin in .* has the label 10, expected 0 to 9"):
        readers.read_cifar10(label)
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"12345"))
    with pytest.raises(ValueError, match=r"has 5 bytes, expected a multiple of 3,073"):
        readers.read_cifar10(path)


@pytest.mark.core
def test_svhn_comes_back_with_its_ten_as_zero(tmp_path: Path) -> None:
    path = tmp_path / "train_32x32.mat"
    archives.write_svhn(path, PIXELS, np.array([0, 9, 1]))
    found = readers.read_svhn(path)
    np.testing.assert_array_equal(found["image"], PIXELS)
    assert found["label"].tolist() == [0, 9, 1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "lacks y"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))}, "X float64"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((3, 1))}, r"y \(3, 1\)"),
        ({"X": np.zeros((32, 32, 3, 1), np.uint8), "y": np.array([[11]])}, "labels 11 to 11"),
    ],
)
def test_a_wrong_svhn_file_is_named(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, content)
    with pytest.raises(ValueError, match=said):
        readers.read_svhn(path)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(ValueError, match=r"x.mat is not a readable MATLAB 5 file"):
        readers.read_svhn(path)
