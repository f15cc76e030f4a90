"""Data sets made from archives: parity, official features, damage, interruption."""

import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from capsjax import data
from capsjax.data import archives as official
from capsjax.data import builders, prepared, smallnorb, toy_norb
from tests.data import archives

REAL = os.environ.get("CAPSJAX_MANUAL_DIR")
PIXELS = np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of archives and a folder for what is prepared, both empty."""
    monkeypatch.setenv("CAPSJAX_MANUAL_DIR", str(tmp_path / "raw"))
    monkeypatch.setenv("CAPSJAX_DATA_DIR", str(tmp_path / "prepared"))
    (tmp_path / "raw").mkdir()
    return tmp_path


def by_content(arrays: data.Arrays) -> list[tuple[Any, ...]]:
    """All examples, in an order that does not depend on theirs."""
    keys = sorted(arrays)
    rows = zip(*(arrays[key] for key in keys), strict=True)
    return sorted(tuple(np.asarray(value).tobytes() for value in row) for row in rows)


def kmnist(place: Path) -> dict[str, np.ndarray]:
    return archives.write_kmnist(place / "raw", np.random.default_rng(0))


# Parity


def test_kmnist_has_the_archives_bytes_and_labels(place: Path) -> None:
    written = kmnist(place)
    prepared.prepare("kmnist", unverified=True)
    for split in ("train", "test"):
        found = data.load("kmnist", split)
        expected = {
            "image": written[f"{split}_image"][..., None],
            "label": written[f"{split}_label"].astype(np.int32),
        }
        assert by_content(found) == by_content(expected)
        source = tfds.data_source("kmnist", split=split, data_dir=official.data_dir())
        assert by_content({key: np.stack([np.asarray(e[key]) for e in source]) for key in found})


def test_cifar10_has_its_archive_s_pixels_names_and_ids(place: Path) -> None:
    labels = np.arange(6)
    batches = {"data_batch_1": (PIXELS[:4], labels[:4]), "test_batch": (PIXELS[4:], labels[4:])}
    archives.write_cifar10(place / "raw", batches)
    folder = prepared.prepare("cifar10", unverified=True)
    expected = {"image": PIXELS[:4], "label": labels[:4].astype(np.int32)}
    assert by_content(data.load("cifar10")) == by_content(expected)
    builder = tfds.builder_from_directory(folder)
    assert builder.info.features["label"].names[:3] == ["airplane", "automobile", "bird"]
    ids = {example["id"].decode() for example in builder.as_data_source("test")}
    assert ids == {"test_00000", "test_00001"}


def test_svhn_has_its_archives_pixels_and_three_splits(place: Path) -> None:
    for split, archive in builders.BUILDERS["svhn_cropped"].ARCHIVES.items():
        count = {"train": 3, "test": 2, "extra": 1}[split]
        path = place / "raw" / archive.name  # right in the folder is right, too
        archives.write_svhn(path, PIXELS[:count], np.arange(count))
    prepared.prepare("svhn_cropped", unverified=True)
    for split, count in (("train", 3), ("test", 2), ("extra", 1)):
        expected = {"image": PIXELS[:count], "label": np.arange(count, dtype=np.int32)}
        assert by_content(data.load("svhn_cropped", split)) == by_content(expected)


def norb_parts(random: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    parts = {}
    for split, count in (("train", 5), ("test", 3)):
        info = [random.integers(0, most + 1, count) for most in (9, 8, 17, 5)]
        info[2] *= 2
        parts[split] = {
            "dat": random.integers(0, 256, (count, 2, 96, 96)).astype(np.uint8),
            "cat": random.integers(0, 5, count).astype(np.int32),
            "info": np.stack(info, axis=1).astype(np.int32),
        }
    return parts


def test_smallnorb_has_its_archives_pairs_and_factors_in_degrees(place: Path) -> None:
    parts = norb_parts(np.random.default_rng(2))
    archives.write_smallnorb(place / "raw", parts)
    prepared.prepare("smallnorb", unverified=True)
    for split, part in parts.items():
        info = part["info"]
        expected = {
            "image": part["dat"].transpose(0, 2, 3, 1),
            "label": part["cat"],
            "instance": info[:, 0],
            "elevation": 30 + 5 * info[:, 1],
            "azimuth": 10 * info[:, 2],
            "lighting": info[:, 3],
        }
        assert by_content(data.load("smallnorb", split)) == by_content(expected)


def test_archives_of_smallnorb_that_do_not_belong_together_are_refused(place: Path) -> None:
    parts = norb_parts(np.random.default_rng(2))
    parts["train"]["cat"] = parts["train"]["cat"][:4]
    archives.write_smallnorb(place / "raw", parts)
    with pytest.raises(ValueError, match=r"shapes \(5, 2, 96, 96\), \(4,\) and \(5, 4\), expected"):
        prepared.prepare("smallnorb", unverified=True)
    assert prepared.folder_of("smallnorb") is None


def test_coil20_has_its_archive_s_views_in_two_halves(place: Path) -> None:
    random = np.random.default_rng(3)
    images = np.repeat(random.integers(0, 256, (20, 72, 8, 8)), 16, axis=2).repeat(16, axis=3)
    archives.write_coil20(place / "raw", images.astype(np.uint8))
    with pytest.raises(ValueError, match="this is not COIL-20: the SHA-256 of the pixels is"):
        prepared.prepare("coil20")
    prepared.prepare("coil20", unverified=True)
    train, test, all_ = (data.load("coil20", split) for split in ("train", "test", "all"))
    assert set(train["azimuth"]) == set(range(0, 360, 10))
    assert set(test["azimuth"]) == set(range(5, 360, 10))
    dataset = data.find("coil20")
    parts = {name: dataset.load(name) for name in dataset.parts}
    assert {name: len(part["label"]) for name, part in parts.items()} == dict(dataset.parts)
    views = {name: set(part["azimuth"].tolist()) for name, part in parts.items()}
    assert views["azimuth_train"] | views["azimuth_validation"] == views["azimuth_familiar"]
    assert not views["azimuth_train"] & views["azimuth_validation"]
    assert not views["azimuth_familiar"] & views["azimuth_novel"]
    for arrays, count in ((train, 720), (test, 720), (all_, 1440)):
        assert len(arrays["label"]) == count
        expected = images[arrays["label"], arrays["azimuth"] // 5]
        np.testing.assert_array_equal(arrays["image"][..., 0], expected)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", "cifar10", "svhn_cropped"])
def test_features_and_versions_are_the_official_ones(name: str, tmp_path: Path) -> None:
    ours, theirs = data.builder(name, data_dir=tmp_path), tfds.builder(name, data_dir=tmp_path)
    assert str(ours.info.features) == str(theirs.info.features)
    assert (ours.name, ours.version) == (theirs.name, theirs.version)


def test_smallnorb_s_features_are_the_official_ones(tmp_path: Path) -> None:
    ours = data.builder("smallnorb", data_dir=tmp_path)
    theirs = tfds.builder("smallnorb", data_dir=tmp_path)
    assert str(ours.info.features) == str(theirs.info.features)
    assert ours.version == theirs.version
    assert list(smallnorb.CLASS_NAMES) == theirs.info.features["label_category"].names


def test_archives_have_the_checksums_and_sizes_that_tfds_checks() -> None:
    folder = Path(tfds.__file__).parent
    lines = []
    for name in ("fashion_mnist", "kmnist", "cifar10"):
        lines += (folder / "url_checksums" / f"{name}.txt").read_text().splitlines()
    for name in ("svhn_cropped", "smallnorb"):
        lines += (folder / "datasets" / name / "checksums.tsv").read_text().splitlines()
    known = {url: (int(size), checksum) for url, size, checksum, *_ in map(str.split, lines)}
    for name, builder in builders.BUILDERS.items():
        if builder.ARCHIVES and name != "coil20":
            for archive in builder.ARCHIVES.values():
                assert known[archive.url] == (archive.size, archive.sha256)


@pytest.mark.skipif(
    REAL is None or not (Path(REAL) / "fashion_mnist").is_dir(), reason="its archives are absent"
)
def test_the_real_fashion_mnist_has_the_archives_bytes_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPSJAX_DATA_DIR", str(tmp_path))
    prepared.prepare("fashion_mnist")
    assert prepared.check_files("fashion_mnist") is True
    builder = builders.BUILDERS["fashion_mnist"]
    paths = official.collect("fashion_mnist", builder.ARCHIVES, lambda url: pytest.fail(url))
    for split in ("train", "test"):
        found = data.load("fashion_mnist", split)
        assert by_content(found) == by_content(builder.read(paths, split))
        assert np.bincount(found["label"]).tolist() == [{"train": 6000, "test": 1000}[split]] * 10


def real(name: str) -> Any:
    """A packed array file of real data, or a skipped test."""
    path = Path(REAL or "") / name
    if REAL is None or not path.is_file():
        pytest.skip(f"{name} is absent")
    return np.load(path)


def test_the_real_coil20_has_its_known_pixels(place: Path) -> None:
    images = real("coil20/data.npz")["images"]
    archives.write_coil20(place / "raw", images)
    prepared.prepare("coil20")
    assert prepared.check_files("coil20") is True
    found = data.load("coil20", "all")
    np.testing.assert_array_equal(
        found["image"][..., 0], images[found["label"], found["azimuth"] // 5]
    )


def test_real_smallnorb_pairs_come_back_with_their_factors(place: Path) -> None:
    packed = real("smallnorb_sample/data.npz")
    parts = {
        split: {
            "dat": packed[f"{split}_images"],
            "cat": packed[f"{split}_label"].astype(np.int32),
            "info": packed[f"{split}_info"].astype(np.int32),
        }
        for split in ("train", "test")
    }
    archives.write_smallnorb(place / "raw", parts)
    prepared.prepare("smallnorb", unverified=True)
    for split, part in parts.items():
        found = data.load("smallnorb", split)
        of_image = {image.tobytes(): row for row, image in enumerate(part["dat"])}
        for index, image in enumerate(found["image"]):
            row = of_image[image.transpose(2, 0, 1).tobytes()]
            instance, elevation, azimuth, lighting = part["info"][row]
            assert found["label"][index] == part["cat"][row]
            assert found["instance"][index] == instance
            assert found["elevation"][index] == 30 + 5 * elevation
            assert found["azimuth"][index] == 10 * azimuth
            assert found["lighting"][index] == lighting


def test_real_cifar10_images_come_back(place: Path) -> None:
    packed = real("cifar10/test.npz")
    ends, blob = packed["offsets"].astype(int), packed["blob"].tobytes()
    images = [
        np.asarray(Image.open(io.BytesIO(blob[start:end])).convert("RGB"))
        for start, end in itertools.pairwise(ends[:301])
    ]
    image, label = np.stack(images), packed["label"][:300].astype(np.int32)
    batches = {"data_batch_1": (image[:200], label[:200]), "test_batch": (image[200:], label[200:])}
    archives.write_cifar10(place / "raw", batches)
    prepared.prepare("cifar10", unverified=True)
    for split, part in (("train", slice(200)), ("test", slice(200, 300))):
        expected = {"image": image[part], "label": label[part]}
        assert by_content(data.load("cifar10", split)) == by_content(expected)


# Damage and interruption


def test_without_archives_all_that_are_wanted_are_listed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(ValueError, match="could not be downloaded") as caught:
        prepared.prepare("kmnist")
    for archive in builders.BUILDERS["kmnist"].ARCHIVES.values():
        for part in (archive.name, archive.url, archive.sha256, f"{archive.size:,} bytes"):
            assert str(part) in str(caught.value)
    assert "CAPSJAX_MANUAL_DIR" in str(caught.value)


def test_a_missing_archive_is_listed_alone(place: Path) -> None:
    kmnist(place)
    (place / "raw" / "kmnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"lacks 1 files.*: t10k-labels-idx1-ubyte.gz, 5,120 b"):
        prepared.prepare("kmnist", unverified=True)


def test_a_wrong_archive_is_refused_and_taken_only_if_asked_for(place: Path) -> None:
    kmnist(place)
    with pytest.raises(ValueError, match=r"train-images.*SHA-256.*add --unverified"):
        prepared.prepare("kmnist")
    assert prepared.folder_of("kmnist") is None
    prepared.prepare("kmnist", unverified=True)
    assert prepared.check_files("kmnist") is False


def test_what_is_not_prepared_says_how_to(place: Path) -> None:
    for function in (data.load, prepared.check_files):
        with pytest.raises(ValueError, match=r"is not prepared in .*capsjax datasets prepare kmn"):
            function("kmnist")


def records(folder: Path) -> Path:
    return next(folder.glob("*train*array_record*"))


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_damaged_file_is_named_and_made_anew(place: Path, damage: str) -> None:
    kmnist(place)
    folder = prepared.prepare("kmnist", unverified=True)
    good = by_content(data.load("kmnist"))
    path = records(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"{path.name} (has changed|is missing).*--force"):
        prepared.check_files("kmnist")
    with pytest.raises(ValueError, match=r"cannot be read .*capsjax datasets prepare kmnist --fo"):
        data.load("kmnist")
    assert prepared.prepare("kmnist", unverified=True) == folder  # it is there, so it is left
    prepared.prepare("kmnist", unverified=True, force=True)
    assert prepared.check_files("kmnist") is False
    assert by_content(data.load("kmnist")) == good


def test_a_failed_attempt_leaves_the_good_copy(place: Path) -> None:
    kmnist(place)
    folder = prepared.prepare("kmnist", unverified=True)
    good = by_content(data.load("kmnist"))
    (place / "raw" / "kmnist" / "t10k-images-idx3-ubyte.gz").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="not a complete gzip file"):
        prepared.prepare("kmnist", unverified=True, force=True)
    assert prepared.check_files("kmnist") is False
    assert by_content(data.load("kmnist")) == good
    assert sorted(path.name for path in official.data_dir().iterdir()) == ["downloads", "kmnist"]
    assert list(folder.parent.iterdir()) == [folder]


SCRIPT = """
import os, resource, signal, sys
from capsjax.data import builders, prepared
how = sys.argv[1]
if how == "killed":
    make = builders.Kmnist.example
    def example(self, arrays, index, split):
        if split == "test" and index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return make(self, arrays, index, split)
    builders.Kmnist.example = example
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    prepared.prepare("kmnist", unverified=True, force=True)
except OSError as error:
    sys.exit(f"OSError: {error}")
