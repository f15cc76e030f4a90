"""What all experiments share: runs that are kept as soon as they end, and the command line.

An experiment is a file with a ``Config``, its ``PRESETS``, ``run(config, study)``, which does every
run through ``study.run``, and, both made from the results alone, ``draw(results)`` for its figures
and ``lines(results)`` for the report. A run is one training, or one measurement of something
trained: its result is one JSON file, written when it ends and read instead of doing it again.
Trainings are kept in the work directory, where a stopped one goes on.
"""

import argparse
import datetime
import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from capsjax.analysis.statistics import mean_interval
from capsjax.training.json_file import write_json
from capsjax.training.provenance import surroundings

RESULTS = Path(__file__).parent / "results"
WORKDIR = Path("runs") / "experiments"

# The experiments of published claims, in the order of the report.
NAMES = ("mazzia21_mnist", "sabour17_mnist", "hinton18_adversarial")

# By the runs' names, what their files hold: the metrics under "metrics".
Results = Mapping[str, dict[str, Any]]


class Line(NamedTuple):
    """A line of the report.

    Attributes:
        what: was measured.
        paper: its number, "reported" where it was not seen in the paper itself.
        ours: every seed, mean and interval.
        why: the two differ, or what the difference is worth.
    """

    what: str
    paper: str
    ours: str
    why: str = ""


@dataclass
class Study:
    """One experiment in one preset: where its runs and their results are.

    Attributes:
        name: of the experiment.
        preset: whose config it has.
        results: the folder of this experiment's results, its own and no other's.
        workdir: for what the trainings keep.
        only: names of the runs to do; all if empty.
        seeds: take only runs of these; all if empty.
    """

    name: str
    preset: str
    results: Path
    workdir: Path
    only: Sequence[str] = ()
    seeds: Sequence[int] = ()
    known: list[str] = field(default_factory=list)

    def run(
        self, run: str, work: Callable[[Path], dict[str, Any]], *, seed: int, config: Any
    ) -> dict[str, Any] | None:
        """Do a run, unless its result is there.

        Args:
            run: its name.
            work: does it in the folder that it is given, which it may have begun in before, and
                returns the metrics, JSON values. "seconds" among them is the time that it took,
                earlier starts included; else the time of this call is taken.
            seed: that it starts from.
            config: its choices, JSON values.

        Returns:
            The metrics; None if the run was not asked for and is not there.

        Raises:
            ValueError: the result that is there is of another config.
        """
        self.known.append(run)
        path = self.results / self.preset / f"{run}.json"
        choices = json.loads(json.dumps({"seed": seed, "config": config}))
        if path.exists():
            there = json.loads(path.read_text())
            if {name: there[name] for name in choices} != choices:
                raise ValueError(
                    f"{path} is of a run with other choices: remove it, or give other --results"
                )
            return there["metrics"]
        if (self.only and run not in self.only) or (self.seeds and seed not in self.seeds):
            return None
        print(f"{self.name}, {self.preset}: {run}", flush=True)
        before, start = surroundings(), time.monotonic()
        metrics = work(self.folder(run))
        seconds = metrics.pop("seconds", time.monotonic() - start)
        path.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "experiment": self.name,
            "preset": self.preset,
            "run": run,
            **choices,
            "metrics": metrics,
            "seconds": round(seconds, 1),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **before,
        }
        write_json(path, result)
        print(f"{path}: {_short(metrics)}, {seconds:.0f} s", flush=True)
        return json.loads(path.read_text())["metrics"]

    def folder(self, run: str) -> Path:
        """Where a run keeps its training."""
        return self.workdir / self.name / self.preset / run


def share(value: float, interval: Sequence[float] | None = None) -> str:
    """A share in percent, with its interval."""
    if interval is None:
        return f"{100 * value:.2f} %"
    return f"{100 * value:.2f} % ({100 * interval[0]:.2f} to {100 * interval[1]:.2f})"


def shares(values: Sequence[float]) -> str:
    """Every seed's share in percent, their mean, and its interval over seeds."""
    mean, interval = mean_interval(values)
    if interval is None:
        return f"{share(mean)} (one seed)"
    each = ", ".join(f"{100 * value:.2f}" for value in values)
    return f"{share(mean, interval)}; seeds {each}"


def _short(metrics: dict[str, Any]) -> str:
    numbers = [
        f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, float | int)
    ]
    return ", ".join(numbers[:8])


def load(name: str, preset: str, results: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The results of one preset of an experiment, by the runs' names.

    Args:
        name: of the experiment.
        preset: which.
        results: folder of all experiments' results.

    Returns:
        Every file's content, in the order of the names; empty if there are none.
    """
    files = sorted((results / name / preset).glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in files}


def find(name: str) -> Any:
    """The module of an experiment."""
    return importlib.import_module(f"experiments.{name}")


def main(name: str) -> None:
    """The command line of an experiment.

    Args:
        name: of its file, as in ``NAMES``.
    """
    module = find(name)
    title = module.__doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{name}", description=title)
    parser.add_argument("--preset", choices=module.PRESETS, required=True)
    parser.add_argument("--only", metavar="RUN", action="append", help="may be given repeatedly")
    parser.add_argument("--seed", type=int, action="append", help="only runs of this; repeatedly")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for what is written")
    parser.add_argument("--workdir", type=Path, default=WORKDIR, help="where trainings are kept")
    options = parser.parse_args()
    study = Study(
        name,
        options.preset,
        options.results / name,
        options.workdir,
        options.only or (),
        options.seed or (),
    )
    try:
        module.run(module.PRESETS[options.preset], study)
    except ValueError as error:
        sys.exit(f"{name}: {error}")
    if unknown := set(study.only) - set(study.known):
        sys.exit(f"{name} has no run {min(unknown)!r}, expected one of: {', '.join(study.known)}")
    results = load(name, options.preset, options.results)
    for picture, figure in module.draw(results).items():
        figure.savefig(study.results / study.preset / f"{picture}.png", dpi=110)
    for line in module.lines(results):
        print(f"{line.what}: paper {line.paper}; ours {line.ours}")
