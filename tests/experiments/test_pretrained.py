"""The package's own networks are made from runs that have a result, and from no others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capsjax import pretrained as box
from capsjax.pretrained import card as cards
from experiments import pretrained
from experiments.pretrained import NETWORKS, Source


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A result of the experiment "made" and the folder of its run, which holds its settings."""
    card = box.describe("efficient_capsnet_mnist")
    settings = card.to_json()["settings"]
    result = {
        "seed": 0,
        "config": {**settings, "tested": 5, "test_images": 5},
        "metrics": {"test_errors": 1, "test_images": 5},
        **card.trained,
    }
    (tmp_path / "results" / "made" / "laptop").mkdir(parents=True)
    (tmp_path / "results" / "made" / "laptop" / "one.json").write_text(json.dumps(result))
    run = tmp_path / "runs" / "made" / "laptop" / "one"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(settings))
    (tmp_path / "box").mkdir()
    return tmp_path


@pytest.fixture
def make(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes ``own`` of it; what the package exports is noted and stands for the file."""

    def export(workdir: Path, path: Path, **options: Any) -> cards.Card:
        path.write_bytes(b"0" * 100)
        (place / "noted.json").write_text(json.dumps({"workdir": str(workdir), **options}))
        card = box.describe("efficient_capsnet_mnist")
        return cards.Card(**{**vars(card), "size": 100})

    monkeypatch.setattr(box, "export", export)

    def call(source: Source = Source("made", "laptop", "one", "float16")) -> Path:
        return pretrained.make(
            "own",
            source,
            workdir=place / "runs",
            results=place / "results",
            folder=place / "box",
        )

    return call


def test_the_result_tells_how_it_was_trained(
    make: Callable[..., Path], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make()
    assert path == place / "box" / "own.safetensors"
    noted = json.loads((place / "noted.json").read_text())
    assert noted["workdir"] == str(place / "runs" / "made" / "laptop" / "one")
    assert noted["dtype"] == "float16"
    assert noted["provenance"]["command"] == (
        "python -m experiments.made --preset laptop --only one"
    )
    assert noted["provenance"]["commit"] == "9751c3e4d959d7a4eac4130d64bd6a01a6a72c65"
    assert "43 of 10,000 wrong as stored, 1 of 5 after the training" in capsys.readouterr().out


def test_runs_without_a_result_or_of_other_settings_are_refused(
    make: Callable[..., Path], place: Path
) -> None:
    with pytest.raises(ValueError, match=r"two\.json is not there: made has to be run"):
        make(Source("made", "laptop", "two"))
    config = place / "runs" / "made" / "laptop" / "one" / "config.json"
    config.write_text(config.read_text().replace('"epochs": 15', '"epochs": 16'))
    with pytest.raises(ValueError, match="was trained with other settings"):
        make()
    config.unlink()
    with pytest.raises(ValueError, match="not a run directory"):
        make()
    assert not any((place / "box").iterdir())


@pytest.mark.parametrize("limit", ["LARGEST", "LARGEST_TOGETHER"])
def test_files_that_are_too_large_are_refused(
    make: Callable[..., Path], place: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    (place / "box" / "other.safetensors").write_bytes(b"0" * 60)
    monkeypatch.setattr(pretrained, limit, {"LARGEST": 99, "LARGEST_TOGETHER": 159}[limit])
    with pytest.raises(ValueError, match="16 bits"):
        make()
    assert [path.name for path in (place / "box").iterdir()] == ["other.safetensors"]
    monkeypatch.setattr(pretrained, limit, {"LARGEST": 100, "LARGEST_TOGETHER": 160}[limit])
    make()


def test_every_source_names_a_run_of_an_experiment() -> None:
    for source in NETWORKS.values():
        assert source.command(0).startswith("python -m experiments.")
        assert (Path(pretrained.__file__).parent / f"{source.experiment}.py").exists()
