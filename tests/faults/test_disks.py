"""Full disks and read-only ones: said in a line, nothing lost, the same command goes on."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capsjax
from capsjax.cli import dispatch
from capsjax.data import prepared
from capsjax.training import loop
from tests.data import archives
from tests.faults.disks import fill, read_only, small_disk
from tests.faults.victim import lay_data
from tests.training.small import (
    Level,
    assert_same_bits,
    compiled_once,
    flat_images,
    orbax_leftovers,
)

pytestmark = orbax_leftovers

IMAGES = flat_images(range(10, 250, 20), label=0)


def fit(workdir: Path, epochs: int) -> loop.Result:
    config = loop.Config(
        epochs=epochs,
        batch_size=2,
        validation=2,
        learning_rate=0.1,
        schedule="recipe",
        checkpoint_every=2,
    )
    return loop.fit(Level(), IMAGES, config, workdir=workdir)


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The same few functions in every test."""
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> loop.Result:
    """Of a run that was left alone."""
    return fit(tmp_path_factory.mktemp("undisturbed") / "run", epochs=3)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 2000) as place:
        yield place


@pytest.mark.parametrize("left", [0, 4096, 40_000, 90_000])
def test_a_disk_that_is_full_in_a_save_is_an_os_error_and_the_run_goes_on_to_the_same_bits(
    disk: Path, wanted: loop.Result, left: int
) -> None:
    fit(disk / "run", epochs=1)
    ballast = fill(disk, leave=left)
    # Without a byte left not even the log is written.
    with pytest.raises(OSError, match="No space left on device"):
        fit(disk / "run", epochs=3)
    ballast.unlink()
    found = fit(disk / "run", epochs=3)
    assert_same_bits(found.state, wanted.state)
    assert found.history == wanted.history
    assert not list((disk / "run").rglob("*tmp*"))


def test_a_read_only_directory_is_refused_and_left_as_it_is(disk: Path) -> None:
    result = fit(disk / "run", epochs=1)
    with read_only(disk):
        for workdir in (disk / "run", disk / "new"):
            with pytest.raises(ValueError, match=f"{workdir} cannot be written .Read-only file"):
                fit(workdir, epochs=3)
    assert fit(disk / "run", epochs=1).history == result.history


TRAIN = shlex.split(
    "train --model.features 4 --model.kernel-size 3 --model.primary-types 1 --model.no-decoder "
    "--epochs 1 --batch-size 8 --validation 8"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    lay_data(folder)
    return folder


def said_in_a_line(capsys: pytest.CaptureFixture[str], reason: str) -> None:
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("capsjax: ")
    assert reason in said[-1]
    assert not [line for line in said if "Traceback" in line]


def test_commands_say_that_the_disk_is_full_or_read_only(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", 8000) as disk:
        fill_and_free(disk, small, capsys)


def fill_and_free(disk: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*TRAIN, "--dataset", str(small / "digits.npz"), "--workdir", str(disk / "run")]
    ballast = fill(disk, leave=50_000)
    assert dispatch(options) == 2  # in its save
    said_in_a_line(capsys, "No space left on device")
    ballast.unlink()
    assert dispatch(options) == 0
    pictures = ["figures", str(disk / "run"), "--folder", str(disk / "pictures")]
    ballast = fill(disk, leave=20_000)
    assert dispatch(pictures) == 2
    said_in_a_line(capsys, "No space left on device")
    for path in (disk / "pictures").iterdir():  # what is there is whole
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), path
    ballast.unlink()
    with read_only(disk):
        assert dispatch(pictures) == 2
        said_in_a_line(capsys, "Read-only file system")
        assert capsjax.load(disk / "run").settings.training.epochs == 1
        assert dispatch(["evaluate", str(disk / "run")]) == 0


def test_a_disk_that_is_full_or_read_only_while_data_is_prepared_keeps_what_was_there(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "raw").mkdir()
    monkeypatch.setenv("CAPSJAX_MANUAL_DIR", str(tmp_path / "raw"))
    monkeypatch.setenv("CAPSJAX_DATA_DIR", str(disk))
    archives.write_kmnist(tmp_path / "raw", np.random.default_rng(0))
    again = ["datasets", "prepare", "kmnist", "--unverified", "--force"]
    prepared.prepare("kmnist", unverified=True)
    for left in (0, 4096, 40_000, 90_000):
        ballast = fill(disk, leave=left)
        assert dispatch(again) == 2
        said = capsys.readouterr().err
        assert "capsjax: " in said
        assert "space" in said.split("capsjax: ")[-1], said
        assert "Traceback" not in said
        ballast.unlink()
        assert prepared.check_files("kmnist") is False
        assert [path.name for path in disk.glob(".preparing*")] == []
    with read_only(disk):
        assert dispatch(again) == 2
        said_in_a_line(capsys, "Read-only file system")
        assert prepared.check_files("kmnist") is False
    assert dispatch(again) == 0
