"""The same training from several seeds: one run directory each, and what they say together.

One after another: side by side, by ``vmap``, a CPU takes longer (a step of five Efficient-CapsNets
863 ms, 588 one after another), and each run is then an ordinary one, which can be stopped,
continued and loaded by itself. ``experiments/benchmarks/seeds.py`` measures both forms.
"""

import datetime
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from capsjax.analysis.statistics import mean_interval
from capsjax.training import hosts
from capsjax.training.json_file import read_sealed, write_sealed
from capsjax.training.provenance import surroundings
from capsjax.training.settings import Settings

One = Callable[[Settings, Path], dict[str, Any]]

_KEPT = (
    "seed",
    "test_error",
    "test_error_interval_95",
    "test_errors",
    "test_images",
    "validation_error",
    "seconds",
    "images_per_second",
)


def train(
    settings: Settings, workdir: Path, count: int, one: One, *, command: str
) -> dict[str, Any]:
    """Train from ``count`` seeds that follow each other, the first of them the settings' own.

    Seed n has the run directory ``seed-n``. When all are done, ``summary.json`` beside them says
    what each came to, their mean, and the mean's interval.

    Args:
        settings: what to train, with the first seed.
        workdir: holds the run directories; made if missing.
        count: how many seeds, at least 1.
        one: ``one(settings, workdir)`` trains from one seed, or goes on, or does nothing for a run
            that is at its end; it returns the run's summary.
        command: the command line, for the summary.

    Returns:
        The summary: mean and 95 % t interval of the test errors over seeds (None for one seed), the
        mean validation error, all seconds, and in ``runs`` every seed's own figures.

    Raises:
        ValueError: no seeds, seeds past the largest one, or a directory that holds something else;
            and what ``one`` raises.
        FloatingPointError: a training broke down; its seed is named.
    """
    if count < 1:
        raise ValueError(f"seeds is {count}, expected at least 1")
    first = settings.training.seed
    each = [
        replace(settings, training=replace(settings.training, seed=seed))
        for seed in range(first, first + count)
    ]
    _check(workdir)
    runs = []
    for chosen in each:
        seed = chosen.training.seed
        try:
            summary = one(chosen, workdir / f"seed-{seed}")
        except FloatingPointError as error:
            raise FloatingPointError(f"seed {seed}: {error}") from error
        runs.append(summary)
    path = workdir / "summary.json"
    together = _together(settings, runs)
    if path.exists() and _read(path).get("runs") == together["runs"]:
        return _read(path)
    finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    together |= {"command": command, "finished": finished, **surroundings()}
    if hosts.is_first():
        write_sealed(path, together)
    return together


def _together(settings: Settings, runs: list[dict[str, Any]]) -> dict[str, Any]:
    errors = [run["test_error"] for run in runs]
    mean, interval = mean_interval(errors)
    validation, _ = mean_interval([run["validation_error"] for run in runs])
    return {
        "model": settings.model,
        "dataset": settings.dataset,
        "seeds": [run["seed"] for run in runs],
        "test_error": mean,
        "test_error_interval_95": interval,
        "validation_error": validation,
        "epochs": settings.training.epochs,
        "parameters": runs[0]["parameters"],
        "seconds": round(sum(run["seconds"] for run in runs), 1),
        "runs": [{name: run[name] for name in _KEPT} for run in runs],
    }


def _check(workdir: Path) -> None:
    """Refuse a directory in which seeds' run directories would lie among other things."""
    if not workdir.exists():
        return
    if not workdir.is_dir():
        raise ValueError(
            f"the work directory {workdir} cannot be written (Not a directory): give another "
            "--workdir"
        )
    known = re.compile(r"seed-\d+|summary\.(json|partial)")
    names = sorted(item.name for item in workdir.iterdir())
    if "config.json" in names:
        raise ValueError(
            f"{workdir} holds a run of one seed: give another --workdir, or leave --seeds out to "
            "continue it"
        )
    other = [name for name in names if not known.fullmatch(name)]
    if other:
        raise ValueError(
            f"{workdir} is not empty and holds more than runs of several seeds ({other[0]}): give "
            "a new or empty --workdir"
        )


def _read(path: Path) -> dict[str, Any]:
    """What is there; of one that is damaged nothing, since the runs say all that it says."""
    try:
        return read_sealed(path, mend="")
    except ValueError:
        return {}
