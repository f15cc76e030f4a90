"""The networks in the package: they state what was measured, and it is measured again."""

import configparser
import json
import math
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capsjax
from capsjax import pretrained
from capsjax.training.settings import settings_of
from experiments import study
from experiments.pretrained import NETWORKS
from experiments.training import wrong_images
from tests.training.small import digits

FOLDER = Path(pretrained.__file__).parent


def result_of(name: str) -> dict[str, Any]:
    source = NETWORKS[name]
    path = study.RESULTS / source.experiment / source.preset / f"{source.run}.json"
    return json.loads(path.read_text())


def of_all(metrics: dict[str, Any]) -> dict[str, Any]:
    """Those of a test in parts have the whole test set's under "all"."""
    return {**metrics, **metrics.get("all", {})}


@pytest.mark.core
def test_every_network_that_experiments_make_is_there_and_no_other() -> None:
    assert pretrained.names() == sorted(NETWORKS)
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.suffix != ".py"}
    files.pop("__pycache__", None)
    assert set(files) == {f"{name}.safetensors" for name in NETWORKS}
    assert all(size <= 20e6 for size in files.values())
    assert sum(files.values()) <= 40e6


def test_the_files_are_package_data() -> None:
    config = configparser.ConfigParser()
    assert config.read(Path(__file__).parents[2] / "setup.cfg")
    [pattern] = config["options.package_data"]["capsjax.pretrained"].split()
    assert all(fnmatch(f"{name}.safetensors", pattern) for name in NETWORKS)


@pytest.mark.core
@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_says_what_the_experiment_s_result_says(name: str) -> None:
    card, result = pretrained.describe(name), result_of(name)
    source, metrics = NETWORKS[name], of_all(result["metrics"])
    assert card.name == name
    beside = ("tested", "test_images")
    wanted = {key: value for key, value in result["config"].items() if key not in beside}
    # A choice that came later is at its default in both.
    assert card.settings == settings_of(wanted)
    command = f"python -m experiments.{source.experiment} --preset {source.preset} "
    assert card.command.removeprefix(command) in (
        f"--only {source.run}",
        f"--seed {result['seed']}",
    )
    for key in ("commit", "dirty", "finished", "versions", "python", "platform"):
        assert card.trained[key] == result[key]
    assert card.trained["dirty"] is card.tested.code["dirty"] is False
    assert len(card.tested.code["commit"]) == 40
    assert card.parameters == metrics["parameters"]
    assert card.settings.training.seed == result["seed"]
    assert card.dtype == (source.dtype or "float32")
    # Rounded numbers may turn a few images.
    allowed = 0 if source.dtype is None else metrics["test_images"] // 1000
    assert card.tested.images == metrics["test_images"]
    assert abs(card.tested.errors - metrics["test_errors"]) <= allowed
    assert card.tested.error == card.tested.errors / card.tested.images


@pytest.mark.core
def test_the_stated_interval_is_wilson_s() -> None:
    tested = pretrained.describe("efficient_capsnet_mnist").tested
    p, n, z = 43 / 10_000, 10_000, 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert tested.interval_95 == pytest.approx((centre - half, centre + half), rel=1e-9)


@pytest.mark.core
def test_a_network_predicts_and_reconstructs_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever the folder holds: the name is of the package.
    (tmp_path / "efficient_capsnet_mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    network = capsjax.load_pretrained("efficient_capsnet_mnist")
    images = digits(5, "test")["image"]
    found = network.predict(images, reconstruct=True)
    assert found.labels.tolist() == [7, 2, 1, 0, 4]
    assert found.reconstructions is not None
    # Nearer to its image than to any other.
    apart = ((found.reconstructions[:, None] - images[None] / 255.0) ** 2).mean((2, 3, 4))
    assert apart.argmin(1).tolist() == list(range(5))
    assert np.diagonal(apart).max() < 0.03


def test_of_the_first_thousand_images_those_are_wrong_that_were() -> None:
    name = "efficient_capsnet_mnist"
    thousand = digits(1000, "test")
    said = capsjax.load_pretrained(name).predict(thousand["image"]).labels
    before = wrong_images(result_of(name)["metrics"])[:1000]
    assert before.sum() == 4
    assert ((said != thousand["label"]) != before).sum() <= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_evaluate_reproduces_the_stated_error(name: str, command: Any) -> None:
    said = command("evaluate", name, "--json")
    assert (said.status, said.err) == (0, "")
    found, metrics = json.loads(said.out), of_all(result_of(name)["metrics"])
    assert found["reproduced"] is True
    assert found["images"] == found["stated_images"] == metrics["test_images"]
    assert abs(found["errors"] - found["stated_errors"]) <= 2
    if found["same_platform"]:
        assert found["errors"] == found["stated_errors"]
