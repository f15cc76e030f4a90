"""A run that was stopped, however, and resumed equals one that was never stopped, to the bit."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from capsjax.training import loop, metric_log
from capsjax.training.checkpoint import Checkpoints
from capsjax.training.metric_log import MetricLog
from tests.training.small import (
    Level,
    assert_same_bits,
    cache_environment,
    flat_images,
    narrow_network,
    parameters,
    saved_digits,
)

DATA = flat_images(range(10, 250, 20), label=0)
DATA["label"][-2:] = 1
OPTIONS = {
    "epochs": 3,
    "batch_size": 2,
    "validation": 2,
    "learning_rate": 0.1,
    "schedule": "recipe",
    "checkpoint_every": 2,
    "shift": 1,
}
STEPS = 15


def fit(workdir: Path | None, **changes: Any) -> loop.Result:
    return loop.fit(Level(), DATA, loop.Config(**{**OPTIONS, **changes}), workdir=workdir)


def assert_same_runs(found: loop.Result, expected: loop.Result) -> None:
    assert_same_bits(found.state, expected.state)
    assert_same_bits(parameters(found.model), parameters(expected.model))
    assert found.history == expected.history
    assert found.validation_error == expected.validation_error
    assert found.steps == expected.steps


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[loop.Result, Path]:
    workdir = tmp_path_factory.mktemp("undisturbed")
    return fit(workdir), workdir


def at_step(step: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something when the metrics of a step arrive."""
    write = MetricLog.write

    def watch(self: MetricLog, now: int, split: str, values: dict[str, float]) -> None:
        if (now, split) == (step, "train"):
            act()
        write(self, now, split, values)

    monkeypatch.setattr(MetricLog, "write", watch)


class Broken(Exception):
    pass


def break_down() -> None:
    raise Broken


