"""The commands: what they print and write, and one clear line for every bad input."""

import dataclasses
import gc
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx
from matplotlib.figure import Figure
from PIL import Image

import capsjax
from capsjax import data, models
from capsjax.cli import dispatch
from capsjax.cli.pictures import write
from capsjax.data import made, mnist
from capsjax.models import MODELS, Model
from capsjax.routing import dynamic, uniform
from capsjax.training import run
from capsjax.types import Output
from tests.data import archives
from tests.training.small import (
    cache_environment,
    compiled_once,
    digits,
    do_damage,
    files_below,
    orbax_leftovers,
    saved_digits,
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


@pytest.mark.usefixtures("trained")  # within which compiling is remembered
def test_several_seeds_are_runs_of_their_own_and_go_on_where_they_stopped(
    few: Path, tmp_path: Path, capsjax_command: Command
) -> None:
    workdir = tmp_path / "several"
    command = ["train", *SMALL, "--epochs", "1", "--dataset", few, "--workdir", workdir]
    command += ["--seed", 7, "--seeds", 2]
    said = capsjax_command(*command)
    assert said.status == 0, said.err
    summary = json.loads((workdir / "summary.json").read_text())
    each = [json.loads((workdir / f"seed-{n}" / "summary.json").read_text()) for n in (7, 8)]
    assert [run["seed"] for run in each] == summary["seeds"] == [7, 8]
    assert summary["test_error"] == np.mean([run["test_error"] for run in each])
    assert f"seed 8: test error {each[1]['test_error']:.2%}" in said.out
    logs = [(workdir / f"seed-{n}" / "metrics.jsonl").read_text() for n in (7, 8)]
    assert logs[0] != logs[1]
    # Each is a whole run, which others could continue.
    assert capsjax_command("evaluate", workdir / "seed-8", "--json").status == 0

    shutil.rmtree(workdir / "seed-8")
    (workdir / "summary.json").unlink()
    before = {path: path.read_bytes() for path in files_below(workdir / "seed-7")}
    assert capsjax_command(*command).status == 0
    assert {path: path.read_bytes() for path in files_below(workdir / "seed-7")} == before
    assert (workdir / "seed-8" / "metrics.jsonl").read_text() == logs[1]
    assert json.loads((workdir / "summary.json").read_text())["seeds"] == [7, 8]


def test_bad_numbers_of_seeds_are_refused(
    trained: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    for number in ("0", "-1", "two"):
        assert "seeds" in refused("train", *SMALL, "--seeds", number, "--workdir", tmp_path / "n")
    assert "a run of one seed" in refused("train", *SMALL, "--seeds", 2, "--workdir", trained)
    assert not (tmp_path / "n").exists()


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
def test_models_lists_every_form_with_its_published_number(capsjax_command: Command) -> None:
    rows = json.loads(capsjax_command("models", "--json").out)
    [row] = [row for row in rows if (row["name"], row["dataset"]) == ("capsnet", "mnist")][:1]
    assert (row["parameters"], row["published"]) == (8_215_568, "0.25 % error")
    assert (row["image_shape"], row["classes"], row["note"]) == ([28, 28, 1], 10, "")
    assert row["config"]["routing"]["algorithm"] == "dynamic"
    assert "Sabour" in row["source"]
    said = capsjax_command("models")
    assert said.status == 0
    header, first, *more = said.out.splitlines()
    assert re.split(r" {2,}", header)[:5] == [
        "name",
        "data set",
        "parameters",
        "published",
        "source",
    ]
    assert re.split(r" {2,}", first)[-1] == "-"
    assert first.split()[:3] == ["capsnet", "mnist", "8,215,568"]
    assert 1 + len(more) == len(rows) == sum(len(model.forms) for model in MODELS.values())


@pytest.mark.core
def test_models_lists_the_layers_of_one(capsjax_command: Command) -> None:
    found = json.loads(capsjax_command("models", "capsnet", "--json").out)
    assert (found["parameters"], found["routing"]) == (8_215_568, "dynamic")
    layers = {layer["path"]: layer for layer in found["layers"]}
    assert layers["convolution"] == {
        "path": "convolution",
        "kind": "Convolution",
        "output_shape": [20, 20, 256],
        "parameters": 81 * 256 + 256,
        "flops": 2 * 400 * 81 * 256 + 400 * 256,
    }
    assert found["flops"] == sum(layer["flops"] for layer in found["layers"])
    said = capsjax_command("models", "capsnet", "--depth", 2)
    assert said.status == 0
    cells = [re.split(r" {2,}", line) for line in said.out.splitlines()]
    assert ["layer", "class", "output", "parameters", "FLOPs"] in cells
    assert ["classes.votes", "Votes", "10 x 16 x 1152", "1,474,560", "2,949,120"] in cells


def test_models_counts_the_layers_for_other_images_and_routings(capsjax_command: Command) -> None:
    options = shlex.split("--image-shape 20 30 2 --num-classes 4 --routing self_attention --json")
    found = json.loads(capsjax_command("models", "capsnet", *options).out)
    assert (found["image_shape"], found["classes"]) == ([20, 30, 2], 4)
    assert found["routing"] == "self_attention"
    shapes = {layer["path"]: layer["output_shape"] for layer in found["layers"]}
    # Of 20 rows and 30 columns 9x9 leaves 12 and 22, and again with stride 2, 2 and 7.
    assert shapes["primary"] == [2, 7, 32, 8]
    assert shapes["classes"] == [4, 16]
    by_name = json.loads(capsjax_command("models", "capsnet", "--dataset", "mnist", "--json").out)
    assert by_name["parameters"] == 8_215_568


def test_models_tells_the_forms_of_one_data_set_apart(
    capsjax_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS["capsnet"]
    config = replace(model.config, decoder=False, routing=dynamic.Config(num_iterations=1))
    other = replace(model.forms[0], config=config, parameters=6_804_224)
    last = replace(other, config=replace(config, features=8, routing=uniform.Config()))
    forms = (model.forms[0], other, last)
    monkeypatch.setitem(MODELS, "capsnet", replace(model, forms=forms))
    rows = json.loads(capsjax_command("models", "--json").out)
    assert [row["differs"] for row in rows if row["name"] == "capsnet"] == [
        "-",
        "decoder=False routing.num_iterations=1",
        "features=8 decoder=False routing=uniform",
    ]
    arguments = ("models", "capsnet", "--dataset", "mnist", "--form", 2, "--json")
    assert json.loads(capsjax_command(*arguments).out)["parameters"] == 6_804_224


def test_models_lists_who_goes_with_whom(
    capsjax_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"capsnet": {"em": None, "uniform": "it is too plain"}, "cnn": {"em": "no capsules"}}
    found["cnn"]["uniform"] = "it is too plain"
    monkeypatch.setattr("capsjax.models.pairs", lambda: found)
    monkeypatch.setattr("capsjax.routing.ALGORITHMS", {"em": None, "uniform": None})
    assert json.loads(capsjax_command("models", "--pairs", "--json").out) == found
    assert [line.split() for line in capsjax_command("models", "--pairs").out.splitlines()] == [
        ["network", "em", "uniform"],
        ["capsnet", "yes", "no", "[1]"],
        ["cnn", "no", "[2]", "no", "[1]"],
        ["[1]", "it", "is", "too", "plain"],
        ["[2]", "no", "capsules"],
    ]


MODELS_REFUSED = {
    "capsnets": "unknown model 'capsnets', expected one of: capsnet",
    "capsnet --dataset imagenet": "no form for 'imagenet', expected one of: mnist",
    "capsnet --form 0": "form is 0, expected 1 to",
    "capsnet --form 99": "form is 99, expected 1 to",
    "capsnet --image-shape 5 5 1": "images of 5x5 are smaller",
    "capsnet --num-classes 0": "num_classes is 0",
    "capsnet --depth 0": "depth is 0",
    "capsnet --routing dynamics": "unknown routing 'dynamics'",
    "capsnet --pairs": "--pairs is of all networks",
    "--image-shape 5 5 1": "--image-shape is for the layers of one network",
    "--pairs --routing em": "--routing is for the layers of one network",
}


@pytest.mark.parametrize("arguments", MODELS_REFUSED)
def test_models_refuses_what_it_cannot_list(refused: Callable[..., str], arguments: str) -> None:
    assert MODELS_REFUSED[arguments] in refused("models", *shlex.split(arguments))


@pytest.mark.core
def test_datasets_lists_mnist(capsjax_command: Command) -> None:
    rows = {row["name"]: row for row in json.loads(capsjax_command("datasets", "--json").out)}
    assert rows["mnist"]["splits"] == {"train": 60_000, "test": 10_000}
    assert rows["mnist"]["image_shape"] == [28, 28, 1]
    assert rows["mnist"]["classes"] == 10
    assert "60,000" in capsjax_command("datasets").out


def test_datasets_verify_and_show_what_is_embedded(
    capsjax_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "needs no preparation" in capsjax_command("datasets", "prepare", "mnist").out
    found = json.loads(capsjax_command("datasets", "verify", "mnist", "--json").out)
    assert found["labels"]["test"] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert "5,923" in capsjax_command("datasets", "verify", "mnist").out
    shown = capsjax_command("datasets", "show", "mnist", "--count", "3", "--split", "test")
    assert "3 images of mnist are in mnist.png" in shown.out
    with Image.open(tmp_path / "mnist.png") as picture:
        assert picture.size[0] > 300


def test_datasets_prepare_makes_verifies_and_lists(
    capsjax_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives.write_kmnist(tmp_path / "raw", np.random.default_rng(0))
    monkeypatch.setenv("CAPSJAX_MANUAL_DIR", str(tmp_path / "raw"))
    monkeypatch.setenv("CAPSJAX_DATA_DIR", str(tmp_path / "prepared"))
    rows = json.loads(capsjax_command("datasets", "--json").out)
    assert {row["name"]: row["state"] for row in rows}["kmnist"] == "not prepared"
    made = capsjax_command("datasets", "prepare", "kmnist", "--unverified")
    assert f"kmnist is now in {tmp_path / 'prepared' / 'kmnist' / '3.0.1'}" in made.out
    again = capsjax_command("datasets", "prepare", "kmnist", "--unverified")
    assert "--force makes it anew" in again.out
    assert "not the official ones" in capsjax_command("datasets", "verify", "kmnist").out
    rows = json.loads(capsjax_command("datasets", "--json").out)
    [row] = [row for row in rows if row["name"] == "kmnist"]
    assert row["state"] == "prepared, not of the official archives"
    assert row["bytes"] > 1000


@pytest.mark.core
@pytest.mark.parametrize(
    "command",
    ["train", "evaluate", "predict", "export", "pretrained", "models", "routings", "datasets"],
)
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
        "--precision", "--checkpoint-every", "--recipe", "--weight-decay", "--gradient-clip",
        "--layer-metrics", "--loss.kind", "--loss.margin-steps", "--loss.reduction",
        "--model.features", "--model.semantics", "--routing", "--routing.num-iterations",
        "--routing.leaky",
    ):  # fmt: skip
        assert name in said, name


@pytest.mark.core
def test_no_command_prints_the_help_and_version_the_version(capsjax_command: Command) -> None:
    assert capsjax_command() == capsjax_command("--help") == capsjax_command("-h")
    assert capsjax_command("--version") == (0, f"capsjax {capsjax.__version__}\n", "")


# Routings

# Iterations in the paper, parameters learned with the default choices, what is looked at, what an
# activation is, whose it is.
BETAS = {"beta_a": "parents", "beta_u": "parents"}
ROUTINGS: dict[str, tuple[int | None, dict[str, str], str, str, str]] = {
    "dynamic": (3, {}, "votes", "length", "Sabour, Frosst and Hinton 2017"),
    "em": (3, BETAS, "votes and activations", "own", "Hinton, Sabour and Frosst 2018"),
    "variational_bayes": (
        3, BETAS, "votes and activations", "own", "Ribeiro, Leontidis and Kollias 2020",
    ),
    "self_attention": (
        None, {"prior": "parents, children"}, "votes", "length", "Mazzia, Salvetti and Chiaberge",
    ),
    "self_routing": (
        None,
        {"kernel": "child_dim, parents, children", "bias": "parents, children"},
        "votes, poses and activations",
        "own",
        "Hahn, Pyeon and Kim 2019",
    ),
    "inverted_attention": (
        2, {"scale": "dim", "offset": "dim"}, "votes", "linear", "Tsai, Srivastava, Goh",
    ),
    "uniform": (None, {}, "votes", "length", "Paik, Kwak and Kim 2019"),
    "random_coupling": (None, {}, "votes", "length", "Paik, Kwak and Kim 2019"),
}  # fmt: skip


@pytest.mark.core
def test_routings_lists_all_eight(capsjax_command: Command) -> None:
    said = capsjax_command("routings", "--json")
    assert (said.status, said.err) == (0, "")
    rows = json.loads(said.out)
    assert [row["name"] for row in rows] == list(ROUTINGS)
    for row in rows:
        iterations, parameters, uses, activation, source = ROUTINGS[row["name"]]
        assert set(row) == {"name", "iterations", "parameters", "uses", "activation", "source"}
        assert row["iterations"] == iterations
        assert row["parameters"] == parameters
        assert (row["uses"], row["activation"]) == (uses, activation)
        assert row["source"].startswith(source)


@pytest.mark.core
def test_routings_prints_a_table_of_all_eight(capsjax_command: Command) -> None:
    said = capsjax_command("routings")
    assert (said.status, said.err) == (0, "")
    header, *rows = said.out.splitlines()
    names = ("name", "iterations", "learned parameters", "uses", "activation", "source")
    starts = [header.index(name) for name in names]
    assert len(rows) == 8
    for row, name in zip(rows, ROUTINGS, strict=True):
        iterations, parameters, uses, activation, source = ROUTINGS[name]
        learned = ", ".join(f"{each} [{shape}]" for each, shape in parameters.items())
        cells = [
            row[start:end].rstrip() for start, end in zip(starts, [*starts[1:], None], strict=True)
        ]
        assert cells[:-1] == [
            name,
            str(iterations or "none"),
            learned or "none",
            f"the children's {uses}",
            activation,
        ]
        assert cells[-1].startswith(source)


@pytest.mark.core
@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [
        ("dynamic", ["leaky", "bias", "semantics"], ["minimum-variance", "seed"]),
        ("em", ["minimum-variance", "final-inverse-temperature"], ["leaky", "bias"]),
        ("variational_bayes", ["covariance", "strength", "loop.gradient"], ["leaky"]),
        ("random_coupling", ["seed"], ["num-iterations", "loop.gradient", "leaky"]),
        ("uniform", [], ["num-iterations", "loop.gradient", "seed"]),
    ],
)
def test_help_with_a_routing_shows_its_own_choices(
    name: str, has: list[str], lacks: list[str], capsjax_command: Command
) -> None:
    for arguments in (("--routing", name, "--help"), ("--help", f"--routing={name}")):
        said = capsjax_command("train", *arguments)
        assert (said.status, said.err) == (0, "")
        shown = set(re.findall(r"--[a-z][a-z.-]*", said.out))
        assert {f"--routing.{field}" for field in has} <= shown
        assert not {f"--routing.{field}" for field in lacks} & shown
        assert {"--routing", "--model.features", "--epochs"} <= shown
        assert not [option for option in shown if option.startswith("--model.routing")]
        assert f"(default: {name})" in said.out


BY_EM = shlex.split(
    "--routing em --routing.num-iterations 2 --routing.minimum-variance 0.01 "
    "--routing.loop.gradient last_iteration"
)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the user's own with a split for testing: 100 real digits and 30."""
    path = tmp_path_factory.mktemp("few") / "few.npz"
    saved_digits(path, 100, 30)
    return path


@pytest.fixture(scope="module")
def by_em(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with another routing than the published one."""
    workdir = tmp_path_factory.mktemp("em") / "run"
    with compiled_once(tmp_path_factory.getbasetemp() / "compiled"):
        command = ["train", *SMALL, *BY_EM, "--dataset", str(few), "--workdir", str(workdir)]
        assert dispatch(command) == 0
        yield workdir


def test_a_routing_and_its_choices_reach_the_config_and_the_network(by_em: Path) -> None:
    found = json.loads((by_em / "config.json").read_text())["model_config"]["routing"]
    assert found["algorithm"] == "em"
    assert (found["num_iterations"], found["minimum_variance"]) == (2, 0.01)
    assert found["loop"]["gradient"] == "last_iteration"
    # Not given: as in the algorithm's own defaults.
    assert (found["semantics"], found["final_inverse_temperature"]) == ("paper", 0.01)
    network: Any = capsjax.load(by_em).model
    assert set(network.classes.routing.params) == {"beta_a", "beta_u"}
    # Trained: 8 steps move them away from their first value, 0.
    assert np.all(network.classes.routing.params["beta_a"][...] != 0)


def test_a_run_with_another_routing_evaluates_and_predicts(
    by_em: Path, pictures: list[Path], capsjax_command: Command
) -> None:
    summary = json.loads((by_em / "summary.json").read_text())
    found = json.loads(capsjax_command("evaluate", by_em, "--json").out)
    assert found["images"] == summary["test_images"] == 30
    assert found["error"] == summary["test_error"]
    rows = json.loads(capsjax_command("predict", by_em, *pictures, "--json").out)
    expected = capsjax.load(by_em).predict(digits(5, "test")["image"])
    assert [row["class"] for row in rows] == [str(label) for label in expected.labels]
    assert all(0 <= value <= 1 for row in rows for value in row["activations"].values())


def test_the_same_command_with_a_routing_finds_the_finished_run(
    by_em: Path, few: Path, capsjax_command: Command
) -> None:
    said = capsjax_command("train", *SMALL, *BY_EM, "--dataset", few, "--workdir", by_em)
    assert said.status == 0
    assert "trained to its end" in said.out


@pytest.mark.parametrize(
    ("options", "differences"),
    [
        ([], [
            "routing.algorithm is 'em' there and 'dynamic' here",
            "routing.minimum_variance is 0.01 there and None here",
        ]),
        (["--routing", "uniform"], ["routing.algorithm is 'em' there and 'uniform' here"]),
        ([*BY_EM, "--routing.num-iterations", "3"], ["num_iterations is 2 there and 3 here"]),
    ],
    ids=["none given", "another", "another choice"],
)  # fmt: skip
def test_a_run_with_another_routing_is_refused_with_the_difference_named(
    options: list[str], differences: list[str], by_em: Path, few: Path, refused: Callable[..., str]
) -> None:
    before = (by_em / "config.json").read_bytes()
    said = refused("train", *SMALL, *options, "--dataset", few, "--workdir", by_em)
    for difference in differences:
        assert f"{difference}" in said
    assert "--workdir" in said
    assert (by_em / "config.json").read_bytes() == before


# Two digits in an image


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run on MultiMNIST, made of a few digits."""
    workdir = tmp_path_factory.mktemp("pairs") / "run"
    base = {"train": digits(60), "test": digits(24, "test")}
    whole = data.find("multi_mnist")
    few = dataclasses.replace(
        whole,
        sizes={"train": 60, "test": 24},
        base=base.__getitem__,
        read=lambda split: made.sample(whole.made._replace(seed=1), base[split]),
    )
    with (
        pytest.MonkeyPatch.context() as patch,
        compiled_once(tmp_path_factory.getbasetemp() / "compiled"),
    ):
        patch.setitem(data.DATASETS, "multi_mnist", lambda: few)
        arguments = [*SMALL, "--limit", "40", "--dataset", "multi_mnist", "--layer-metrics"]
        assert dispatch(["train", *arguments, "--workdir", str(workdir)]) == 0
        yield workdir


def test_two_digits_train_to_a_whole_run_directory(pairs: Path) -> None:
    summary = json.loads((pairs / "summary.json").read_text())
    assert summary["settings"]["classes_per_image"] == 2
    assert summary["test_images"] == 24
    assert 0 <= summary["test_digit_error"] <= summary["test_error"] <= 1
    # Of the pictures only the confusion matrix has no meaning.
    drawn = sorted(path.stem for path in (pairs / "figures").glob("*.png"))
    assert drawn == ["learning_curves", "mistakes", "reconstructions"]
    [first, *_] = (pairs / "metrics.jsonl").read_text().splitlines()
    assert {"gradient_norm/classes", "dead_share/0", "activation_p95/0"} <= set(json.loads(first))


def test_two_digits_are_evaluated_by_sets_and_one_by_one(
    pairs: Path, capsjax_command: Command
) -> None:
    summary = json.loads((pairs / "summary.json").read_text())
    said = capsjax_command("evaluate", pairs, "--json")
    assert (said.status, said.err) == (0, "")
    found = json.loads(said.out)
    assert found["confusion"] is None
    assert (found["error"], found["digit_error"]) == (
        summary["test_error"],
        summary["test_digit_error"],
    )
    first, second, _, header, *rows = capsjax_command("evaluate", pairs).out.splitlines()
    assert f"{found['error']:.2%}" in first
    assert second == f"{found['digit_error']:.2%} of all single digits missed"
    assert header.split() == ["class", "images", "error"]
    assert sum(int(row.split()[1]) for row in rows) == 48


def test_two_digits_of_an_image_file_are_named(
    pairs: Path, tmp_path: Path, capsjax_command: Command
) -> None:
    picture = data.find("multi_mnist").load("test")["image"][0, ..., 0]
    Image.fromarray(picture).save(tmp_path / "pair.png")
    [row] = json.loads(capsjax_command("predict", pairs, tmp_path / "pair.png", "--json").out)
    best = sorted(row["activations"], key=lambda name: -row["activations"][name])[:2]
    assert row["class"] == best
    assert row["activation"] == [row["activations"][name] for name in best]
    table = capsjax_command("predict", pairs, tmp_path / "pair.png").out.splitlines()
    assert table[1].split()[1:3] == best


# Networks without capsules


@dataclasses.dataclass(frozen=True)
class PlainConfig:
    width: int = 4


class Plain(nnx.Module):
    """One linear map of all pixels."""

    def __init__(self, config: PlainConfig, *, image_shape: Any, num_classes: int, rngs: nnx.Rngs):
        self.config, self.image_shape, self.num_classes = config, image_shape, num_classes
        self.linear = nnx.Linear(math.prod(image_shape), num_classes, rngs=rngs)

    def __call__(self, images: Any, targets: Any = None, **options: Any) -> Output:
        logits = self.linear(images.reshape(len(images), -1))
        return Output(None, jax.nn.softmax(logits), None, (), logits)


PLAIN = Model(
    Plain, PlainConfig(), "a test", (), training={"loss": {"kind": "cross_entropy"}, "shift": 0}
)


def test_a_network_without_a_routing_has_no_options_for_one(
    few: Path,
    tmp_path: Path,
    capsjax_command: Command,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(models.MODELS, "plain", PLAIN)
    shown = capsjax_command("train", "--model", "plain", "--help").out
    assert "--model.width" in shown
    assert "--routing" not in shown
    for words in (["--routing", "em"], ["--routing.num-iterations", "3"], ["--routing=em"]):
        said = refused("train", "--model", "plain", *words)
        assert f"plain has no capsules to route: leave {words[0]} out" in said
    workdir = tmp_path / "run"
    options = ["--model.width", 3, "--epochs", 30, "--batch-size", 20, "--validation", 20]
    said = capsjax_command(
        "train", "--model", "plain", "--dataset", few, *options, "--workdir", workdir,
        "--learning-rate", 0.01, "--weight-decay", 0.001, "--gradient-clip", 5,
    )  # fmt: skip
    assert said.status == 0, said.err
    settings = capsjax.load(workdir).settings
    assert settings.model_config == PlainConfig(3)
    assert (settings.training.loss.kind, settings.training.shift) == ("cross_entropy", 0)
    assert (settings.training.weight_decay, settings.training.gradient_clip) == (0.001, 5.0)
    history = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    train = [entry["loss"] for entry in history if entry["split"] == "train"]
    assert train[-1] < 0.3 * train[0]
    assert not (workdir / "figures" / "reconstructions.png").exists()


# Recipes


def test_a_recipe_is_trained_tested_and_predicted_with(
    few: Path,
    pictures: list[Path],
    tmp_path: Path,
    capsjax_command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(models.MODELS, "plain", PLAIN)
    workdir = tmp_path / "run"
    said = capsjax_command(
        "train", "--model", "plain", "--dataset", few, "--recipe", "translated_mnist_sabour",
        "--epochs", 1, "--batch-size", 20, "--validation", 20, "--workdir", workdir,
    )  # fmt: skip
    assert said.status == 0, said.err
    summary = json.loads((workdir / "summary.json").read_text())
    settings = summary["settings"]
    assert (settings["image_shape"], settings["data_shape"]) == ([40, 40, 1], [28, 28, 1])
    found = json.loads(capsjax_command("evaluate", workdir, "--json").out)
    assert found["error"] == summary["test_error"]
    rows = json.loads(capsjax_command("predict", workdir, *pictures, "--json").out)
    # By hand: 6 dark pixels on every side of the digits, to [0, 1].
    images = np.pad(digits(5, "test")["image"], ((0, 0), (6, 6), (6, 6), (0, 0))) / 255
    network: Any = capsjax.load(workdir).model
    expected = network(images.astype(np.float32)).activations
    for row, activations in zip(rows, expected, strict=True):
        np.testing.assert_allclose(list(row["activations"].values()), activations, rtol=1e-4)


OWN = """
from dataclasses import dataclass

from capsjax.routing import uniform

SOURCE, READOUT = "a test", "length"
init = uniform.init


@dataclass(frozen=True)
class Config:
    divisor: float = 4.0


def route(votes, children=None, params=None, config=Config(), **options):
    return uniform.route(votes / config.divisor, **options)
"""


def test_a_routing_of_the_user_s_own_trains_from_where_its_file_is(
    few: Path, pictures: list[Path], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    (here / "theirs").mkdir(parents=True)
    (here / "theirs" / "own.py").write_text(OWN)
    script = tmp_path / "bin" / "capsjax"
    script.parent.mkdir()
    # As pip writes it for an entry point.
    script.write_text("import sys\nfrom capsjax.__main__ import main\nsys.exit(main())\n")
    cache = cache_environment(tmp_path / "compiled")
    workdir = tmp_path / "run"
    said = in_a_process(
        "train", *SMALL, "--dataset", few, "--workdir", workdir, "--routing", "theirs.own",
        "--routing.divisor", 3, cwd=here, **cache,
    )  # fmt: skip
    assert said.status == 0, said.err
    summary = json.loads((workdir / "summary.json").read_text())
    expected = {"algorithm": "theirs.own", "divisor": 3.0}
    assert json.loads((workdir / "config.json").read_text())["model_config"]["routing"] == expected
    assert summary["settings"]["model_config"]["routing"] == expected
    said = in_a_process("evaluate", workdir, "--json", start=(script,), cwd=here, **cache)
    assert said.status == 0, said.err
    assert json.loads(said.out)["error"] == summary["test_error"]
    said = in_a_process("predict", workdir, pictures[0], cwd=here, **cache)
    assert said.status == 0, said.err
    assert said.out.splitlines()[1].startswith(str(pictures[0]))
    # Where its file is not, it cannot be known.
    said = in_a_process("evaluate", workdir, start=(script,), cwd=tmp_path, **cache)
    assert (said.status, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    assert "'theirs.own'" in said.err


FIELD = "    divisor: float = 4.0\n"
SLIPS = {
    "a slip of the pen": (OWN + "def route(:", ["syntax", "slip.py"]),
    "a name that there is not": (OWN + "squsah", ["squsah"]),
    "an import that there is not": (OWN + "import nowhere_at_all", ["nowhere_at_all"]),
    "no config": (OWN.replace("class Config", "class Choices"), ["Config"]),
    "a field without a default": (OWN.replace(FIELD, "    divisor: float\n"), ["divisor"]),
    "another's config": (OWN + "from capsjax.routing.em import Config", ["capsjax.routing.em"]),
}


@pytest.mark.parametrize("what", SLIPS)
def test_a_slip_in_a_routing_of_the_user_s_own_gets_one_line(
    what: str, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, parts = SLIPS[what]
    (tmp_path / "slip.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slip", raising=False)
    said = refused("train", "--routing", "slip", "--workdir", tmp_path / "run")
    sys.modules.pop("slip", None)
    for part in (*parts, "'slip'"):
        assert part in said
    assert not (tmp_path / "run").exists()


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
    "train --routing nope": ["'nope'", "dynamic, em, variational_bayes", "of your own"],
    "train --routing json": ["json is no routing", "Config, init, route"],
    "train --routing capsjax.ops.squash": ["capsjax.ops.squash is no routing", "route"],
    "train --routing .em": ["'.em'", "dynamic, em"],
    "train --routing": ["--routing"],
    "train --routing --epochs 3": ["--routing"],
    "train --routing em --routing.leaky": ["--routing.leaky"],
    "train --routing uniform --routing.num-iterations 3": ["--routing.num-iterations"],
    "train --routing em --routing.num-iterations 0": ["num_iterations is 0", "at least 1"],
    "train --routing em --routing.num-iterations two": ["--routing.num-iterations", "'two'"],
    "train --routing em --routing.minimum-variance -1": ["minimum_variance is -1", "positive"],
    "train --routing em --routing.semantics code": ["'code'", "official"],
    "train --routing.num-iterations -1": ["num_iterations is -1"],
    "train --routing.loop.unroll -1": ["unroll is -1"],
    "train --routing.loop.tolerance 0.001": ["tolerance", "last_iteration"],
    "train --routing random_coupling --routing.seed -1": ["seed is -1"],
    "train --model.routing em": ["--model.routing"],
    "train --model.routing.leaky": ["--model.routing.leaky"],
    "evaluate": ["run directory"],
    "evaluate missing": ["missing", "config.json", "capsjax train"],
    "evaluate missing --split": ["--split"],
    "predict": ["run directory"],
    "predict missing": ["no image given"],
    "predict missing image.png": ["missing", "config.json"],
    "models --jsn": ["--jsn"],
    "routings --jsn": ["--jsn"],
    "routings em": ["em"],
    "train --dataset multi_mnist --recipe mnist_sabour": ["'mnist_sabour'", "made anew"],
    "train --recipe cifar10_sabour": ["28x28", "'cifar10_sabour'", "32x32"],
    "train --recipe cifar": ["unknown recipe 'cifar'", "cifar10_sabour"],
    "train --weight-decay -1": ["weight_decay is -1"],
    "train --gradient-clip 0": ["gradient_clip is 0"],
    "train --loss.kind hinge": ["'hinge'", "spread"],
    "train --loss.margin-steps 0": ["margin_steps is 0"],
    "train --dataset kmnist --feed disk": ["disk"],
    "datasets extra": ["extra"],
    "datasets prepare": ["as listed by capsjax datasets"],
    "datasets prepare mnits": ["mnits", "expected one of"],
    "datasets verify missing": ["missing", "expected one of"],
    "datasets show mnist --split left": ["left", "train, test"],
    "datasets show mnist --count 0": ["count is 0"],
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
    said = refused("train", "--dataset", tmp_path / "own.npz")
    assert "own.npz is not a readable .npz file (it is no archive of arrays, or" in said
    with (tmp_path / "own.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    assert "it holds a single array" in refused("train", "--dataset", tmp_path / "own.npz")
    np.savez(tmp_path / "own.npz", image=np.array([None]), label=np.zeros(1))
    said = refused("train", "--dataset", tmp_path / "own.npz")
    assert "of Python's objects" in said
    assert "allow_pickle" not in said
    gc.collect()


@pytest.mark.core
def test_fewer_images_than_a_batch_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    own = write_npz(tmp_path / "own.npz", labels=np.arange(100) % 2)
    said = refused("train", "--dataset", own, "--workdir", tmp_path / "run")
    # Unless asked for, a tenth of the user's own images validates.
    assert "90 images less 9 for" in said
    assert "batch of 128" in said
    assert "(--validation, --batch-size)" in said
    command = ["train", "--dataset", own, "--workdir", tmp_path / "run"]
    for asked in (["--validation", 50], ["--validation=50"]):
        assert "90 images less 50 for" in refused(*command, *asked)


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


def in_a_process(
    *arguments: Any,
    start: Sequence[Any] = ("-m", "capsjax"),
    cwd: Path | None = None,
    **environment: str,
) -> Said:
    done = subprocess.run(
        [sys.executable, *map(str, start), *map(str, arguments)],
        cwd=cwd,
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
    said = refused("predict", trained, tmp_path / "missing.png")
    assert f"{tmp_path / 'missing.png'}': No such file or directory" in said
    assert "Errno" not in said
    assert "broken.png" in refused("predict", trained, pictures[0], broken)
    assert "notes.txt" in refused("predict", trained, text)
    said = refused("predict", trained, large)
    assert "32 wide and 30 high" in said
    assert "28" in said
    assert str(tmp_path) in refused("predict", trained, tmp_path)


def test_a_picture_goes_through_a_link_and_into_no_pipe_s_place(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "picture.png")
    write(Figure(), tmp_path / "link.png", dpi=10)
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path, tmp_path / "pipe.png"):
        with pytest.raises(ValueError, match=f"{path} is a folder or a device, expected"):
            write(Figure(), path, dpi=10)
    assert len(list(tmp_path.iterdir())) == 3


# How a run ends otherwise


@pytest.mark.core
@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (FloatingPointError("the loss is nan at step 7"), 1, "capsjax: the loss is nan at step 7"),
        (KeyboardInterrupt(), 130, "capsjax: stopped; the same command goes on"),
        (SystemExit(143), 143, "capsjax: stopped; the same command goes on"),
        (OSError(28, "No space left on device"), 2, "capsjax: No space left on device"),
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
        assert capsjax_command("routings").err == ""
