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
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from capsjax.analysis.statistics import mean_interval
from capsjax.serial import to_json
from capsjax.training.json_file import write_json
from capsjax.training.provenance import surroundings
from capsjax.training.settings import Settings, settings_of

RESULTS = Path(__file__).parent / "results"
WORKDIR = Path("runs") / "experiments"

# The experiments of published claims, in the order of the report.
NAMES = (
    "mazzia21_mnist",
    "sabour17_mnist",
    "hinton18_viewpoint",
    "sabour17_affnist",
    "sabour17_multimnist",
    "data_efficiency",
    "routing_iterations",
    "routing_shootout",
    "hinton18_adversarial",
    "capsule_dimensions",
    "depth",
    "cifar10",
)

# By the runs' names, what their files hold: the metrics under "metrics".
Results = Mapping[str, dict[str, Any]]


class Brief(NamedTuple):
    """A line of the project's README.

    Attributes:
        claim: what is compared, in a few words.
        paper: its number or its word.
        ours: without seeds; a control's number after "against".
    """

    claim: str
    paper: str
    ours: str


class Line(NamedTuple):
    """A line of the report.

    Attributes:
        what: was measured.
        paper: its number, "reported" where it was not seen in the paper itself.
        ours: every seed, mean and interval.
        why: the two differ, or what the difference is worth.
        brief: what README says of it; None leaves it out there.
    """

    what: str
    paper: str
    ours: str
    why: str = ""
    brief: Brief | None = None


@dataclass
class Study:
    """One experiment in one preset: where its runs and their results are.

    Attributes:
        name: of the experiment.
        preset: whose config it has.
        results: the folder of all experiments' results.
        workdir: for what the trainings keep.
        only: names of the runs to do; all if empty.
        seeds: take only runs of these; all if empty.
        dry: do nothing, only see what there is.
        ended: called when the result of a run is written.
        failed: what was said of the runs whose training broke down; the others go on.
        found: the files' contents of all runs of the preset that have one, None of the others; in
            the order in which the experiment asks for them.
    """

    name: str
    preset: str
    results: Path
    workdir: Path = WORKDIR
    only: Sequence[str] = ()
    seeds: Sequence[int] = ()
    dry: bool = False
    ended: Callable[[], None] = lambda: None
    failed: dict[str, str] = field(default_factory=dict)
    found: dict[str, dict[str, Any] | None] = field(default_factory=dict)

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
            config: its choices, JSON values; all that the metrics depend on.

        Returns:
            The metrics; None if the run was not asked for and is not there, or broke down.

        Raises:
            ValueError: the result that is there, or what the run's folder holds, is of other
                choices.
        """
        path = self.folder_of_results / f"{run}.json"
        choices = _as_read({"seed": seed, "config": config})
        self.found[run] = there = json.loads(path.read_text()) if path.exists() else None
        if there is not None:
            if not _agree(there, choices):
                raise ValueError(
                    f"{path} is of a run with other choices: remove it and {self.folder(run)}, or "
                    "give other --results and another --workdir"
                )
            return there["metrics"]
        left_out = (self.only and run not in self.only) or (self.seeds and seed not in self.seeds)
        if left_out or self.dry:
            return None
        print(f"{self.name}, {self.preset}: {run}", flush=True)
        commits, start = self._begin(run, choices), time.monotonic()
        try:
            metrics = work(self.folder(run))
        except FloatingPointError as error:
            self.failed[run] = str(error)
            print(f"{run} broke down: {error}", file=sys.stderr)
            return None
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
            **_provenance(),
            **({"commits": commits} if len(commits) > 1 else {}),
        }
        write_json(path, result)
        print(f"{path}: {_short(metrics)}, {seconds:.0f} s", flush=True)
        self.found[run] = written = json.loads(path.read_text())
        self.ended()
        return written["metrics"]

    def kept(self, run: str) -> bool:
        """Whether a run has a result."""
        return (self.folder_of_results / f"{run}.json").exists()

    @property
    def folder_of_results(self) -> Path:
        """Where this experiment's results in this preset are."""
        return self.results / self.name / self.preset

    def folder(self, run: str) -> Path:
        """Where a run keeps its training."""
        return self.workdir / self.name / self.preset / run

    def _begin(self, run: str, choices: dict[str, Any]) -> list[str | None]:
        """Refuse a folder of other choices; the commits of all starts of the run, this one's last.

        That is noted beside the folder, since a run directory has to be empty at first.
        """
        folder = self.folder(run)
        path = folder.with_name(f"{run}-starts.json")
        there = json.loads(path.read_text()) if path.exists() else {"choices": choices}
        if not _agree(there["choices"], choices):
            raise ValueError(
                f"{folder} was begun with other choices: remove it and {path}, or give another "
                "--workdir"
            )
        commits = [*there.get("commits", []), _provenance()["commit"]]
        commits = list(dict.fromkeys(commits))
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"choices": choices, "commits": commits})
        return commits


