"""Every experiment of a published claim in its smoke preset, and what they all share."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from capsjax import data
from capsjax.serial import to_json
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
        assert "|" not in "".join([line.why, *line[:3], *(line.brief or ())])
        assert all(line[:3])
        assert line.brief is None or all(line.brief)

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


def own(tmp_path, **options):
    """An experiment's study whose runs stay in the test's folder."""
    return study.Study("own", "smoke", tmp_path / "results", tmp_path / "runs", **options)


def test_a_result_of_other_choices_is_not_mixed_in(tmp_path):
    def asked(epochs):
        return own(tmp_path).run("a", lambda folder: {"e": epochs}, seed=0, config={"e": epochs})

    assert asked(1) == {"e": 1}
    assert asked(1) == {"e": 1}
    with pytest.raises(ValueError, match=r"a\.json is of a run with other choices: remove it and"):
        asked(2)
    (tmp_path / "results" / "own" / "smoke" / "a.json").unlink()
    with pytest.raises(ValueError, match=r"a was begun with other choices: remove it and"):
        asked(2)  # the training that it left is not gone on with either
    assert asked(1) == {"e": 1}


def test_a_field_that_a_config_got_since_is_at_its_default(tmp_path):
    def asked(**options):
        chosen = training.settings(data.find("mnist"), "capsnet", seed=0, **options)
        config = {"extra": 1, "settings": to_json(chosen)}
        return own(tmp_path).run("a", lambda folder: {"error": 1}, seed=0, config=config)

    asked()
    for name in ("results/own/smoke/a.json", "runs/own/smoke/a-starts.json"):
        path = tmp_path / name
        values = json.loads(path.read_text())
        del values.get("choices", values)["config"]["settings"]["training"]["votes_at_once"]
        path.write_text(json.dumps(values))
    assert asked() == {"error": 1}
    with pytest.raises(ValueError, match="other choices"):
        asked(votes_at_once=4)
    (tmp_path / "results/own/smoke/a.json").unlink()
    with pytest.raises(ValueError, match="begun with other choices"):
        asked(votes_at_once=4)
    assert asked() == {"error": 1}


def test_a_training_that_breaks_down_does_not_stop_the_others(monkeypatch, tmp_path, capsys):
    def breaks(folder):
        raise FloatingPointError("the loss is nan at step 3")

    def run(config, study):
        study.run("a", breaks, seed=0, config={})
        study.run("b", lambda folder: {"error": 0.5}, seed=0, config={})

    made_up(monkeypatch, {}).run = run
    study.find("own").__doc__, study.find("own").draw = "Own.", lambda results: {}
    folders = ["--results", str(tmp_path / "results"), "--workdir", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["own", "--preset", "laptop", *folders])
    with pytest.raises(SystemExit, match="own: a broke down"):
        study.main("own")
    assert "a broke down: the loss is nan at step 3" in capsys.readouterr().err
    assert set(study.load("own", "laptop", tmp_path / "results")) == {"b"}


def test_a_result_names_the_commits_of_all_starts(tmp_path, monkeypatch):
    def stopped(folder):
        raise KeyboardInterrupt

    def at(commit, work):
        monkeypatch.setattr(study, "_provenance", lambda: {"commit": commit, "dirty": False})
        return own(tmp_path).run("a", work, seed=0, config={})

    for commit in ("first", "first", "second"):
        with pytest.raises(KeyboardInterrupt):
            at(commit, stopped)
    at("third", lambda folder: {"error": 0.5})
    result = json.loads((tmp_path / "results" / "own" / "smoke" / "a.json").read_text())
    assert (result["commit"], result["commits"]) == ("third", ["first", "second", "third"])


def test_only_the_runs_asked_for_are_done(tmp_path):
    ended = []
    one = own(tmp_path, only=["b"], seeds=[1], ended=lambda: ended.append(1))
    for run, seed in [("a", 1), ("b", 0), ("b", 1)]:
        found = one.run(run, lambda folder: {"error": 1}, seed=seed, config={})
        assert (found is None) == ((run, seed) != ("b", 1))
    assert [path.name for path in one.folder_of_results.iterdir()] == ["b.json"]
    assert len(ended) == 1


@pytest.mark.parametrize("options", [("--only", "seed-9"), ("--seed", 9)])
def test_what_is_not_there_is_refused(command, options):
    with pytest.raises(SystemExit, match=r"mazzia21_mnist has no .*: there are seed-0, seed-1"):
        command("mazzia21_mnist", *options)


def made_up(monkeypatch, runs):
    """An experiment of these runs, each with its error, in place of all others."""

    def run(config, study):
        for name, error in runs.items():
            study.run(name, lambda folder, error=error: {"error": error}, seed=0, config={})

    module = SimpleNamespace(
        PRESETS={"laptop": None},
        run=run,
        lines=lambda results: [
            study.Line(name, "0.26 %", study.share(result["metrics"]["error"]))
            for name, result in results.items()
        ],
    )
    monkeypatch.setattr(study, "NAMES", ("own",))
    monkeypatch.setattr(study, "find", lambda name: module)
    return module


def test_the_table_has_a_row_for_every_line(tmp_path, monkeypatch):
    module = made_up(monkeypatch, {"b": 0.004, "a": 0.003})
    module.run(None, study.Study("own", "laptop", tmp_path, tmp_path / "runs"))
    rows = report.table(tmp_path).splitlines()[2:]
    assert rows == [
        "| own | b | 0.26 % | 0.40 % | laptop |  |",
        "| own | a | 0.26 % | 0.30 % | laptop |  |",
    ]


def test_a_result_of_no_run_of_the_preset_is_refused(tmp_path, monkeypatch):
    made_up(monkeypatch, {"a": 0.1, "b": 0.2}).run(
        None, study.Study("own", "laptop", tmp_path, tmp_path / "runs")
    )
    made_up(monkeypatch, {"a": 0.1})
    with pytest.raises(ValueError, match=r"b\.json is of no run of this preset"):
        report.table(tmp_path)


@pytest.mark.parametrize("name", study.NAMES)
def test_nothing_is_drawn_and_reported_of_no_results(name):
    module = study.find(name)
    assert module.draw({}) == {}
    assert module.lines({}) == []


def test_wrong_images_are_kept_as_text():
    wrong = np.random.default_rng(0).random(1003) < 0.3
    metrics = json.loads(json.dumps({"wrong": training.packed(wrong), "test_images": 1003}))
    assert (training.wrong_images(metrics) == wrong).all()


def test_errors_of_one_seed_have_wilson_s_interval():
    runs = [{"test_error": 0.0031, "test_error_interval_95": [0.0022, 0.0044]}]
    assert study.errors(runs) == "0.31 % (0.22 to 0.44), one seed"


def test_shares_name_every_seed_and_their_interval():
    # By hand: mean 0.4, standard deviation 0.1, t quantile 4.303 of 2 degrees of freedom.
    assert study.shares([0.003, 0.004, 0.005]) == "0.40 % (0.15 to 0.65); seeds 0.30, 0.40, 0.50"
    assert study.shares([0.003]) == "0.30 % (one seed)"


def test_the_readme_has_the_table_of_the_committed_results():
    text = report.README.read_text()
    assert report.between_marks(text, report.table()) == text


def test_the_project_s_readme_has_the_main_lines():
    text = report.SHORT_README.read_text()
    short = report.short_table()
    assert report.between_marks(text, short, report.SHORT_MARKS) == text
    told = {row.rpartition(" | ")[2].strip("` |") for row in short.splitlines()[2:]}
    assert told == {name for name in study.NAMES if study.load(name, "laptop")}
    for claim in (
        "Efficient-CapsNet on MNIST", "3 Efficient-CapsNets", "CapsNet on MNIST", "novel azimuths",
        "novel elevations", "accuracy on synthetic affine_mnist, capsules",
        "accuracy on synthetic affine_mnist, shared", "pairs of overlapping digits",
        "30 training images", "1,000 training images", "CapsNet, 1 iteration",
        "CapsNet, random coupling", "Efficient-CapsNet with 8 routings",
        "mnist: accuracy under PGD", "mnist: accuracy under black-box FGSM",
        "mnist: accuracy of capsules under the vote attack", "dimensions of class capsules",
        "small CapsNet, capsules in 1 layer", "small CapsNet, capsules in 4 layers, test",
        "small CapsNet, capsules in 4 layers, bias", "CIFAR-10",
    ):  # fmt: skip
        assert f"\n| {claim}" in short


def test_a_text_without_marks_is_refused():
    with pytest.raises(ValueError, match="has no <!-- report"):
        report.between_marks("nothing", "a table")
