"""Files of one's own runs: what comes back, rounded or not, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import capsjax
from capsjax import pretrained, weights
from capsjax.pretrained import card as cards
from capsjax.training import run
from tests.pretrained.conftest import Finished
from tests.training.small import assert_same_bits, parameters


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "own.safetensors"
    pretrained.export(finished.workdir, path)
    return path


# What comes back


def test_the_file_says_what_the_run_s_summary_says(finished: Finished, exported: Path) -> None:
    card = pretrained.describe(exported)
    summary = json.loads((finished.workdir / "summary.json").read_text())
    assert card.name == "own"
    assert card.settings == run.read_settings(finished.workdir)
    assert card.settings.training.seed == 3
    assert card.command == "capsjax train --seed 3"
    for key in ("commit", "dirty", "finished", "versions", "python", "platform"):
        assert card.trained[key] == summary[key]
    assert card.parameters == summary["parameters"]
    assert (card.tested.errors, card.tested.images) == (summary["test_errors"], 40)
    assert card.tested.error == summary["test_errors"] / 40
    assert list(card.tested.interval_95) == summary["test_error_interval_95"]
    assert card.tested.digit_error is None
    assert (card.dtype, card.size) == ("float32", exported.stat().st_size)
    # A reader of the format alone finds the same.
    with safetensors.safe_open(exported, framework="numpy") as file:
        said = json.loads(file.metadata()["metadata"])
    assert said["settings"]["dataset"] == summary["dataset"]
    assert said["tested"]["errors"] == summary["test_errors"]


def test_the_loaded_network_is_that_of_the_run(finished: Finished, exported: Path) -> None:
    expected, found = capsjax.load(finished.workdir), capsjax.load_pretrained(exported)
    assert found.settings == expected.settings
    assert_same_bits(parameters(found.model), parameters(expected.model))
    images = finished.test["image"]
    np.testing.assert_array_equal(
        found.predict(images).activations, expected.predict(images).activations
    )


def test_a_loaded_network_is_ready_to_be_called(finished: Finished, exported: Path) -> None:
    found: Any = capsjax.load_pretrained(exported)
    before = jax.tree.map(np.array, parameters(found.model))
    images = finished.test["image"]
    activations = found.model(jnp.asarray(images / 255.0, jnp.float32)).activations
    # Neither does a batch's statistics decide, nor does a call change the running ones.
    np.testing.assert_allclose(activations, found.predict(images).activations, atol=1e-5)
    assert_same_bits(parameters(found.model), before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_weights_are_tested_as_they_are_stored(
    finished: Finished, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    tested = []
    evaluate = run.Run.evaluate

    def noted(self: run.Run, *arguments: Any, **options: Any) -> Any:
        tested.append(parameters(self.model))
        return evaluate(self, *arguments, **options)

    monkeypatch.setattr(run.Run, "evaluate", noted)
    path = tmp_path / "half.safetensors"
    card = pretrained.export(finished.workdir, path, dtype=dtype)
    assert card.dtype == dtype
    # Rounded by hand: to the nearest number of that type.
    graph, state = nnx.split(capsjax.load(finished.workdir).model)
    rounded = jax.tree.map(
        lambda x: np.asarray(x).astype(jnp.dtype(dtype)).astype(np.float32), state
    )
    by_hand = run.Run(nnx.merge(graph, rounded), card.settings)
    [of_test] = tested
    found = capsjax.load_pretrained(path)
    assert_same_bits(of_test, parameters(by_hand.model))
    assert_same_bits(parameters(found.model), parameters(by_hand.model))
    said = found.predict(finished.test["image"])
    assert card.tested.errors == (said.labels != finished.test["label"]).sum()
    whole = capsjax.load(finished.workdir).predict(finished.test["image"])
    step = {"bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
    apart = np.abs(said.activations - whole.activations).max()
    assert 0 < apart < 20 * step
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    whole_header = 8 + int.from_bytes(exported.read_bytes()[:8], "little")
    assert (card.size - header) * 2 == exported.stat().st_size - whole_header


# What is found


def test_a_path_that_is_there_comes_before_a_name(
    finished: Finished, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = pretrained.names()[0]
    opened = pretrained.find(name)
    assert opened.card is not None
    assert opened.card.settings.dataset == "mnist"
    shutil.copytree(finished.workdir, tmp_path / name)
    opened = pretrained.find(name)
    assert opened.card is None
    assert opened.run.settings == run.read_settings(finished.workdir)
    shutil.rmtree(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"{name} is not a run directory.* hides .*: rename it"):
        pretrained.find(name)
    opened = pretrained.find(exported)
    assert opened.card == pretrained.describe(exported)


def test_names_that_are_none_are_refused_with_those_that_are() -> None:
    listed = ", ".join(pretrained.names())
    for call in (capsjax.load_pretrained, pretrained.describe, pretrained.find):
        with pytest.raises(ValueError, match=f"nowhere.*one of: {listed}"):
            call("nowhere")


def test_as_many_errors_as_stated_here_and_two_more_or_less_elsewhere(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = replace(pretrained.describe(exported).tested, errors=10, images=40)
    counts = range(6, 15)
    assert [n for n in counts if tested.reproduced(n, 40)] == [10]
    assert not tested.reproduced(10, 39)
    here = pretrained.here()
    for key, other in (("processors", 999), ("jaxlib", "0.0"), ("vectors", "none")):
        monkeypatch.setattr(cards, "here", lambda changed={**here, key: other}: changed)
        assert [n for n in counts if tested.reproduced(n, 40)] == [8, 9, 10, 11, 12]


# What is refused


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.workdir, tmp_path / "run"))


def without_its_last_epoch(workdir: Path) -> None:
    log = workdir / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    assert '"validation"' in lines[-1]
    log.write_text("".join(lines[:-1]))


def to_more_epochs(workdir: Path) -> None:
    config = json.loads((workdir / "config.json").read_text())
    config["training"]["epochs"] = 3
    del config["sha256"]  # as a person is told to who changes it
    (workdir / "config.json").write_text(json.dumps(config))


UNFINISHED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "an epoch is missing": (without_its_last_epoch, r"not at its end \(1 of 2 epochs\)"),
    "more epochs were asked for": (to_more_epochs, r"not at its end \(2 of 3 epochs\)"),
    "nothing was trained": (lambda run: (run / "metrics.jsonl").unlink(), r"\(0 of 2 epochs\)"),
    "it was not tested": (lambda run: (run / "summary.json").unlink(), "no summary.json of its"),
    "it is no run": (lambda run: (run / "config.json").unlink(), "not a run directory"),
}


@pytest.mark.parametrize("what", UNFINISHED)
def test_a_run_that_is_not_at_its_end_is_refused(what: str, copied: Path, tmp_path: Path) -> None:
    spoil, said = UNFINISHED[what]
    spoil(copied)
    path = tmp_path / "own.safetensors"
    path.write_text("as before")
    with pytest.raises(ValueError, match=said):
        pretrained.export(copied, path)
    assert path.read_text() == "as before"


def test_paths_and_provenance_that_cannot_be_used_are_refused(
    finished: Finished, tmp_path: Path
) -> None:
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    for path, said in (
        (tmp_path / "own.npz", "does not end in .safetensors"),
        (tmp_path / "nowhere" / "own.safetensors", "there is no folder .*nowhere"),
        (folder, "is a folder"),
    ):
        with pytest.raises(ValueError, match=said):
            pretrained.export(finished.workdir, path)
    given = {"command": "mine", "commit": None, "dirty": None}
    with pytest.raises(ValueError, match="the training's finished, versions, python, platform"):
        pretrained.export(finished.workdir, tmp_path / "own.safetensors", provenance=given)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.safetensors"]


def test_a_file_whose_test_fails_is_not_written(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **options: Any) -> Any:
        raise OSError("interrupted")

    monkeypatch.setattr(run.Run, "evaluate", fails)
    with pytest.raises(OSError, match="interrupted"):
        pretrained.export(finished.workdir, tmp_path / "own.safetensors")
    assert not any(tmp_path.iterdir())


def test_files_without_what_export_puts_in_are_refused(exported: Path, tmp_path: Path) -> None:
    network = weights.load(exported)
    said = weights.read_metadata(exported)["metadata"]
    path = tmp_path / "other.safetensors"
    weights.save(path, network)
    with pytest.raises(ValueError, match=r"has no settings, command, .*capsjax\.weights\.load"):
        capsjax.load_pretrained(path)
    for changed, reason in (
        ({"tested": {}}, "interval_95"),
        ({"tested": {**said["tested"], "colour": 1}}, "colour"),
        ({"tested": [1]}, "does not fit this version"),
        ({"settings": {**said["settings"], "colour": 1}}, "unknown fields: colour"),
        ({"settings": {**said["settings"], "class_names": ["0"]}}, "1 names for 10 classes"),
    ):
        weights.save(path, network, metadata={**said, **changed})
        with pytest.raises(ValueError, match=f"does not fit this version.*{reason}|{reason}"):
            pretrained.describe(path)


def test_damaged_files_and_those_of_others_are_refused(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3)}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="not one of capsjax"):
        capsjax.load_pretrained(path)
    content = bytearray(exported.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its checksum is not"):
        capsjax.load_pretrained(path)
    path.write_bytes(exported.read_bytes()[:-100])
    for call in (capsjax.load_pretrained, pretrained.describe, pretrained.find):
        with pytest.raises(ValueError, match="damaged"):
            call(path)