def _as_read(values: Any) -> Any:
    """Values as they come back from a JSON file."""
    return json.loads(json.dumps(values))


def _agree(there: dict[str, Any], here: dict[str, Any]) -> bool:
    """Whether choices that were written, maybe by an earlier version, are those of here."""
    return all(_completed(there[name]) == _completed(value) for name, value in here.items())


def _completed(values: Any) -> Any:
    """Choices with the fields that configs got since they were written: at their defaults."""
    if not isinstance(values, dict):
        return values
    names = {each.name for each in fields(Settings)}
    own = {name: value for name, value in values.items() if name in names}
    if {"model", "model_config", "training"} <= set(own):
        try:
            return {**values, **_as_read(to_json(settings_of(own)))}
        except (LookupError, TypeError, AttributeError, ValueError):
            return values  # of a field that is gone: not the same
    return {name: _completed(value) for name, value in values.items()}


@cache
def _provenance() -> dict[str, Any]:
    """Of the code that this process runs, whatever is committed while it does."""
    return surroundings()


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


def errors(runs: Sequence[dict[str, Any]]) -> str:
    """Test errors of several seeds as ``shares``; of one seed with Wilson's interval.

    Args:
        runs: metrics with "test_error" and "test_error_interval_95".
    """
    if len(runs) > 1:
        return shares([each["test_error"] for each in runs])
    return f"{error(runs)}, one seed"


def error(runs: Sequence[dict[str, Any]]) -> str:
    """Mean test error in percent with its interval, as ``errors`` but of no seed by itself."""
    if len(runs) > 1:
        return share(*mean_interval([each["test_error"] for each in runs]))
    return share(runs[0]["test_error"], runs[0]["test_error_interval_95"])


def for_epochs(count: int) -> str:
    """How long a training was, in words."""
    return f"{count} epoch{'s' if count > 1 else ''}"


def short_of(runs: Sequence[dict[str, Any]], paper: float) -> str:
    """By how many points the mean test error differs from a paper's, and how far training came.

    Args:
        runs: metrics of all seeds, with "test_error" and the "validation_errors" of each epoch.
        paper: its test error.
    """

    def mean(values: Iterable[float]) -> float:
        return 100 * math.fsum(values) / len(runs)

    gap = mean(each["test_error"] - paper for each in runs)
    first = mean(each["validation_errors"][0] for each in runs)
    best = mean(min(each["validation_errors"]) for each in runs)
    return (
        f"{gap:+.2f} points; held-out error {first:.2f} % after the first epoch, {best:.2f} % at "
        "the best"
    )


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
        Every file's content, in the order of the experiment's runs; empty if there are none.

    Raises:
        ValueError: a file is of other choices than the preset's, or of none of its runs.
    """
    study = Study(name, preset, results, dry=True)
    if not study.folder_of_results.is_dir():
        return {}
    module = find(name)
    module.run(module.PRESETS[preset], study)
    files = {path.stem: path for path in study.folder_of_results.glob("*.json")}
    for stray in sorted(set(files) - set(study.found)):
        # An experiment may ask for a run only when those that it looks at are there.
        raise ValueError(
            f"{files[stray]} is of no run of this preset, or lacks the runs that it was made from: "
            "remove it, or bring these"
        )
    return {run: there for run, there in study.found.items() if there is not None}


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

    def draw() -> None:
        for picture, figure in module.draw(load(name, study.preset, study.results)).items():
            figure.savefig(study.folder_of_results / f"{picture}.png", dpi=110)

    study = Study(
        name,
        options.preset,
        options.results,
        options.workdir,
        options.only or (),
        options.seed or (),
        ended=draw,
    )
    _provenance()
    try:
        module.run(module.PRESETS[study.preset], study)
        results = load(name, study.preset, study.results)
    except ValueError as error:
        sys.exit(f"{name}: {error}")
    missing = [run for run in study.only if run not in results]
    if missing or not results:
        asked = f"run {missing[0]!r}" if missing else "result"
        sys.exit(
            f"{name} has no {asked}: there are {', '.join(study.found)}, and those that are made "
            "from several once these are there"
        )
    draw()
    for line in module.lines(results):
        print(f"{line.what}: paper {line.paper}; ours {line.ours}")
    if study.failed:
        sys.exit(f"{name}: {', '.join(study.failed)} broke down")