@pytest.mark.core
@pytest.mark.parametrize("step", [1, 2, 3, 5, 6, 10, 14, 15])
def test_a_run_broken_at_any_step_resumes_to_the_same_bits(
    tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patch:
        at_step(step, break_down, patch)
        with pytest.raises(Broken):
            fit(tmp_path)
    assert_same_runs(fit(tmp_path), undisturbed[0])
    assert (tmp_path / "metrics.jsonl").read_text() == (
        undisturbed[1] / "metrics.jsonl"
    ).read_text()


def test_a_run_broken_many_times_resumes_to_the_same_bits(
    tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (3, 6, 7, 11):
        with monkeypatch.context() as patch:
            at_step(step, break_down, patch)
            with pytest.raises(Broken):
                fit(tmp_path)
    assert_same_runs(fit(tmp_path), undisturbed[0])


@pytest.mark.core
@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_saves_at_once_and_the_run_resumes_to_the_same_bits(
    tmp_path: Path,
    undisturbed: Any,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    kind: type[BaseException],
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        at_step(7, lambda: os.kill(os.getpid(), number), patch)
        with pytest.raises(kind) as stop:
            fit(tmp_path)
    if kind is SystemExit:
        assert stop.value.code == 143  # type: ignore[attr-defined]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    # The metrics of step 7 arrive while step 8 runs, which is then the last one done.
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest in (7, 8)
    checkpoints.close()
    assert_same_runs(fit(tmp_path), undisturbed[0])


def test_without_a_work_directory_sigint_is_python_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    at_step(3, lambda: os.kill(os.getpid(), signal.SIGINT), monkeypatch)
    # A shell's background processes start with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(None)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.core
def test_a_finished_run_is_left_as_it_is(tmp_path: Path, undisturbed: Any) -> None:
    first = fit(tmp_path)
    content = (tmp_path / "metrics.jsonl").read_text()
    again = fit(tmp_path)
    assert_same_runs(again, first)
    assert (tmp_path / "metrics.jsonl").read_text() == content
    assert again.seconds == pytest.approx(first.seconds, rel=1e-6)


@pytest.mark.core
def test_more_epochs_go_on_to_the_bits_of_one_straight_run(
    tmp_path: Path, undisturbed: Any
) -> None:
    for epochs in (1, 2, 3):
        result = fit(tmp_path, epochs=epochs)
        assert result.steps == 5 * epochs
    assert_same_runs(result, undisturbed[0])


def test_more_epochs_of_a_cosine_continue_its_steps(tmp_path: Path) -> None:
    fit(tmp_path, epochs=1, schedule="cosine")
    result = fit(tmp_path, epochs=2, schedule="cosine")
    assert int(result.state.step) == result.steps == 10
    train = [entry["step"] for entry in result.history if entry["split"] == "train"]
    assert train == list(range(1, 11))


def test_fewer_epochs_than_done_are_refused_and_the_run_is_kept(
    tmp_path: Path, undisturbed: Any
) -> None:
    fit(tmp_path)
    with pytest.raises(ValueError, match=r"run of 15 steps, more than the 5 of epochs=1"):
        fit(tmp_path, epochs=1)
    assert_same_runs(fit(tmp_path), undisturbed[0])


@pytest.mark.core
@pytest.mark.parametrize("change", ["config", "labels", "pixels", "size"])
def test_a_work_directory_of_another_config_or_other_data_is_refused(
    tmp_path: Path, change: str
) -> None:
    fit(tmp_path, epochs=1)
    before = (tmp_path / "metrics.jsonl").read_text()
    data = {name: value.copy() for name, value in DATA.items()}
    if change == "labels":
        data["label"][0] = 2
    elif change == "pixels":
        data["image"][0, 0, 0] += 1
    elif change == "size":
        data = {name: value[1:] for name, value in data.items()}
    rate = 0.2 if change == "config" else 0.1
    config = loop.Config(**{**OPTIONS, "learning_rate": rate})
    with pytest.raises(ValueError, match="another config or of other data"):
        loop.fit(Level(), data, config, workdir=tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def tied(workdir: Path, monkeypatch: pytest.MonkeyPatch | None = None) -> loop.Result:
    """Every epoch ends with the validation error 1/10, which has no exact binary form."""
    levels = np.array([255] * 14)
    data = flat_images(levels, label=0)
    data["label"][-1] = 1
    config = loop.Config(
        **{**OPTIONS, "validation": 10, "learning_rate": 0.01, "checkpoint_every": 100}
    )
    if monkeypatch is not None:
        with monkeypatch.context() as patch:
            at_step(5, break_down, patch)
            with pytest.raises(Broken):
                loop.fit(Level(), data, config, workdir=workdir)
    return loop.fit(Level(), data, config, workdir=workdir)


@pytest.mark.core
def test_epochs_of_equal_error_resume_to_the_same_best_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = tied(tmp_path / "straight")
    errors = [entry["error"] for entry in straight.history if entry["split"] == "validation"]
    assert errors == [0.1, 0.1, 0.1]
    assert_same_runs(tied(tmp_path / "broken", monkeypatch), straight)


@pytest.mark.core
def test_of_epochs_of_equal_error_the_returned_one_is_the_checkpoint_called_best(
    tmp_path: Path,
) -> None:
    result = tied(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    kept = loop.restore(Level(), loop.Config(**OPTIONS), checkpoints, checkpoints.best)
    checkpoints.close()
    assert_same_bits(parameters(kept), parameters(result.model))


# Processes of their own, through the command line

COMMAND = shlex.split(
    "train --model.features 8 --model.kernel-size 3 --model.primary-types 2 "
    "--model.decoder-widths 16 --epochs 3 --batch-size 20 --validation 20 --schedule recipe "
    "--learning-rate 0.002 --checkpoint-every 1 --dataset digits.npz --workdir run"
)
CONFIG = loop.Config(epochs=3, batch_size=20, validation=20, schedule="recipe", learning_rate=2e-3)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cache = cache_environment(tmp_path_factory.getbasetemp() / "compiled")
    return {**os.environ, **cache, "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def straight(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> tuple[Path, Path]:
    """A folder with digits.npz, and in it ``run``, trained without disturbance."""
    folder = tmp_path_factory.mktemp("straight")
    saved_digits(folder / "digits.npz", 100, 50)
    process = start(folder, environment)
    assert process.wait(300) == 0, (folder / "stderr").read_text()
    return folder, folder / "run"


def start(folder: Path, environment: dict[str, str]) -> subprocess.Popen:
    with (folder / "stderr").open("w") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "capsjax", *COMMAND],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )


def beside(straight: tuple[Path, Path], folder: Path) -> Path:
    (folder / "digits.npz").symlink_to(straight[0] / "digits.npz")
    return folder


def steps_saved(folder: Path) -> int:
    names = [path.name for path in (folder / "run" / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def wait_for_step(process: subprocess.Popen, folder: Path, step: int) -> None:
    while steps_saved(folder) < step and process.poll() is None:
        time.sleep(0.002)


def assert_same_directories(found: Path, expected: Path) -> None:
    states = []
    for workdir in (found, expected):
        checkpoints = Checkpoints(workdir / "checkpoints")
        assert checkpoints.latest == 12
        networks = [
            loop.restore(narrow_network(), CONFIG, checkpoints, step)
            for step in (checkpoints.latest, checkpoints.best)
        ]
        states.append(([parameters(network) for network in networks], checkpoints.best))
        checkpoints.close()
    assert_same_bits(*(networks for networks, _ in states))
    assert states[0][1] == states[1][1]
    logs = [(workdir / "metrics.jsonl").read_text() for workdir in (found, expected)]
    assert logs[0] == logs[1]
    summaries = [
        json.loads((workdir / "summary.json").read_text()) for workdir in (found, expected)
    ]
    for name in ("test_error", "validation_error", "steps", "settings", "command"):
        assert summaries[0][name] == summaries[1][name], name


def test_sigint_exits_130_and_sigterm_143_and_the_run_resumes_to_the_same_bits(
    tmp_path: Path, straight: tuple[Path, Path], environment: dict[str, str]
) -> None:
    folder = beside(straight, tmp_path)
    for number, status, step in ((signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 6)):
        process = start(folder, environment)
        wait_for_step(process, folder, step)
        process.send_signal(number)
        assert process.wait(120) == status
        said = (folder / "stderr").read_text().splitlines()
        assert said[-1] == "capsjax: stopped; the same command goes on from the last save"
        assert "Traceback" not in "".join(said)
        assert step <= steps_saved(folder) < 12
    assert start(folder, environment).wait(300) == 0
    assert_same_directories(folder / "run", straight[1])


def test_kills_at_random_moments_resume_to_the_same_bits(
    tmp_path: Path, straight: tuple[Path, Path], environment: dict[str, str]
) -> None:
    folder, chance = beside(straight, tmp_path), random.Random()
    for step in (1, 4, 8):
        process = start(folder, environment)
        wait_for_step(process, folder, step)
        # A step with its checkpoint takes some tens of milliseconds.
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.wait(60)
    assert start(folder, environment).wait(300) == 0, (folder / "stderr").read_text()
    assert_same_directories(folder / "run", straight[1])


@pytest.mark.slow
def test_thirty_kills_at_any_moment_resume_to_the_same_bits(
    tmp_path: Path, straight: tuple[Path, Path], environment: dict[str, str]
) -> None:
    folder, chance = beside(straight, tmp_path), random.Random()
    for _ in range(30):
        process = start(folder, environment)
        try:
            process.wait(chance.uniform(0.5, 8))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)
    assert start(folder, environment).wait(300) == 0, (folder / "stderr").read_text()
    assert_same_directories(folder / "run", straight[1])


def test_a_log_cut_short_by_a_kill_is_completed(tmp_path: Path, undisturbed: Any) -> None:
    at_most_two_epochs = fit(tmp_path, epochs=2)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 11, "split": "tr')
    assert int(jax.device_get(at_most_two_epochs.state.step)) == 10
    assert_same_runs(fit(tmp_path), undisturbed[0])
    assert metric_log.read(path) == undisturbed[0].history