"""


@pytest.mark.parametrize("how", ["killed", "full"])
def test_one_that_is_broken_off_leaves_nothing_that_passes_for_complete(
    place: Path, how: str
) -> None:
    kmnist(place)

    def broken_off() -> str:
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == (-9 if how == "killed" else 1), ended.stderr
        return ended.stderr

    said = broken_off()
    if how == "full":
        assert "could not be written" in said
        assert "free some space" in said
    assert prepared.folder_of("kmnist") is None
    prepared.prepare("kmnist", unverified=True)
    good = by_content(data.load("kmnist"))
    broken_off()
    assert prepared.check_files("kmnist") is False
    assert by_content(data.load("kmnist")) == good


def test_only_finished_folders_count_and_the_newest_version_wins(place: Path) -> None:
    kmnist(place)
    folder = prepared.prepare("kmnist", unverified=True)
    for other in ("incomplete.ABC_3.0.1", "2.9.9", "3.0.1.old"):
        shutil.copytree(folder, folder.with_name(other))
    assert prepared.folder_of("kmnist") == folder
    shutil.copytree(folder, folder.with_name("3.0.10"))
    assert prepared.folder_of("kmnist") == folder.with_name("3.0.10")


def test_what_killed_attempts_left_is_removed(place: Path) -> None:
    kmnist(place)
    root = official.data_dir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone, alive = (root / f".preparing-kmnist-{pid}-x" for pid in (ended.pid, os.getpid()))
    for left in (gone, alive):
        (left / "kmnist").mkdir(parents=True)
    prepared.prepare("kmnist", unverified=True)
    assert not gone.exists()
    assert alive.exists()


def test_a_folder_that_tfds_made_is_read_without_our_checksums(place: Path) -> None:
    kmnist(place)
    folder = prepared.prepare("kmnist", unverified=True)
    (folder / "capsjax.json").unlink()
    assert prepared.check_files("kmnist") is None
    assert len(data.load("kmnist", "test")["label"]) == 5


def test_a_folder_of_tfrecords_says_what_to_do(place: Path) -> None:
    kmnist(place)
    folder = prepared.prepare("kmnist", unverified=True)
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    info["fileFormat"] = "tfrecord"
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"only TensorFlow reads.*prepare kmnist --force"):
        data.load("kmnist")
    with pytest.raises(ValueError, match=r"holds tfrecord files, which only TensorFlow reads"):
        prepared.prepare("kmnist")
    assert prepared.state_of("kmnist")[0] == "prepared as tfrecord, for TensorFlow only"


# Rendered


def test_toy_norb_is_stored_with_its_factors_and_pose(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = {
        instances: toy_norb.render(np.arange(3) * 5000 + instances[0])
        for instances in (toy_norb.TRAIN_INSTANCES, toy_norb.TEST_INSTANCES)
    }

    def render_all(size: int, *, instances: tuple[int, ...], progress: bool) -> data.Arrays:
        assert size == 48
        return rendered[instances]

    monkeypatch.setattr(toy_norb, "render_all", render_all)
    prepared.prepare("toy_norb")
    assert prepared.check_files("toy_norb") is True
    with pytest.raises(ValueError, match=r"no split 'roll', expected .*test, azimuth_train, azim"):
        data.load("toy_norb", "roll")
    for split, expected in zip(("train", "test"), rendered.values(), strict=True):
        down_right = expected.pop("shift")
        expected |= {"shift_x": down_right[:, 0], "shift_y": down_right[:, 1]}
        found = data.load("toy_norb", split)
        assert {key: array.dtype for key, array in found.items()} == {
            key: array.dtype for key, array in expected.items()
        }
        assert by_content(found) == by_content(expected)
