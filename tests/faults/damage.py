"""What a disk does to a file: cut short at any offset, a single bit flipped anywhere.

Each kind of file is damaged and read as the library reads it. What comes of it is one of
``refused`` (a ValueError that names the file, or the folder of a checkpoint or data set that it
belongs to), ``older`` (an older checkpoint was used), ``dropped`` (the last line of a log),
``same`` (to the bit what was written: the damage hit nothing that is read), ``changed`` (a line of
the log says something else; it has no checksum), ``silent`` (something else was read and nobody
said so) and ``traceback`` (any other exception, a message that names nothing, or a command that
ends otherwise than with a line). The last two must not happen.
"""

import gc
import logging
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from capsjax import data, weights
from capsjax.data import prepared
from capsjax.training import loop, metric_log
from capsjax.training.checkpoint import Checkpoints
from capsjax.training.run import finished
from capsjax.training.settings import read_settings
from capsjax.training.step import State, split
from tests.data import archives
from tests.faults.commands import Command, Commands
from tests.faults.naming import names
from tests.faults.victim import bits_of
from tests.training.small import files_below

Read = Callable[[Path], str]


def outcomes(
    files: list[Path],
    read: Read,
    folder: Path,
    *,
    cuts: int,
    flips: int,
    seed: int,
    command: Command | None = None,
) -> dict[str, Counter[str]]:
    """Damage a file at a time, read, and mend it again.

    Args:
        files: among which the damage is drawn, each with the same chance.
        read: what comes of it, in a word, given what is damaged; a ValueError counts as refused if
            it names that file or a folder above.
        folder: the uppermost folder whose name says enough.
        cuts: how many truncations.
        flips: how many bits.
        seed: of the draws.
        command: also asked, given what is damaged and the word.

    Returns:
        How often each outcome was met, of truncations and of flips.
    """
    chance = random.Random(seed)
    files = [path for path in files if path.stat().st_size]
    found: dict[str, Counter[str]] = {"cut": Counter(), "flipped": Counter()}
    for kind in ["cut"] * cuts + ["flipped"] * flips:
        path = chance.choice(files)
        whole = path.read_bytes()
        at = chance.randrange(len(whole))
        bad = bytearray(whole if kind == "flipped" else whole[:at])
        if kind == "flipped":
            bad[at] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        outcome = _read(read, path, folder)
        complaint = None if command is None else command(path, outcome)
        if complaint is not None:
            logging.getLogger(__name__).error(complaint)
            outcome = "traceback"
        if outcome in ("silent", "traceback"):
            logging.getLogger(__name__).error("%s: %s %s at byte %d", outcome, path, kind, at)
        found[kind][outcome] += 1
        path.write_bytes(whole)
    return found


def _read(read: Read, path: Path, folder: Path) -> str:
    try:
        return read(path)
    except ValueError as error:
        return _refused(error, path, folder)
    except Exception:
        logging.getLogger(__name__).exception("%s", path)
        return "traceback"


def _refused(error: ValueError, path: Path, folder: Path) -> str:
    if names(str(error), path, folder):
        return "refused"
    logging.getLogger(__name__).error("%s is not named: %s", path, error)
    return "traceback"


def of_weights(folder: Path, commands: Commands, **counts: int) -> dict[str, Counter[str]]:
    """A file of ``capsjax export``."""
    path = folder / "network.safetensors"
    shutil.copyfile(commands.exported, path)
    good = bits_of(nnx.state(weights.load(path)))

    def read(path: Path) -> str:
        return "same" if bits_of(nnx.state(weights.load(path))) == good else "silent"

    return outcomes([path], read, folder, command=commands.on("weights", path), **counts)


def of_config(folder: Path, commands: Commands, **counts: int) -> dict[str, Counter[str]]:
    """``config.json`` of a run."""
    place = _copied(commands, folder)
    settings = read_settings(place)

    def read(path: Path) -> str:
        return "same" if read_settings(place) == settings else "silent"

    command = commands.on("config", place)
    return outcomes([place / "config.json"], read, place, command=command, **counts)


def of_summary(folder: Path, commands: Commands, **counts: int) -> dict[str, Counter[str]]:
    """``summary.json`` of a run at its end, which several seeds' mean is computed from."""
    place = _copied(commands, folder)
    settings = read_settings(place)
    good = finished(place, settings)
    assert good is not None

    def read(path: Path) -> str:
        return "same" if finished(place, settings) == good else "silent"

    command = commands.on("summary", place)
    return outcomes([place / "summary.json"], read, place, command=command, **counts)


