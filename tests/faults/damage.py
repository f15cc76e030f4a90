"""What a disk does to a file: cut short at any offset, a single bit flipped anywhere.

Each kind of file is damaged and read as the library reads it. What comes of it is one of
``refused`` (a ValueError that names the file, or the folder of a checkpoint or data set that it
belongs to), ``older`` (an older checkpoint was used), ``dropped`` (the last line of a log), ``same``
(to the bit what was written: the damage hit nothing that is read), ``changed`` (a line of the log
says something else; it has no checksum), ``silent`` (something else was read and nobody said so)
and ``traceback`` (any other exception, or a message that names nothing). The last two must not
happen.
"""

import gc
import json
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

from capsjax import data, models, weights
from capsjax.data import prepared
from capsjax.models import capsnet
from capsjax.training import metric_log, run
from capsjax.training.checkpoint import Checkpoints
from capsjax.training.settings import read_settings, write_settings
from tests.data import archives
from tests.faults.naming import names
from tests.faults.victim import bits_of
from tests.training.small import files_below

Read = Callable[[Path], str]
_NARROW = capsnet.Config(features=4, kernel_size=3, primary_types=1, decoder=False)


def outcomes(
    files: list[Path], read: Read, folder: Path, *, cuts: int, flips: int, seed: int
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


def of_weights(folder: Path, **counts: int) -> dict[str, Counter[str]]:
    """A file of ``weights.save``."""
    path = folder / "network.safetensors"
    network = models.create("capsnet", config=_NARROW, image_shape=(10, 10, 1), num_classes=3)
    weights.save(path, network, metadata={"error": 0.5})
    good = bits_of(nnx.state(weights.load(path)))

    def read(path: Path) -> str:
        return "same" if bits_of(nnx.state(weights.load(path))) == good else "silent"

    return outcomes([path], read, folder, **counts)


def of_config(folder: Path, **counts: int) -> dict[str, Counter[str]]:
    """``config.json`` of a run."""
    dataset = data.find("mnist")
    settings = run.settings_for(
        dataset, name="mnist", model="capsnet", model_config=_NARROW, training=run.loop.Config()
    )
    write_settings(folder, settings)

    def read(path: Path) -> str:
        return "same" if read_settings(folder) == settings else "silent"

    return outcomes([folder / "config.json"], read, folder, **counts)


def of_metrics(folder: Path, **counts: int) -> dict[str, Counter[str]]:
    """``metrics.jsonl``: numbers have no checksum, what cannot be a line is found."""
    path = folder / "metrics.jsonl"
    entries: list[dict[str, Any]] = [
        {"step": step, "split": "train", "loss": 1 / (step + 2)} for step in range(1, 21)
    ]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    warnings = _Heard()

    def read(path: Path) -> str:
        warnings.said.clear()
        whole = path.read_bytes()
        log = metric_log.MetricLog(path)
        log.resume(20)
        path.write_bytes(whole)
        if log.history == entries:
            return "same"
        if log.history == entries[: len(log.history)]:
            return "dropped" if warnings.said else "silent"
        return "changed" if len(log.history) >= len(entries) - 1 else "silent"

    with warnings:
        return outcomes([path], read, folder, **counts)


def of_checkpoints(folder: Path, **counts: int) -> dict[str, Counter[str]]:
    """The newest of two checkpoints, by whoever goes on with the run and by whoever looks at it."""
    place = folder / "checkpoints"
    trees = {step: _tree(step) for step in (1, 2)}
    writer = Checkpoints(place)
    for step, tree in trees.items():
        writer.save(step, tree, error=1 / step)
    writer.close()
    kept = folder / "kept"
    shutil.copytree(place, kept)

    def read(path: Path) -> str:
        looked = _looked_at(place, trees, path)
        damaged = _content(place / "2")
        opened = Checkpoints(place, mend=True)
        try:
            step = opened.latest
            assert step is not None
            same = bits_of(opened.restore(step, _tree(0))) == bits_of(trees[step])
            best = opened.best == step
        finally:
            opened.close()
            shutil.rmtree(place)
            shutil.copytree(kept, place)
            _lay(place / "2", damaged)
            gc.collect()
        if not same or not best or looked == "silent":
            return "silent"
        if looked == "traceback":
            return looked
        return "same" if step == 2 else "older"

    return outcomes(files_below(place / "2"), read, place, **counts)


def _looked_at(place: Path, trees: dict[int, Any], damaged: Path) -> str:
    opened = None
    try:
        opened = Checkpoints(place)
        same = opened.best == 2 and bits_of(opened.restore(2, _tree(0))) == bits_of(trees[2])
        return "same" if same else "silent"
    except ValueError as error:
        return _refused(error, damaged, place)
    finally:
        if opened is not None:
            opened.close()


def _tree(value: int) -> dict[str, Any]:
    random = np.random.default_rng(value)
    return {
        "weights": jnp.asarray(random.normal(size=(64, 32)), jnp.float32),
        "flat": jnp.full((400,), value, jnp.float32),
        "step": jnp.asarray(value, jnp.int32),
        "seconds": np.array(value / 3),
    }


def _content(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in files_below(folder)}


def _lay(folder: Path, content: dict[Path, bytes]) -> None:
    for name, each in content.items():
        (folder / name).write_bytes(each)


def of_prepared(folder: Path, **counts: int) -> dict[str, Counter[str]]:
    """A prepared data set; ``CAPSJAX_DATA_DIR`` and ``CAPSJAX_MANUAL_DIR`` lie in the folder."""
    archives.write_kmnist(folder / "raw", np.random.default_rng(0))
    place = prepared.prepare("kmnist", unverified=True)
    good = bits_of(data.load("kmnist"))

    def read(path: Path) -> str:
        return "same" if bits_of(data.load("kmnist")) == good else "silent"

    return outcomes(files_below(place), read, place, **counts)


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
    "weights": of_weights,
    "prepared data": of_prepared,
    "metrics": of_metrics,
}
