"""Where CIFAR-10's images come from, what is said without them, and networks taken together."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from capsjax import models
from experiments import cifar10, cifar10_images, study


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is prepared, and files put by hand go here."""
    monkeypatch.setenv("CAPSJAX_DATA_DIR", str(tmp_path / "prepared"))
    monkeypatch.setenv("CAPSJAX_MANUAL_DIR", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    return tmp_path / "cifar10"


def pack(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append(file.getvalue())
    np.savez(
        path,
        blob=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]).astype(np.uint32),
        label=labels.astype(np.uint8),
        sha256=hashlib.sha256(images.tobytes()).hexdigest(),
    )


def drawn(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    images = random.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    return images, random.integers(0, 10, count)


def test_the_part_at_hand_is_read_in_order(place: Path, random: np.random.Generator) -> None:
    parts = {name: drawn(random, 4) for name in ("train_0of5", "train_1of5", "test")}
    for name, (images, labels) in parts.items():
        pack(place / f"{name}.npz", images, labels)
    found = cifar10_images.find()
    assert found.name == "cifar10"
    assert found.class_names[3] == "cat"
    assert found.source == "Krizhevsky 2009, 8 of the 50,000 training images at hand"
    train, test = found.load("train"), found.load("test")
    for key, values in enumerate(zip(parts["train_0of5"], parts["train_1of5"], strict=True)):
        np.testing.assert_array_equal(train[("image", "label")[key]], np.concatenate(values))
    np.testing.assert_array_equal(test["image"], parts["test"][0])
    np.testing.assert_array_equal(test["label"], parts["test"][1])


def test_changed_pixels_are_refused(place: Path, random: np.random.Generator) -> None:
    images, labels = drawn(random, 3)
    pack(place / "test.npz", images, labels)
    with np.load(place / "test.npz") as packed:
        arrays = {**packed, "sha256": "0" * 64}
    np.savez(place / "test.npz", **arrays)
    with pytest.raises(ValueError, match=r"test\.npz is damaged: its pixels' SHA-256 is .* 0000"):
        cifar10_images.read(place / "test.npz")


def test_test_images_alone_are_refused(place: Path, random: np.random.Generator) -> None:
    pack(place / "test.npz", *drawn(random, 3))
    with pytest.raises(ValueError, match=r"test images only, expected train_\*\.npz"):
        cifar10_images.find()


def test_without_images_the_command_says_how_to_get_them(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CAPSJAX_MANUAL_DIR")
    cifar10._find.cache_clear()
    options = ["--preset", "laptop", "--results", str(tmp_path), "--workdir", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["experiment", *options])
    with pytest.raises(SystemExit) as caught:
        study.main("cifar10")
    said = str(caught.value)
    assert "no images of CIFAR-10 are at hand" in said
    assert "capsjax datasets prepare cifar10" in said
    assert "CAPSJAX_MANUAL_DIR" in said
    assert "(it is not set)" in said


def test_another_number_of_images_than_the_preset_s_is_refused() -> None:
    with pytest.raises(ValueError, match="60,000 training images of mnist are at hand, expected 9"):
        cifar10._find("mnist", 9)


def test_both_small_networks_have_about_as_many_parameters() -> None:
    counts = {
        name: models.count_parameters(
            nnx.eval_shape(
                lambda name=name, config=config: models.create(
                    name, config=config, image_shape=(24, 24, 3), num_classes=10
                )
            )
        )
        for name, config in [
            ("efficient_capsnet", cifar10.PRESETS["laptop"].capsules),
            ("efficient_cnn", cifar10.PRESETS["laptop"].cnn),
        ]
    }
    assert counts["efficient_cnn"] == pytest.approx(counts["efficient_capsnet"], rel=0.1)


def test_networks_together_add_what_each_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Labelled:
        def load(self, split: str) -> dict[str, np.ndarray]:
            assert split == "test"
            return {"label": np.array([0, 1, 1])}

    said = [[[0.9, 0.1], [0.6, 0.4], [0.9, 0.0]], [[0.2, 0.3], [0.1, 0.9], [0.3, 0.8]]]
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, activations in zip(folders, said, strict=True):
        folder.mkdir()
        np.save(folder / "activations.npy", np.array(activations))
    # Sums: [1.1, 0.4], [0.7, 1.3], [1.2, 0.8].
    monkeypatch.setattr(cifar10, "_find", lambda name, images: Labelled())
    found = cifar10._together("CNN", folders, cifar10.Config(), tmp_path)
    assert (found["test_errors"], found["test_images"], found["together"]) == (1, 3, 2)


def test_lines_say_how_many_images_there_were() -> None:
    metrics = {
        "images": "part",
        "training_images": 18_000,
        "epochs": 20,
        "validation_error": 0.25,
        "parameters": 1234,
        "test_error": 0.3,
        "test_error_interval_95": [0.29, 0.31],
    }
    lines = cifar10.lines({"CNN-seed-0": {"seed": 0, "metrics": {"form": "CNN", **metrics}}})
    assert lines[0].ours == "30.00 % (29.00 to 31.00), one seed"
    assert "18,000 training images (part), 20 epochs, held-out error 25.00 %;" in lines[0].why
