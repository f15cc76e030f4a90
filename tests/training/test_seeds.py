"""Several seeds: which runs are asked for, what they are put together to, what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import integrate

from capsjax.training import seeds
from tests.training.test_run import SETTINGS, TRAINING

ERRORS = {3: 0.031, 4: 0.028, 5: 0.034}
FIRST = replace(SETTINGS, training=replace(TRAINING, seed=3))


class Runs:
    """Stands in for training: remembers what was asked for, knows every seed's error."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Path]] = []

    def __call__(self, settings: Any, workdir: Path) -> dict[str, Any]:
        seed = settings.training.seed
        assert settings == replace(FIRST, training=replace(FIRST.training, seed=seed))
        self.asked.append((seed, workdir))
        workdir.mkdir(parents=True, exist_ok=True)
        return {
            "seed": seed,
            "test_error": ERRORS[seed],
            "test_error_interval_95": [0.0, 0.1],
            "test_errors": 31,
            "test_images": 1000,
            "validation_error": 2 * ERRORS[seed],
            "seconds": 10.0 * seed,
            "images_per_second": 100.0,
            "parameters": 77,
            "steps": 8,
        }


def read(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "summary.json").read_text())


def t_density(x: float, freedom: int) -> float:
    """Not normalised."""
    return (1 + x * x / freedom) ** (-(freedom + 1) / 2)


def test_every_seed_has_a_run_and_the_summary_their_mean_and_interval(tmp_path):
    one = Runs()
    found = seeds.train(FIRST, tmp_path / "new", 3, one, command="as typed")
    assert one.asked == [(seed, tmp_path / "new" / f"seed-{seed}") for seed in (3, 4, 5)]
    assert found["test_error"] == pytest.approx(0.031)
    assert found["validation_error"] == pytest.approx(0.062)
    assert (found["seconds"], found["parameters"], found["command"]) == (120.0, 77, "as typed")
    assert {run["seed"]: run["test_error"] for run in found["runs"]} == ERRORS
    low, high = found["test_error_interval_95"]
    assert (low + high) / 2 == pytest.approx(0.031)
    # In standard errors of the mean: 95 % of Student's density lie between the ends.
    end = (high - 0.031) / (np.std(list(ERRORS.values()), ddof=1) / 3**0.5)
    whole = integrate.quad(t_density, -np.inf, np.inf, args=(2,))[0]
    assert integrate.quad(t_density, -end, end, args=(2,))[0] / whole == pytest.approx(0.95)
    written = read(tmp_path / "new")
    assert len(written.pop("sha256")) == 64
    assert written == json.loads(json.dumps(found))


def test_a_finished_command_leaves_its_summary_and_more_seeds_replace_it(tmp_path):
    seeds.train(FIRST, tmp_path, 2, Runs(), command="")
    before = (tmp_path / "summary.json").read_bytes()
    seeds.train(FIRST, tmp_path, 2, Runs(), command="another time")
    assert (tmp_path / "summary.json").read_bytes() == before
    seeds.train(FIRST, tmp_path, 3, Runs(), command="")
    assert read(tmp_path)["seeds"] == [3, 4, 5]


def test_one_seed_has_no_interval(tmp_path):
    assert seeds.train(FIRST, tmp_path, 1, Runs(), command="")["test_error_interval_95"] is None


def test_a_damaged_summary_is_written_anew(tmp_path):
    seeds.train(FIRST, tmp_path, 2, Runs(), command="")
    path = tmp_path / "summary.json"
    wanted = read(tmp_path)["test_error"]
    for broken in ("{", path.read_text().replace(f'"test_error": {wanted}', '"test_error": 0.5')):
        path.write_text(broken)
        again = seeds.train(FIRST, tmp_path, 2, Runs(), command="")
        assert again["test_error"] == read(tmp_path)["test_error"] == wanted
        assert read(tmp_path)["seeds"] == [3, 4]


def test_a_breakdown_names_its_seed_and_writes_no_summary(tmp_path):
    def breaks(settings: Any, workdir: Path) -> dict[str, Any]:
        if settings.training.seed == 4:
            raise FloatingPointError("the loss is nan")
        return Runs()(settings, workdir)

    with pytest.raises(FloatingPointError, match="seed 4: the loss is nan"):
        seeds.train(FIRST, tmp_path, 3, breaks, command="")
    assert [path.name for path in tmp_path.iterdir()] == ["seed-3"]


@pytest.mark.parametrize("count", [0, -2])
def test_fewer_than_one_seed_are_refused(count, tmp_path):
    with pytest.raises(ValueError, match=f"seeds is {count}, expected at least 1"):
        seeds.train(FIRST, tmp_path, count, Runs(), command="")


def test_seeds_past_the_largest_are_refused_before_anything_is_trained(tmp_path):
    one = Runs()
    last = replace(SETTINGS, training=replace(TRAINING, seed=2**32 - 1))
    with pytest.raises(ValueError, match="seed is 4294967296"):
        seeds.train(last, tmp_path, 2, one, command="")
    assert not one.asked


@pytest.mark.parametrize(
    ("name", "message"),
    [("config.json", "a run of one seed"), ("notes.txt", r"more than runs of several.*notes.txt")],
)
def test_a_directory_of_something_else_is_refused(name, message, tmp_path):
    (tmp_path / name).write_text("{}")
    one = Runs()
    with pytest.raises(ValueError, match=message):
        seeds.train(FIRST, tmp_path, 2, one, command="")
    with pytest.raises(ValueError, match="Not a directory"):
        seeds.train(FIRST, tmp_path / name, 2, one, command="")
    assert not one.asked