def of_metrics(folder: Path, commands: Commands, **counts: int) -> dict[str, Counter[str]]:
    """``metrics.jsonl``: its lines have no checksum, what cannot be one is found."""
    place = _copied(commands, folder)
    path = place / "metrics.jsonl"
    entries = metric_log.read(path)
    warnings = _Heard()

    def read(path: Path) -> str:
        warnings.said.clear()
        whole = path.read_bytes()
        log = metric_log.MetricLog(path)
        try:
            log.resume(entries[-1]["step"])
        finally:
            path.write_bytes(whole)
        if log.history == entries:
            return "same"
        if log.history == entries[: len(log.history)]:
            return "dropped" if warnings.said else "silent"
        return "changed" if len(log.history) >= len(entries) - 1 else "silent"

    with warnings:
        return outcomes([path], read, place, command=commands.on("metrics", place), **counts)


def of_checkpoints(folder: Path, commands: Commands, **counts: int) -> dict[str, Counter[str]]:
    """The newest of two checkpoints, by whoever goes on with the run and by whoever looks at it."""
    run = _copied(commands, folder)
    place, kept = run / "checkpoints", folder / "kept"
    shutil.copytree(place, kept)
    like = _state_of(run)
    opened = Checkpoints(place)
    last, best = opened.latest, opened.best
    steps = [int(path.name) for path in place.iterdir() if path.name.isdigit()]
    trees = {step: bits_of(opened.restore(step, like)) for step in steps}
    opened.close()
    assert last is not None
    assert len(steps) == 2

    def read(path: Path) -> str:
        looked = _looked_at(place, path, like, last, best, trees)
        damaged = _content(place / str(last))
        opened = Checkpoints(place, mend=True)
        try:
            step = opened.latest
            assert step is not None
            same = bits_of(opened.restore(step, like)) == trees[step]
            same = same and opened.best == (best if step == last else step)
        finally:
            opened.close()
            shutil.rmtree(place)
            shutil.copytree(kept, place)
            _lay(place / str(last), damaged)
            gc.collect()
        if not same or looked in ("silent", "traceback"):
            return "silent" if not same else looked
        return "same" if step == last else "older"

    command = commands.on("checkpoints", run)
    files = files_below(place / str(last))
    return outcomes(files, read, place, command=command, **counts)


def _looked_at(
    place: Path, damaged: Path, like: Any, last: int, best: int | None, trees: dict[int, str]
) -> str:
    opened = None
    try:
        opened = Checkpoints(place)
        same = opened.best == best and bits_of(opened.restore(last, like)) == trees[last]
        return "same" if same else "silent"
    except ValueError as error:
        return _refused(error, damaged, place)
    finally:
        if opened is not None:
            opened.close()


def _state_of(run: Path) -> Any:
    """What the run's checkpoints hold, of the right shapes."""
    settings = read_settings(run)
    _, params, rest = split(settings.create())
    optimizer = loop._optimizer(settings.training, 1).init(params)
    return State(params, rest, optimizer, jnp.zeros((), jnp.int32)), loop._NO_PROGRESS


def _copied(commands: Commands, folder: Path) -> Path:
    return Path(shutil.copytree(commands.run, folder / "run"))


def _content(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in files_below(folder)}


def _lay(folder: Path, content: dict[Path, bytes]) -> None:
    for name, each in content.items():
        (folder / name).write_bytes(each)


def of_prepared(folder: Path, commands: Commands, **counts: int) -> dict[str, Counter[str]]:
    """A prepared data set; ``CAPSJAX_DATA_DIR`` and ``CAPSJAX_MANUAL_DIR`` lie in the folder."""
    archives.write_kmnist(folder / "raw", np.random.default_rng(0))
    place = prepared.prepare("kmnist", unverified=True)
    good = bits_of(data.load("kmnist"))

    def read(path: Path) -> str:
        return "same" if bits_of(data.load("kmnist")) == good else "silent"

    command = commands.on("prepared data", place)
    return outcomes(files_below(place), read, place, command=command, **counts)


class _Heard(logging.Handler):
    """The library's warnings, as long as it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())

    def __enter__(self) -> "_Heard":
        logging.getLogger("capsjax").addHandler(self)
        return self

    def __exit__(self, *_: Any) -> None:
        logging.getLogger("capsjax").removeHandler(self)


KINDS: dict[str, Callable[..., dict[str, Counter[str]]]] = {
    "checkpoints": of_checkpoints,
    "config": of_config,
    "summary": of_summary,
    "weights": of_weights,
    "prepared data": of_prepared,
    "metrics": of_metrics,
}
