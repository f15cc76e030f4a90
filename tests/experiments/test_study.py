"""Every experiment of a published claim in its smoke preset, and what they all share."""

import json
import re
import sys

import numpy as np
import pytest

from experiments import report, study, training


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Call an experiment's command line with these options."""

    def call(name, *options):
        folders = ("--results", tmp_path / "results", "--workdir", tmp_path / "runs")
        words = ["experiment", "--preset", "smoke", *folders, *options]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        study.main(name)

    return call


@pytest.mark.parametrize("name", study.NAMES)
def test_an_experiment_runs_to_its_end_and_goes_on_from_there(name, command, tmp_path, capsys):
    command(name)
    folder = tmp_path / "results" / name / "smoke"
    results = study.load(name, "smoke", tmp_path / "results")
    assert results
    for run, result in results.items():
        assert result["experiment"] == name
        assert result["run"] == run
        assert {"seed", "config", "commit", "versions", "seconds"} <= set(result)
        assert result["metrics"]
    assert list(folder.glob("*.png"))
    module = study.find(name)
    lines = module.lines(results)
    assert lines
    for line in lines:
        assert "|" not in "".join(line)
        assert line.what
        assert line.paper
        assert line.ours

    before = {path: path.read_bytes() for path in folder.glob("*.json")}
    capsys.readouterr()
    command(name)
    assert {path: path.read_bytes() for path in folder.glob("*.json")} == before
    assert "smoke: " not in capsys.readouterr().out  # nothing was done again


@pytest.mark.parametrize("name", study.NAMES)
def test_an_experiment_says_what_it_claims_and_what_it_takes(name):
    module = study.find(name)
    assert set(module.PRESETS) == {"smoke", "laptop", "full"}
    for word in ("Claim:", "Source:", "Protocol:", "Expected:", "Time:"):
        assert word in module.__doc__
    assert f"python -m experiments.{name} --preset laptop" in module.__doc__


def test_a_result_of_other_choices_is_not_mixed_in(tmp_path):
    def asked(epochs):
        one = study.Study("own", "smoke", tmp_path / "own", tmp_path / "runs")
        return one.run("a", lambda folder: {"error": epochs}, seed=0, config={"epochs": epochs})

    assert asked(1) == {"error": 1}
    assert asked(1) == {"error": 1}
    with pytest.raises(ValueError, match=r"a\.json is of a run with other choices: remove it"):
        asked(2)


def test_only_the_runs_asked_for_are_done(tmp_path):
    one = study.Study("own", "smoke", tmp_path, tmp_path, only=["b"], seeds=[1])
    for run, seed in [("a", 1), ("b", 0), ("b", 1)]:
        found = one.run(run, lambda folder: {"error": 1}, seed=seed, config={})
        assert (found is None) == ((run, seed) != ("b", 1))
    assert [path.name for path in (tmp_path / "smoke").iterdir()] == ["b.json"]


def test_an_unknown_run_is_refused(command):
    with pytest.raises(SystemExit, match=r"mazzia21_mnist has no run 'seed-9', expected one of: "):
        command("mazzia21_mnist", "--only", "seed-9")


def test_wrong_images_are_kept_as_text():
    wrong = np.random.default_rng(0).random(1003) < 0.3
    metrics = json.loads(json.dumps({"wrong": training.packed(wrong), "test_images": 1003}))
    assert (training.wrong_images(metrics) == wrong).all()


def test_shares_name_every_seed_and_their_interval():
    # By hand: mean 0.4, standard deviation 0.1, t quantile 4.303 of 2 degrees of freedom.
    assert study.shares([0.003, 0.004, 0.005]) == "0.40 % (0.15 to 0.65); seeds 0.30, 0.40, 0.50"
    assert study.shares([0.003]) == "0.30 % (one seed)"


def test_the_readme_has_the_table_of_the_committed_results():
    text = report.README.read_text()
    assert report.between_marks(text, report.table()) == text


def test_a_text_without_marks_is_refused():
    with pytest.raises(ValueError, match="has no <!-- report"):
        report.between_marks("nothing", "a table")


def test_the_table_has_a_row_for_every_line(tmp_path, monkeypatch):
    one = study.Study("mazzia21_mnist", "laptop", tmp_path / "mazzia21_mnist", tmp_path)
    metrics = {"test_error": 0.004, "epochs": 15, "test_error_interval_95": [0.003, 0.005]}
    for seed in (0, 1):
        one.run(f"seed-{seed}", lambda folder: dict(metrics), seed=seed, config={})
    rows = report.table(tmp_path).splitlines()
    assert len(rows) == 3
    assert re.fullmatch(r"\| mazzia21_mnist \| .* \| 0\.26 % .* \| laptop \| .* \|", rows[2])
