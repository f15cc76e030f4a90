"""Reading affNIST's files, written here in their format by SciPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from capsjax import data
from capsjax.data import affnist
from tests.conftest import bare

COUNT = 60


@pytest.fixture(scope="module")
def digits() -> dict[str, np.ndarray]:
    """MNIST's first test images in the middle of 40 x 40 pixels."""
    arrays = data.load("mnist", split="test")
    image = np.pad(arrays["image"][:COUNT], ((0, 0), (6, 6), (6, 6), (0, 0)))
    return {"image": image, "label": arrays["label"][:COUNT]}


def content(digits: dict, *, order: str = "F") -> dict[str, Any]:
    """The struct's fields, pixels going down (F) or across (C) first."""
    columns = [image[..., 0].ravel(order) for image in digits["image"]]  # type: ignore[call-overload]
    label = digits["label"]
    return {
        "affine_transform": np.zeros((6, len(label))),
        "id_number": np.arange(len(label), dtype=np.uint32)[None],
        "image": np.stack(columns, axis=1),
        "label_int": label.astype(np.uint8)[None],
        "label_one_of_n": (np.arange(10)[:, None] == label).astype(np.uint8),
    }


def written(path: Path, fields: Any, name: str = "affNISTdata") -> Path:
    savemat(path / "test.mat", {name: fields}, format="5", do_compression=True)
    return path / "test.mat"


@pytest.mark.core
@pytest.mark.parametrize("order", ["F", "C"])
def test_digits_stand_upright_whichever_way_pixels_go(
    tmp_path: Path, digits: dict, order: str
) -> None:
    found = affnist.read_affnist(written(tmp_path, content(digits, order=order)))
    assert {*found} == {"image", "label"}
    assert (found["image"].dtype, found["label"].dtype) == (np.uint8, np.int32)
    assert np.array_equal(found["image"], digits["image"])
    assert np.array_equal(found["label"], digits["label"])


def test_without_ones_pixels_go_down_first(tmp_path: Path, digits: dict) -> None:
    others = {name: array[digits["label"] != 1] for name, array in digits.items()}
    found = affnist.read_affnist(str(written(tmp_path, content(others))))
    assert np.array_equal(found["image"], others["image"])


def test_labels_may_be_doubles(tmp_path: Path, digits: dict) -> None:
    fields = content(digits)
    fields["label_int"] = fields["label_int"].astype(float)
    found = affnist.read_affnist(written(tmp_path, fields))
    assert found["label"].dtype == np.int32
    assert np.array_equal(found["label"], digits["label"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": np.zeros((784, COUNT), np.uint8)},
            r"uint8 \(784, 60\), expected uint8 \(1600, N\)",
        ),
        ({"image": np.zeros((1600, COUNT))}, r"float64 \(1600, 60\), expected uint8"),
        ({"label_int": np.zeros((1, 59), np.uint8)}, r"labels uint8 \(59,\) for 60 images"),
        ({"label_int": np.full((1, COUNT), 0.5)}, "labels float64"),
    ],
)
def test_fields_of_another_form_are_refused(
    tmp_path: Path, digits: dict, change: dict, message: str
) -> None:
    path = written(tmp_path, {**content(digits), **change})
    with pytest.raises(ValueError, match=message):
        bare(affnist.read_affnist)(path)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("other", np.zeros(3), "lacks affNISTdata"),
        ("affNISTdata", np.zeros(3), "fields none"),
        ("affNISTdata", {"picture": 1, "label_int": 1}, "fields picture, label_int"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, name: str, fields: Any, message: str) -> None:
    path = written(tmp_path, fields, name)
    with pytest.raises(ValueError, match=f"{message}, expected "):
        bare(affnist.read_affnist)(path)


@pytest.mark.parametrize("kept", [0, 3, 100, 140, 500, -10])
def test_a_file_cut_short_is_refused(tmp_path: Path, digits: dict, kept: int) -> None:
    path = written(tmp_path, content(digits))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"test\.mat "):
        bare(affnist.read_affnist)(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.mat"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 4)
    with pytest.raises(ValueError, match="is not a readable MATLAB 5 file"):
        bare(affnist.read_affnist)(path)


def test_no_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        affnist.read_affnist(tmp_path / "missing.mat")
