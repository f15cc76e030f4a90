"""The commands: what they print and write, and one clear line for every bad input."""

import gc
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import capsjax
from capsjax import data
from capsjax.cli import dispatch
from capsjax.data import mnist
from capsjax.training import run
from tests.training.small import (
    compiled_once,
    digits,
    do_damage,
    files_below,
    orbax_leftovers,
)

SMALL = shlex.split(
    "--model.features 8 --model.kernel-size 3 --model.primary-types 2 --model.decoder-widths 16 "
    "--epochs 2 --batch-size 20 --validation 20 --limit 80 --schedule recipe --learning-rate 0.002"
)


class Said(NamedTuple):
    """What a command gave back and printed."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def capsjax_command(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: Any) -> Said:
        capsys.readouterr()
        status = dispatch([str(argument) for argument in arguments])
        return Said(status, *capsys.readouterr())

    return call


@pytest.fixture
def refused(capsjax_command: Command) -> Callable[..., str]:
    """The one line that a bad input gives."""

    def call(*arguments: Any) -> str:
        said = capsjax_command(*arguments)
        assert said.status == 2
        assert said.err.startswith("capsjax: "), said.err
        assert said.err.endswith("\n")
        assert len(said.err.splitlines()) == 1, said.err
        assert "Traceback" not in said.err
        return said.err

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run on the real MNIST, 80 images twice."""
    workdir = tmp_path_factory.mktemp("cli") / "run"
    with compiled_once(tmp_path_factory.getbasetemp() / "compiled"):
        assert dispatch(["train", *SMALL, "--workdir", str(workdir)]) == 0
        yield workdir


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 50 test digits as a file of the user's own."""
    path = tmp_path_factory.mktemp("own") / "own.npz"
    few = digits(50, "test")
    np.savez(path, image=few["image"], label=few["label"])
    return path


# What works


@pytest.mark.core
def test_train_writes_the_whole_run_directory(trained: Path) -> None:
    names = sorted(path.name for path in trained.iterdir())
    assert names == ["checkpoints", "config.json", "figures", "metrics.jsonl", "summary.json"]
    entries = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if entry["split"] == "train"] == list(range(1, 9))
    assert [entry["step"] for entry in entries if entry["split"] == "validation"] == [4, 8]
    config = json.loads((trained / "config.json").read_text())
    assert (config["model"], config["dataset"]) == ("capsnet", "mnist")
    assert config["model_config"]["features"] == 8
    assert config["training"]["limit"] == 80


