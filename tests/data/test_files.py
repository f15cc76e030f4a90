"""The user's own images, from .npz files and from folders."""

import gc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from capsjax import data
from capsjax.data import files

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3)).astype(np.uint8)
LABELS = np.arange(40) % 4


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def write_folders(root: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """PNG files in one folder per class, named a, b, ..."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / "abcdefgh"[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return root


def rows(images: np.ndarray) -> list[bytes]:
    return sorted(image.tobytes() for image in images)


# .npz files


@pytest.mark.core
@pytest.mark.parametrize("compressed", [False, True])
def test_npz_gives_its_images_and_labels(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "own.npz"
    (np.savez_compressed if compressed else np.savez)(path, image=PIXELS, label=LABELS)
    found = data.load(path, split="all")
    assert (found["image"].dtype, found["label"].dtype) == (np.uint8, np.int32)
    assert np.array_equal(found["image"], PIXELS)
    assert np.array_equal(found["label"], LABELS)


def test_npz_without_a_channel_axis_gets_one(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "own.npz", image=PIXELS[..., 0], label=LABELS)
    assert data.find(path).image_shape == (6, 5, 1)
    assert np.array_equal(data.load(path, split="all")["image"], PIXELS[..., :1])


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "uint64"])
def test_labels_of_any_integer_dtype_become_int32(tmp_path: Path, dtype: str) -> None:
    path = write_npz(tmp_path / "own.npz", image=PIXELS, label=LABELS.astype(dtype))
    assert data.load(path, split="all")["label"].dtype == np.int32


@pytest.mark.core
def test_labels_that_begin_with_1_are_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_npz(tmp_path / "a.npz", image=PIXELS, label=LABELS + 1)
    assert data.find(path).class_names == ("0", "1", "2", "3", "4")
    assert f"{path} has labels up to 4 and no image of class 0: labels count" in caplog.text
    caplog.clear()
    data.find(write_npz(tmp_path / "b.npz", image=PIXELS, label=LABELS))
    assert caplog.text == ""


@pytest.mark.core
def test_npz_with_a_test_part_keeps_both_parts_whole(tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "own.npz",
        image=PIXELS[:30],
        label=LABELS[:30],
        test_image=PIXELS[30:],
        test_label=LABELS[30:] + 2,
    )
    found = data.find(path)
    assert dict(found.sizes) == {"train": 30, "test": 10, "all": 40}
    assert np.array_equal(found.load("train")["image"], PIXELS[:30])
    assert np.array_equal(found.load("test")["image"], PIXELS[30:])
    assert np.array_equal(found.load("test")["label"], LABELS[30:] + 2)
    assert np.array_equal(found.load("all")["image"], PIXELS)
    assert found.class_names == ("0", "1", "2", "3", "4", "5")


def test_images_given_as_float_are_refused_with_what_was_expected(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "own.npz", image=PIXELS / 255, label=LABELS)
    with pytest.raises(ValueError, match=r"own\.npz.*float64.*uint8.*0 to 255"):
        data.find(path)


BAD_ARRAYS = {
    "no label": ({"image": PIXELS}, "image, expected arrays named image and label"),
    "no image": ({"label": LABELS}, "label, expected arrays named image and label"),
    "nothing": ({}, "nothing"),
    "flat images": ({"image": PIXELS.reshape(40, -1), "label": LABELS}, r"\(40, 90\)"),
    "too many axes": ({"image": PIXELS[None], "label": LABELS}, r"\(1, 40, 6, 5, 3\)"),
    "int32 images": ({"image": PIXELS.astype(np.int32), "label": LABELS}, "int32"),
    "no images": ({"image": PIXELS[:0], "label": LABELS[:0]}, "at least one image"),
    "no pixels": ({"image": PIXELS[:, :0], "label": LABELS}, r"\(40, 0, 5, 3\)"),
    "too few labels": ({"image": PIXELS, "label": LABELS[:-1]}, r"\(39,\).*40 images"),
    "one-hot labels": ({"image": PIXELS, "label": np.eye(4)[LABELS]}, r"\(40, 4\)"),
    "float labels": ({"image": PIXELS, "label": LABELS / 1}, "float64"),
    "text labels": ({"image": PIXELS, "label": LABELS.astype(str)}, "<U"),
    "negative label": ({"image": PIXELS, "label": LABELS - 1}, "-1 to 2"),
    "huge label": ({"image": PIXELS, "label": LABELS + 2**40}, str(2**40)),
}


@pytest.mark.core
@pytest.mark.parametrize("what", BAD_ARRAYS)
def test_wrong_arrays_are_refused_with_the_file_named(tmp_path: Path, what: str) -> None:
    arrays, said = BAD_ARRAYS[what]
    path = write_npz(tmp_path / "own.npz", **arrays)
    with pytest.raises(ValueError, match=said) as error:
        data.find(path)
    assert str(path) in str(error.value)


def test_wrong_test_arrays_are_refused_as_the_test_part(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "own.npz", image=PIXELS, label=LABELS, test_image=PIXELS)
    with pytest.raises(ValueError, match=r"test part of .*label"):
        data.find(path)


def test_test_images_of_another_shape_are_refused_with_both_shapes(tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "own.npz",
        image=PIXELS,
        label=LABELS,
        test_image=PIXELS[:, 1:],
        test_label=LABELS,
    )
    with pytest.raises(ValueError, match=r"\(6, 5, 3\).*\(5, 5, 3\)"):
        data.find(path)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    labels = np.array([*LABELS[:-1], None], dtype=object)
    path = write_npz(tmp_path / "own.npz", image=PIXELS, label=labels)
    with pytest.raises(ValueError, match=r"own\.npz.*not a readable \.npz"):
        data.find(path)


def npz_bytes(folder: Path) -> bytes:
    path = folder / "good.npz"
    np.savez_compressed(path, image=PIXELS, label=LABELS)
    return path.read_bytes()


def other_zip_version(content: bytes) -> bytes:
    """The central directory's "version needed to extract", raised beyond what Python knows."""
    damaged = bytearray(content)
    damaged[content.index(b"PK\1\2") + 6] = 99
    return bytes(damaged)


DAMAGES = {
    "garbage": lambda content: b"garbage" * 10,
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:300] + bytes([content[300] ^ 255]) + content[301:],
    "other zip version": other_zip_version,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_npz_is_a_value_error_that_names_it(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(DAMAGES[damage](npz_bytes(tmp_path)))
    with pytest.raises(ValueError, match=r"own\.npz"):
        data.find(path)
    gc.collect()  # a file left open would be an error of this test


def test_a_single_npy_array_named_npz_is_a_value_error_that_names_it(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", PIXELS)
    (tmp_path / "own.npy").rename(tmp_path / "own.npz")
    with pytest.raises(ValueError, match=r"own\.npz"):
        data.find(tmp_path / "own.npz")


def test_an_npz_of_other_things_than_arrays_is_a_value_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as file:
        file.writestr("image", "not an array")
        file.writestr("label", "nor this")
    with pytest.raises(ValueError, match=r"own\.npz"):
        data.find(tmp_path / "own.npz")


def test_a_file_of_another_kind_is_refused_with_both_forms_named(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text("1,2,3")
    with pytest.raises(ValueError, match=r"images\.csv.*folder.*\.npz"):
        data.find(path)


# The held-out tenth


@pytest.fixture
def distinct(tmp_path: Path) -> Path:
    """A hundred images, no two alike."""
    image = np.zeros((100, 3, 3, 1), np.uint8)
    image[:, 0, 0, 0] = np.arange(100)
    return write_npz(tmp_path / "own.npz", image=image, label=np.arange(100) % 7)


@pytest.mark.core
def test_a_tenth_is_held_out_and_train_and_test_are_disjoint(distinct: Path) -> None:
    found = data.find(distinct)
    assert dict(found.sizes) == {"train": 90, "test": 10, "all": 100}
    parts = {split: found.load(split) for split in found.sizes}
    train, test, everything = (set(rows(part["image"])) for part in parts.values())
    assert len(train) == 90
    assert len(test) == 10
    assert not train & test
    assert train | test == everything
    for part in parts.values():
        assert np.array_equal(part["image"][:, 0, 0, 0] % 7, part["label"])


@pytest.mark.core
def test_the_held_out_tenth_is_always_the_same(distinct: Path) -> None:
    first, second = data.load(distinct, split="test"), data.load(distinct, split="test")
    assert np.array_equal(first["image"], second["image"])


def test_the_held_out_tenth_is_not_just_the_first_or_the_last(distinct: Path) -> None:
    chosen = data.load(distinct, split="test")["image"][:, 0, 0, 0]
    assert chosen.min() < 30
    assert chosen.max() > 69


def test_fewer_than_ten_images_still_leave_one_to_test_or_are_refused(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "few.npz", image=PIXELS[:5], label=LABELS[:5])
    try:
        found = data.find(path)
    except ValueError as error:
        assert "few.npz" in str(error)  # noqa: PT017 (either is right)
    else:
        assert found.sizes["test"] >= 1


# Folders


@pytest.mark.core
def test_folders_are_classes_in_alphabetical_order(tmp_path: Path) -> None:
    found = data.find(write_folders(tmp_path, PIXELS, LABELS))
    assert found.class_names == ("a", "b", "c", "d")
    assert found.image_shape == (6, 5, 3)
    assert dict(found.sizes) == {"train": 36, "test": 4, "all": 40}
    everything = found.load("all")
    for label in range(4):
        mine = everything["image"][everything["label"] == label]
        assert rows(mine) == rows(PIXELS[label == LABELS])


def test_grey_files_have_one_channel(tmp_path: Path) -> None:
    found = data.find(write_folders(tmp_path, PIXELS[..., 0], LABELS))
    assert found.image_shape == (6, 5, 1)
    assert rows(found.load("all")["image"]) == rows(PIXELS[..., :1])


@pytest.mark.core
def test_folders_train_and_test_are_the_splits(tmp_path: Path) -> None:
    write_folders(tmp_path / "train", PIXELS[:30], LABELS[:30])
    write_folders(tmp_path / "test", PIXELS[30:32], LABELS[30:32])
    found = data.find(tmp_path)
    assert dict(found.sizes) == {"train": 30, "test": 2, "all": 32}
    assert found.class_names == ("a", "b", "c", "d")
    # The 31st and 32nd image are of the classes c and d.
    assert found.load("test")["label"].tolist() == [2, 3]
    assert rows(found.load("test")["image"]) == rows(PIXELS[30:32])


def test_a_train_folder_alone_gives_a_held_out_tenth(tmp_path: Path) -> None:
    write_folders(tmp_path / "train", PIXELS, LABELS)
    assert dict(data.find(tmp_path).sizes) == {"train": 36, "test": 4, "all": 40}


def test_mixed_grey_and_colour_images_become_colour(tmp_path: Path) -> None:
    write_folders(tmp_path, PIXELS[:20], LABELS[:20])
    Image.fromarray(PIXELS[20, ..., 0]).save(tmp_path / "a" / "grey.png")
    everything = data.load(tmp_path, split="all")
    expected = [*PIXELS[:20], np.repeat(PIXELS[20, ..., :1], 3, axis=2)]
    assert rows(everything["image"]) == rows(np.stack(expected))


def test_other_files_and_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    write_folders(tmp_path, PIXELS, LABELS)
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / "a" / "notes.txt").write_text("about")
    (tmp_path / ".cache").mkdir()
    found = data.find(tmp_path)
    assert found.class_names == ("a", "b", "c", "d")
    assert found.sizes["all"] == 40


def test_images_of_different_sizes_are_refused_with_both_named(tmp_path: Path) -> None:
    write_folders(tmp_path, PIXELS, LABELS)
    Image.fromarray(PIXELS[0, 1:]).save(tmp_path / "d" / "other.png")
    with pytest.raises(ValueError, match=r"other\.png, 5 wide and 5 high.*5 wide and 6 high"):
        data.find(tmp_path)


def test_train_and_test_folders_of_different_sizes_are_refused(tmp_path: Path) -> None:
    write_folders(tmp_path / "train", PIXELS, LABELS)
    write_folders(tmp_path / "test", PIXELS[:, 1:], LABELS)
    with pytest.raises(ValueError, match=r"\(6, 5, 3\).*\(5, 5, 3\)"):
        data.find(tmp_path)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, count: int) -> None:
    write_folders(tmp_path, PIXELS[:count], LABELS[:count])
    with pytest.raises(ValueError, match=f"{count} folders.*two classes"):
        data.find(tmp_path)


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="no images"):
        data.find(tmp_path)


def test_a_test_class_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    write_folders(tmp_path / "train", PIXELS[:30], LABELS[:30])
    write_folders(tmp_path / "test", PIXELS[30:], LABELS[30:] + 1)
    with pytest.raises(ValueError, match="'e'"):
        data.find(tmp_path)


@pytest.mark.parametrize("damage", ["garbage", "empty", "truncated"])
def test_a_broken_image_is_named(tmp_path: Path, damage: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    for suffix in ("png", "jpg", "gif", "bmp"):
        path = tmp_path / f"broken.{suffix}"
        Image.fromarray(noise).save(path)
        content = path.read_bytes()
        kept = {"garbage": b"garbage", "empty": b"", "truncated": content[: len(content) // 2]}
        path.write_bytes(kept[damage])
        with pytest.raises(ValueError, match=rf"broken\.{suffix}"):
            files.read_image(path)


def test_a_broken_image_in_a_folder_is_named(tmp_path: Path) -> None:
    write_folders(tmp_path, PIXELS, LABELS)
    (tmp_path / "b" / "broken.png").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"broken\.png"):
        data.find(tmp_path)


# Single images


@pytest.mark.core
def test_an_image_is_read_as_grey_or_colour_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.full((4, 3, 3), [200, 100, 50], np.uint8)).save(path)
    assert files.read_image(path).shape == (4, 3, 3)
    assert files.read_image(path, channels=3)[0, 0].tolist() == [200, 100, 50]
    # ITU-R 601-2: 0.299 red + 0.587 green + 0.114 blue.
    assert files.read_image(path, channels=1)[0, 0].tolist() == [124]


def test_an_alpha_channel_and_a_palette_become_plain_colours(tmp_path: Path) -> None:
    colours = np.zeros((4, 3, 4), np.uint8)
    colours[..., 0], colours[..., 3] = 255, 255
    Image.fromarray(colours).save(tmp_path / "alpha.png")
    Image.fromarray(colours[..., :3]).convert("P").save(tmp_path / "palette.png")
    for name in ("alpha.png", "palette.png"):
        assert np.array_equal(files.read_image(tmp_path / name), colours[..., :3])


def test_grey_of_16_bits_keeps_its_shades(tmp_path: Path) -> None:
    shades = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(shades).save(tmp_path / "deep.png")
    found = files.read_image(tmp_path / "deep.png")
    assert found.shape == (16, 16, 1)
    np.testing.assert_allclose(found[..., 0], np.arange(256).reshape(16, 16), atol=1)


def test_black_and_white_of_one_bit_becomes_0_and_255(tmp_path: Path) -> None:
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "bits.png")
    assert np.array_equal(files.read_image(tmp_path / "bits.png")[..., 0], 255 * np.eye(4))


def test_other_channel_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 were asked"):
        files.read_image(tmp_path / "image.png", channels=4)


def test_a_missing_image_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.png"):
        files.read_image(tmp_path / "no.png")


# Arrays in memory


BLANK, THIRDS = np.zeros((20, 8, 9), np.uint8), np.arange(20) % 3


def test_arrays_are_a_data_set_with_a_tenth_set_aside() -> None:
    found = data.from_arrays(BLANK + np.arange(20, dtype=np.uint8)[:, None, None], THIRDS)
    assert found.image_shape == (8, 9, 1)
    assert found.class_names == ("0", "1", "2")
    assert dict(found.sizes) == {"train": 18, "test": 2, "all": 20}
    train, test = found.load("train"), found.load("test")
    both = sorted([*train["image"][:, 0, 0, 0], *test["image"][:, 0, 0, 0]])
    assert both == list(range(20))


def test_test_arrays_stay_test_arrays() -> None:
    found = data.from_arrays(
        BLANK, THIRDS, test_images=BLANK[:3], test_labels=THIRDS[:3], class_names=("a", "b", "c")
    )
    assert dict(found.sizes) == {"train": 20, "test": 3, "all": 23}
    assert found.class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"test_images": BLANK}, "one of test_images and test_labels is given"),
        ({"class_names": ("a", "b")}, "2 class names and labels up to 2"),
        ({"test_images": BLANK[:, :7], "test_labels": THIRDS}, "training images of shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        data.from_arrays(BLANK, THIRDS, **options)
