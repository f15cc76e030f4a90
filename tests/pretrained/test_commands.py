"""The commands that make, list, test and use trained networks in files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from capsjax import pretrained
from capsjax.cli import trained as cli_trained
from tests.pretrained.conftest import Finished
from tests.training.small import digits


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test digit, a seven."""
    path = tmp_path_factory.mktemp("picture") / "seven.png"
    Image.fromarray(digits(1, "test")["image"][0, ..., 0]).save(path)
    return path


@pytest.mark.core
def test_the_listing_says_what_the_files_say(command: Any) -> None:
    said = command("pretrained", "--json")
    assert (said.status, said.err) == (0, "")
    rows = json.loads(said.out)
    assert [row["name"] for row in rows] == pretrained.names()
    [row] = [row for row in rows if row["name"] == "efficient_capsnet_mnist"]
    assert (row["model"], row["dataset"], row["seed"]) == ("efficient_capsnet", "mnist", 0)
    assert (row["parameters"], row["dtype"]) == (1_573_168, "float32")
    assert (row["tested"]["errors"], row["tested"]["images"]) == (43, 10_000)
    assert row["command"] == "python -m experiments.mazzia21_mnist --preset laptop --seed 0"
    assert row["settings"]["class_names"] == list("0123456789")
    header, *lines = command("pretrained").out.splitlines()
    assert header.startswith("name ")
    [line] = [line for line in lines if line.startswith("efficient_capsnet_mnist ")]
    for part in ("1,573,168", "0.43% (0.32% to 0.58%, 43 of 10,000)", "float32, 6.3 MB"):
        assert part in line


@pytest.mark.core
def test_a_name_predicts(command: Any, picture: Path) -> None:
    said = command("predict", "efficient_capsnet_mnist", picture, "--json")
    assert (said.status, said.err) == (0, "")
    [row] = json.loads(said.out)
    assert row["class"] == "7"
    assert row["activation"] > 0.8


def test_a_run_becomes_a_file_that_can_be_evaluated(
    finished: Finished, command: Any, tmp_path: Path, picture: Path
) -> None:
    path = tmp_path / "own.safetensors"
    said = command("export", finished.workdir, path, "--dtype", "float16")
    assert (said.status, said.err) == (0, "")
    first, second = said.out.splitlines()
    assert first.startswith(f"{path}: efficient_capsnet for ")
    assert f"{finished.summary['parameters']:,} parameters as float16" in first
    tested = pretrained.describe(path).tested
    assert second.startswith("test error of what is stored: ")
    assert f"{tested.errors} of 40" in second

    said = command("evaluate", path, "--json")
    assert (said.status, said.err) == (0, "")
    found = json.loads(said.out)
    assert (found["errors"], found["images"], found["split"]) == (tested.errors, 40, "test")
    assert found["stated_errors"] == tested.errors
    assert found["same_platform"] is found["reproduced"] is True
    lines = command("evaluate", path).out.splitlines()
    assert lines[1].startswith(f"stated: {tested.errors} of 40, measured on cpu (")
    assert lines[2] == ("expected: exactly so many on the same platform, within 2 images elsewhere")
    assert lines[3] == f"here, on the same platform: {tested.errors}, as expected"
    # Other images are not those that something is stated of.
    found = json.loads(command("evaluate", path, "--split", "all", "--json").out)
    assert "stated_errors" not in found
    assert found["images"] == 140
    assert "stated" not in command("evaluate", path, "--split", "all").out

    [row] = json.loads(command("predict", path, picture, "--json").out)
    assert set(row["activations"]) == set("0123456789")
    again = json.loads(command("export", finished.workdir, path, "--json").out)
    assert (again["dtype"], again["tested"]["errors"]) == (
        "float32",
        finished.summary["test_errors"],
    )


def test_an_error_that_is_not_the_stated_one_is_said(
    finished: Finished, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.safetensors"
    pretrained.export(finished.workdir, path)
    find = pretrained.find

    def wrong(where: Any) -> Any:
        opened = find(where)
        errors = opened.card.tested.errors + 3
        object.__setattr__(opened.card.tested, "errors", errors)
        return opened

    monkeypatch.setattr(cli_trained.pretrained, "find", wrong)
    found = json.loads(command("evaluate", path, "--json").out)
    assert found["reproduced"] is False
    assert found["errors"] + 3 == found["stated_errors"]
    assert command("evaluate", path).out.splitlines()[3].endswith("NOT as expected")


def test_a_run_directory_says_nothing_of_a_stated_error(finished: Finished, command: Any) -> None:
    found = json.loads(command("evaluate", finished.workdir, "--json").out)
    assert found["errors"] == finished.summary["test_errors"]
    assert "stated_errors" not in found


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("evaluate", "nowhere"), ["nowhere", "config.json", "efficient_capsnet_mnist"]),
        (("predict", "nowhere", "x.png"), ["nowhere", "efficient_capsnet_mnist"]),
        (("export", "nowhere", "own.safetensors"), ["nowhere", "config.json"]),
        (("export", "nowhere"), ["PATH", "--help"]),
        (("export", "nowhere", "own.npz"), [".safetensors"]),
        (("export", "nowhere", "own.safetensors", "--dtype", "int8"), ["'int8'", "float16"]),
        (("pretrained", "--jsn"), ["--jsn"]),
        (("pretraned",), ["did you mean 'pretrained'"]),
        (("predict", "efficient_capsnet_mnist", "large.png"), ["30 wide", "28", "resize"]),
        (("evaluate", "efficient_capsnet_mnist", "--dataset", "cifar10"), ["(32, 32, 3)"]),
    ],
)
def test_bad_words_get_one_line(
    arguments: Any, parts: Any, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((28, 30), np.uint8)).save("large.png")
    said = command(*arguments)
    assert (said.status, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    for part in parts:
        assert part in said.err