@pytest.mark.core
def test_the_summary_has_every_key(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert set(summary) >= {
        "model", "dataset", "test_error", "test_error_interval_95", "test_images",
        "validation_error", "parameters", "epochs", "steps", "seconds", "images_per_second",
        "seed", "precision", "command", "finished", "settings", "versions", "python", "platform",
        "commit", "dirty",
    }  # fmt: skip
    assert summary["test_images"] == 10_000
    assert summary["steps"] == 8
    assert summary["command"].startswith("capsjax train --model.features 8 ")
    assert shlex.split(summary["command"])[2:-2] == SMALL


@pytest.mark.core
@pytest.mark.parametrize("name", ["learning_curves", "mistakes", "confusion", "reconstructions"])
def test_train_draws_four_pictures(trained: Path, name: str) -> None:
    path = trained / "figures" / f"{name}.png"
    assert path.stat().st_size > 10_000
    with Image.open(path) as image:
        image.verify()
        assert image.format == "PNG"
    with Image.open(path) as image:
        assert np.asarray(image.convert("L")).std() > 5


def test_training_a_finished_run_again_says_the_same_and_tests_nothing(
    trained: Path, capsjax_command: Command
) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    before = {path: path.read_bytes() for path in files_below(trained)}
    said = capsjax_command("train", *SMALL, "--workdir", trained)
    assert said.status == 0
    assert {path: path.read_bytes() for path in files_below(trained)} == before
    assert "trained to its end" in said.out
    assert f"{summary['test_error']:.2%}" in said.out
    assert str(trained / "figures") in said.out


def test_evaluate_agrees_with_the_summary(trained: Path, capsjax_command: Command) -> None:
    said = capsjax_command("evaluate", trained, "--json")
    assert (said.status, said.err) == (0, "")
    found = json.loads(said.out)
    summary = json.loads((trained / "summary.json").read_text())
    assert found["error"] == summary["test_error"] == found["errors"] / 10_000
    assert found["error_interval_95"] == summary["test_error_interval_95"]
    assert (found["dataset"], found["split"], found["images"]) == ("mnist", "test", 10_000)
    confusion = np.array(found["confusion"])
    # The true counts of MNIST's test set.
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert confusion.sum(1).tolist() == counts
    assert found["errors"] == 10_000 - confusion.trace()
    for digit, error in found["class_errors"].items():
        right = confusion[int(digit), int(digit)]
        assert error == pytest.approx(1 - right / counts[int(digit)])


def test_evaluate_prints_error_interval_classes_and_confusion(
    trained: Path, own: Path, capsjax_command: Command
) -> None:
    arguments = ("evaluate", trained, "--dataset", own, "--split", "all")
    found = json.loads(capsjax_command(*arguments, "--json").out)
    said = capsjax_command(*arguments)
    assert (said.status, said.err) == (0, "")
    first, _, header, *rows = said.out.splitlines()
    low, high = found["error_interval_95"]
    for part in (f"{found['error']:.2%}", "95 %", f"{low:.2%}", f"{high:.2%}", "of 50"):
        assert part in first
    assert header.split()[:3] == ["class", "images", "error"]
    assert len(rows) == 10
    for digit, row in enumerate(rows):
        cells = row.split()
        assert cells[0] == str(digit)
        assert [int(cell) for cell in cells[3:]] == found["confusion"][digit]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five test digits as PNG files, the last one in colour."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{number}.png" for number in range(5)]
    for path, image in zip(paths, digits(5, "test")["image"], strict=True):
        picture = Image.fromarray(image[..., 0])
        (picture.convert("RGB") if path == paths[-1] else picture).save(path)
    return paths


def test_predict_names_each_image_s_class(
    trained: Path, pictures: list[Path], capsjax_command: Command
) -> None:
    expected = capsjax.load(trained).predict(digits(5, "test")["image"])
    said = capsjax_command("predict", trained, *pictures, "--json")
    assert (said.status, said.err) == (0, "")
    found = json.loads(said.out)
    assert [row["image"] for row in found] == [str(path) for path in pictures]
    assert [row["class"] for row in found] == [str(label) for label in expected.labels]
    for row, activations in zip(found, expected.activations, strict=True):
        assert list(row["activations"]) == list("0123456789")
        np.testing.assert_allclose(list(row["activations"].values()), activations, rtol=1e-6)
        assert row["activation"] == max(row["activations"].values())
    table = capsjax_command("predict", trained, *pictures).out.splitlines()
    assert table[0].split() == ["image", "class", "activation"]
    assert [line.split()[1] for line in table[1:]] == [row["class"] for row in found]


@pytest.mark.core
def test_models_lists_capsnet_with_its_published_size(capsjax_command: Command) -> None:
    [row] = [
        row
        for row in json.loads(capsjax_command("models", "--json").out)
        if row["name"] == "capsnet"
    ]
    assert row["parameters"] == 8_215_568
    assert "Sabour" in row["source"]
    table = capsjax_command("models")
    assert table.status == 0
    assert "8,215,568" in table.out


@pytest.mark.core
def test_datasets_lists_mnist(capsjax_command: Command) -> None:
    rows = {row["name"]: row for row in json.loads(capsjax_command("datasets", "--json").out)}
    assert rows["mnist"]["splits"] == {"train": 60_000, "test": 10_000}
    assert rows["mnist"]["image_shape"] == [28, 28, 1]
    assert rows["mnist"]["classes"] == 10
    assert "60,000" in capsjax_command("datasets").out


