"""``capsjax figures`` draws what a network has, and says why where it has not."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from capsjax import data, pretrained
from capsjax.cli import pictures
from capsjax.models import efficient_capsnet
from capsjax.training import Config, run
from tests.pretrained.conftest import Finished

WITHOUT = {"separated": "images do not show two classes"}


def test_every_picture_of_a_run_is_drawn(finished: Finished, command: Any, tmp_path: Path) -> None:
    other = shutil.copytree(finished.workdir, tmp_path / "other" / finished.workdir.name)
    said = command(
        "figures", finished.workdir, "--folder", tmp_path / "out", "--beside", other, "--json"
    )
    assert (said.status, said.err) == (0, "")
    found = json.loads(said.out)
    assert found["without"] == WITHOUT
    parts = {
        "perturbations": ("primary", "classes"),
        "feature_maps": ("convolutions_0", "convolutions_1", "convolutions_2"),
        "dead_capsules": ("primary", "classes"),
    }
    wanted = {
        f"{name}_{part}" if part else name
        for name in pictures.PICTURES
        if name not in WITHOUT
        for part in parts.get(name, ("",))
    }
    assert set(found["pictures"]) == wanted
    for path in map(Path, found["pictures"].values()):
        assert path.parent == tmp_path / "out"
        assert path.read_bytes().startswith(b"\x89PNG")


def test_two_networks_of_one_name_are_told_apart(
    finished: Finished, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(
        pictures, "PICTURES", {"calibration": lambda s: drawn.append(s) or Figure()}
    )
    other = shutil.copytree(finished.workdir, tmp_path / "other" / finished.workdir.name)
    folder = ["--folder", tmp_path / "out"]
    assert command("figures", finished.workdir, *folder, "--beside", other).status == 0
    (subject,) = drawn
    assert subject.name == finished.workdir.name
    assert subject.beside[0] == f"other/{subject.name}"
    said = command("figures", finished.workdir, *folder, "--beside", finished.workdir)
    assert "the network itself: give another one" in said.err


def test_a_file_of_weights_has_no_learning_curves(
    finished: Finished, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "PICTURES", {"learning_curves": pictures._learning_curves})
    monkeypatch.chdir(tmp_path)
    command("export", finished.workdir, tmp_path / "own.safetensors")
    said = command("figures", "own.safetensors")
    assert said.out == "not drawn: learning_curves, there is no metrics.jsonl beside the network\n"
    monkeypatch.setattr(pictures, "PICTURES", {"architecture": pictures._architecture})
    assert command("figures", "own.safetensors").out == "figures/own/architecture.png\n"


def test_pairs_of_digits_are_drawn_in_colours() -> None:
    settings = run.settings_for(
        data.find("multi_mnist"),
        name="multi_mnist",
        model="efficient_capsnet",
        model_config=efficient_capsnet.Config(
            features=(4, 8), kernel_sizes=(5, 3), strides=(4, 2), decoder_widths=(8,)
        ),
        training=Config(),
    )
    network = run.Run(settings.create(), settings)
    arrays = {key: value[:20] for key, value in data.load("multi_mnist", "test").items()}
    subject = pictures.Subject(
        "pairs", network, arrays, network.evaluate(arrays, reconstruct=True), ()
    )
    found = dict(pictures.drawn(subject))
    left_out = {name for name, made in found.items() if isinstance(made, pictures.Without)}
    assert left_out == {
        "learning_curves", "confusion", "calibration", "confidence_by_angle", "error_by_angle",
        "equivariance", "adversarial",
    }  # fmt: skip
    assert len(found["separated"].axes) == 4 * 12


def test_bad_input_is_named(finished: Finished, command: Any, tmp_path: Path) -> None:
    said = command("figures", finished.workdir, "--image", 40)
    assert (said.status, said.out) == (2, "")
    assert "--image is 40, expected 0 to 39" in said.err
    other = tmp_path / "other"
    said = command("figures", other)
    assert said.status == 2
    assert "neither a run directory" in said.err
    assert not other.exists()


def test_a_network_of_other_classes_is_not_drawn_beside(
    finished: Finished, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pretrained.find(finished.workdir)

    def find(where: Any) -> Any:
        if str(where) != "other":
            return found
        settings = vars(found.run.settings) | {"class_names": ("a", "b")}
        return pretrained.Opened(run.Run(found.run.model, run.Settings(**settings)), None)

    monkeypatch.setattr(pretrained, "find", find)
    said = command("figures", finished.workdir, "--beside", "other")
    assert said.status == 2
    assert "--beside other takes classes ('a', 'b')" in said.err
