"""Every experiment runs to its end in its smallest form and writes what it names."""

import dataclasses
import importlib
import json
import pkgutil
import sys
from pathlib import Path

import pytest

from capsjax import routing
from experiments import benchmarks, routing_convergence, routing_toy
from experiments.benchmarks import growth
from experiments.benchmarks import routing as routing_benchmark
from experiments.benchmarks import seeds as seeds_benchmark


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Run an experiment's ``main`` in an empty directory with these options."""

    def run(main, *options):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["experiment", *map(str, options)])
        main()

    return run


def test_routing_convergence_in_its_smoke_preset(call, tmp_path, capsys):
    call(routing_convergence.main, "--preset", "smoke", "--results", tmp_path)
    report = json.loads((tmp_path / "routing_convergence.json").read_text())
    assert set(report["votes"]) == {"clustered", "unclustered", "trained"}
    for rows in report["votes"].values():
        assert len(rows) == 8
        for name, row in rows.items():
            assert 0 <= row["default"]["polarisation"] <= 1 + 1e-6
            assert ("iterations" in row) == (name in ITERATIVE)
    assert len(report["error_by_iterations"]) == report["config"]["iterations"]
    assert len(list((tmp_path / "routing_convergence").glob("*.png"))) == 14
    printed = capsys.readouterr().out
    assert printed.count("\n| ") >= 24

    call(routing_convergence.main, "--table", "--results", tmp_path)
    assert capsys.readouterr().out in printed


ITERATIVE = {"dynamic", "em", "variational_bayes", "inverted_attention"}


def test_the_toy_is_drawn(call, tmp_path):
    call(routing_toy.main, "--results", tmp_path)
    assert (tmp_path / "routing_toy.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    "name",
    [
        module.name
        for module in pkgutil.iter_modules(benchmarks.__path__)
        if not module.name.startswith(("torch_", "keras_"))  # want what is not installed here
    ],
)
def test_every_benchmark_finds_what_it_imports(name):
    module = importlib.import_module(f"{benchmarks.__name__}.{name}")
    assert module.__doc__


def test_growth_is_1_where_time_and_memory_are_linear():
    def row(size):
        part = {"seconds": 2.0 * size, "temporary_megabytes": 3.0 * size**2}
        return {"routing": "em", "axis": "batch", "size": size, "forward": part, "backward": part}

    found = growth.growth([row(10), row(100), row(200)])["em"]["batch"]
    assert found["forward_seconds"] == pytest.approx(1)
    assert found["backward_temporary_megabytes"] == pytest.approx(2)


def test_growth_is_measured_of_every_routing_and_drawn(capsys):
    config = dataclasses.replace(growth.QUICK, sizes={"children": (4, 8)})
    rows = growth.run(config)
    assert {row["routing"] for row in rows} == set(routing.ALGORITHMS)
    assert all(row["backward"]["seconds"] > 0 for row in rows)
    figure = growth.draw(rows)
    above, below = figure.axes
    assert len(above.lines) == len(below.lines) == 8
    em = next(line for line in below.lines if line.get_label() == "em")
    wanted = [r["backward"]["temporary_megabytes"] for r in rows if r["routing"] == "em"]
    assert list(em.get_ydata()) == wanted
    assert "children" in capsys.readouterr().out


def test_a_pass_and_an_iteration_are_measured():
    config = routing_benchmark.Config(batch=2, children=16, rounds=1)
    assert routing_benchmark.passes(config)["seconds_per_pass"] > 0


def test_readme_shows_the_committed_table():
    root = Path(__file__).parents[2]
    path = root / "experiments" / "results" / "routing_convergence.json"
    assert (
        routing_convergence.table(json.loads(path.read_text()))
        in (root / "experiments" / "convergence.md").read_text()
    )


def test_seeds_are_measured_in_both_forms(call, tmp_path, capsys):
    call(seeds_benchmark.main, "--preset", "smoke", "--results", tmp_path)
    row = json.loads((tmp_path / "seeds.json").read_text())["networks"]["narrow"]
    seconds = row["seconds"]
    assert row["speed_of_vmap"] == pytest.approx(seconds["one after another"] / seconds["vmap"])
    assert "one after another" in capsys.readouterr().out