@pytest.mark.core
@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "models", "datasets"])
def test_help_of_every_command_exits_0(command: str, capsjax_command: Command) -> None:
    said = capsjax_command(command, "--help")
    assert (said.status, said.err) == (0, "")
    assert f"capsjax {command}" in said.out
    listed = capsjax_command("--help")
    assert listed.status == 0
    assert f"  {command} " in listed.out


def test_help_of_train_names_every_choice(capsjax_command: Command) -> None:
    said = capsjax_command("train", "--help").out
    for name in (
        "--model", "--dataset", "--workdir", "--preset", "--epochs", "--batch-size",
        "--learning-rate", "--schedule", "--seed", "--validation", "--limit", "--shift",
        "--precision", "--checkpoint-every", "--loss.reduction", "--model.features",
        "--model.semantics", "--routing", "--routing.num-iterations", "--routing.leaky",
    ):  # fmt: skip
        assert name in said, name


@pytest.mark.core
def test_no_command_prints_the_help_and_version_the_version(capsjax_command: Command) -> None:
    assert capsjax_command() == capsjax_command("--help") == capsjax_command("-h")
    assert capsjax_command("--version") == (0, f"capsjax {capsjax.__version__}\n", "")


# Bad input

BAD_WORDS = {
    "trian": ["'trian'", "train, evaluate, predict", "did you mean 'train'"],
    "train --model capsnot": ["'capsnot'", "capsnet"],
    "train --model": ["--model"],
    "train --dataset mnits": ["'mnits'", "mnist", ".npz"],
    "train --dataset": ["--dataset"],
    "train --preset slow": ["'slow'", "quick"],
    "train --preset": ["--preset"],
    "train --bogus 3": ["--bogus"],
    "train --model.bogus 3": ["--model.bogus"],
    "train stray": ["stray"],
    "train --epochs": ["--epochs"],
    "train --epochs many": ["--epochs", "'many'"],
    "train --epochs 0": ["epochs is 0", "at least 1"],
    "train --batch-size -3": ["batch_size is -3"],
    "train --learning-rate nan": ["learning_rate is nan"],
    "train --seed -1": ["seed is -1"],
    "train --schedule linear": ["'linear'", "recipe", "cosine"],
    "train --precision low": ["'low'", "highest"],
    "train --limit 60000": ["limit is 60000", "55000"],
    "train --limit 10": ["10", "batch of 128"],
    "train --validation 60000": ["60000", "batch"],
    "train --model.features 0": ["features is 0"],
    "train --model.padding valid": ["'valid'", "VALID"],
    "train --model.semantics official": ["semantics", "routing.semantics"],
    "train --model.kernel-size 15": ["28x28", "29x29"],
    "train --loss.absent-weight -1": ["absent_weight is -1"],
    "evaluate": ["run directory"],
    "evaluate missing": ["missing", "config.json", "capsjax train"],
    "evaluate missing --split": ["--split"],
    "predict": ["run directory"],
    "predict missing": ["no image given"],
    "predict missing image.png": ["missing", "config.json"],
    "models --jsn": ["--jsn"],
    "datasets extra": ["extra"],
}


@pytest.mark.core
@pytest.mark.parametrize("words", BAD_WORDS)
def test_bad_words_get_one_line_that_names_them(
    words: str,
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(*words.split())
    for part in BAD_WORDS[words]:
        assert part in said


def write_npz(path: Path, size: int = 28, labels: Any = range(10), **more: Any) -> Path:
    labels = np.array(labels)
    image = np.zeros((len(labels), size, size), np.uint8)
    np.savez(path, image=image, label=labels, **more)
    return path


@pytest.mark.core
def test_images_smaller_than_the_receptive_field_are_refused(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    own = write_npz(tmp_path / "small.npz", size=10, labels=np.arange(100) % 2)
    workdir = tmp_path / "run"
    said = refused("train", "--dataset", own, "--workdir", workdir)
    assert "10x10" in said
    assert "17x17" in said
    assert not workdir.exists()


@pytest.mark.core
def test_a_damaged_npz_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_bytes(b"garbage")
    assert "own.npz" in refused("train", "--dataset", tmp_path / "own.npz")
    gc.collect()


@pytest.mark.core
def test_fewer_images_than_a_batch_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    own = write_npz(tmp_path / "own.npz", labels=np.arange(100) % 2)
    said = refused("train", "--dataset", own, "--workdir", tmp_path / "run")
    assert "90 images less 5000" in said
    assert "batch of 128" in said


def test_a_single_class_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    own = write_npz(tmp_path / "own.npz", labels=np.zeros(100, int))
    assert "at least 2" in refused("train", "--dataset", own, "--workdir", tmp_path / "run")


def test_too_few_images_to_test_are_refused_by_name(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    own = write_npz(tmp_path / "own.npz", labels=[0, 1, 0, 1, 0])
    said = refused(
        "train", "--dataset", own, "--workdir", tmp_path / "run", "--validation", 1,
        "--batch-size", 1000,
    )  # fmt: skip
    assert "zero-size" not in said
    assert "images" in said


@pytest.mark.core
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_a_corrupt_archive_is_named_with_both_checksums(
    name: str, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for archive in mnist.EMBEDDED.glob("*.gz"):
        (tmp_path / archive.name).symlink_to(archive)
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(b"garbage")
    monkeypatch.setitem(data.DATASETS, "mnist", lambda: mnist.dataset(tmp_path))
    said = refused("train", "--workdir", tmp_path / "run")
    assert name in said
    # The archives' SHA-256 begin so in TFDS's list.
    expected = {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea37026",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd",
    }
    assert hashlib.sha256(b"garbage").hexdigest() in said
    assert expected[name] in said
    assert not (tmp_path / "run").exists()


@pytest.mark.core
def test_a_work_directory_that_cannot_be_made_is_refused(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        assert str(tmp_path / "file") in refused("train", *SMALL, "--workdir", workdir)


@pytest.mark.core
def test_a_work_directory_of_other_things_is_refused(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert "holds no run" in refused("train", *SMALL, "--workdir", tmp_path)


def test_a_run_of_another_config_is_refused_with_the_differences_named(
    trained: Path, refused: Callable[..., str]
) -> None:
    said = refused("train", *SMALL, "--workdir", trained, "--seed", 5, "--model.class-dim", 4)
    assert "training.seed is 0 there and 5 here" in said
    assert "model_config.class_dim is 16 there and 4 here" in said
    assert "--workdir" in said


def test_a_directory_without_a_config_is_no_run(
    refused: Callable[..., str], tmp_path: Path, pictures: list[Path]
) -> None:
    assert "config.json" in refused("evaluate", tmp_path)
    assert "config.json" in refused("predict", tmp_path, pictures[0])


@orbax_leftovers
@pytest.mark.parametrize("damage", ["overwritten", "deleted"])
def test_a_checkpoint_that_is_not_one_is_refused(
    trained: Path, pictures: list[Path], refused: Callable[..., str], tmp_path: Path, damage: str
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    (workdir / "summary.json").unlink()  # without it the run is not finished
    for path in files_below(workdir / "checkpoints"):
        do_damage(path, damage)
    for arguments in (
        ("evaluate", workdir),
        ("predict", workdir, pictures[0]),
        ("train", *SMALL, "--workdir", workdir),
    ):
        assert "checkpoint" in refused(*arguments)
        gc.collect()


def in_a_process(*arguments: Any, **environment: str) -> Said:
    done = subprocess.run(
        [sys.executable, "-m", "capsjax", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environment},
    )
    return Said(done.returncode, done.stdout, done.stderr)


def test_below_a_damaged_checkpoint_no_library_prints_lines_of_its_own(
    trained: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    for path in files_below(workdir / "checkpoints"):
        path.write_bytes(b"garbage")
    said = in_a_process("evaluate", workdir)
    assert (said.status, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1, said.err
    assert "checkpoint" in said.err


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_a_terminal_of_any_encoding_gets_the_reason(encoding: str) -> None:
    said = in_a_process("models", "--jsn", PYTHONIOENCODING=encoding)
    assert said.status == 2
    assert said.err.startswith("capsjax: ")
    assert len(said.err.splitlines()) == 1
    assert "--jsn" in said.err


def test_labels_that_the_network_has_no_class_for_are_refused(
    trained: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    own = write_npz(tmp_path / "own.npz", labels=np.arange(20))
    said = refused("evaluate", trained, "--dataset", own, "--split", "all")
    assert "labels out of range" in said
    assert "0 to 19" in said
    assert "10 classes" in said


def test_data_of_another_size_than_the_network_s_is_refused(
    trained: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    own = write_npz(tmp_path / "own.npz", size=32)
    said = refused("evaluate", trained, "--dataset", own)
    assert "(32, 32, 1)" in said
    assert "(28, 28, 1)" in said


def test_an_unknown_split_or_data_set_is_refused(
    trained: Path, refused: Callable[..., str]
) -> None:
    assert "'validation'" in refused("evaluate", trained, "--split", "validation")
    assert "'mnits'" in refused("evaluate", trained, "--dataset", "mnits")


@pytest.mark.filterwarnings("error")
def test_images_that_cannot_be_predicted_are_refused(
    trained: Path, pictures: list[Path], refused: Callable[..., str], tmp_path: Path
) -> None:
    broken, large, text = (tmp_path / name for name in ("broken.png", "large.png", "notes.txt"))
    broken.write_bytes(pictures[0].read_bytes()[:100])
    Image.fromarray(np.zeros((30, 32), np.uint8)).save(large)
    text.write_text("no image")
    assert "missing.png" in refused("predict", trained, tmp_path / "missing.png")
    assert "broken.png" in refused("predict", trained, pictures[0], broken)
    assert "notes.txt" in refused("predict", trained, text)
    said = refused("predict", trained, large)
    assert "32 wide and 30 high" in said
    assert "28" in said
    assert str(tmp_path) in refused("predict", trained, tmp_path)


# How a run ends otherwise


@pytest.mark.core
@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (FloatingPointError("the loss is nan at step 7"), 1, "capsjax: the loss is nan at step 7"),
        (KeyboardInterrupt(), 130, "capsjax: stopped; the same command goes on"),
        (SystemExit(143), 143, "capsjax: stopped; the same command goes on"),
        (OSError(28, "No space left on device"), 2, "capsjax: [Errno 28] No space left"),
    ],
)
def test_training_that_ends_early_says_why(
    raised: BaseException,
    status: int,
    said: str,
    capsjax_command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def end(*arguments: Any, **named: Any) -> None:
        raise raised

    monkeypatch.setattr(run, "train", end)
    found = capsjax_command("train", "--workdir", tmp_path)
    assert found.status == status
    assert found.err.strip().startswith(said)
    assert len(found.err.strip().splitlines()) == 1


def test_an_interrupted_evaluation_does_not_speak_of_going_on(
    trained: Path, capsjax_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "load", end)
    found = capsjax_command("evaluate", trained)
    assert (found.status, found.err.strip()) == (130, "capsjax: stopped")


def test_the_preset_quick_fills_in_what_is_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsjax_command: Command
) -> None:
    seen = []

    def remember(settings: run.Settings, *arguments: Any, **named: Any) -> None:
        seen.append(settings)
        raise ValueError("seen")

    monkeypatch.setattr(run, "train", remember)
    capsjax_command("train", "--preset", "quick", "--workdir", tmp_path, "--epochs", 2)
    capsjax_command("train", "--preset=quick", "--workdir", tmp_path)
    first, second = (settings.training for settings in seen)
    # The issue: 10,000 images, 1,000 more for validation, one epoch, batch 32, cosine decay.
    assert (second.epochs, second.limit, second.validation) == (1, 10_000, 1000)
    assert (second.batch_size, second.schedule) == (32, "cosine")
    assert first.epochs == 2
    assert first.limit == 10_000


def test_commands_warn_of_nothing(capsjax_command: Command) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert capsjax_command("models").status == 0
        assert capsjax_command("datasets").err == ""
