"""One run directory: ``config.json``, ``metrics.jsonl``, ``checkpoints/``, ``summary.json``.

``train`` fills one, ``load`` reads a trained network back from one.
"""

import datetime
import importlib.metadata
import json
import platform
import subprocess
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from capsjax import data, models
from capsjax.serial import from_json, to_json
from capsjax.training import loop
from capsjax.training.checkpoint import Checkpoints
from capsjax.training.evaluation import Evaluation, Prediction, check_labels, evaluate, predict


@dataclass(frozen=True)
class Settings:
    """What a run directory was made with.

    Attributes:
        model: name of the network.
        dataset: name or path of the data.
        model_config: the network's choices.
        training: the training's choices.
        image_shape: height, width and channels.
        class_names: one for each class.
    """

    model: str
    dataset: str
    model_config: Any
    training: loop.Config
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]

    def create(self) -> nnx.Module:
        """The network with its initial parameters."""
        return models.create(
            self.model,
            image_shape=self.image_shape,
            num_classes=len(self.class_names),
            config=self.model_config,
            rngs=self.training.seed,
        )


class Run(typing.NamedTuple):
    """A trained network and where it came from."""

    model: nnx.Module
    settings: Settings

    def predict(self, images: np.ndarray, *, reconstruct: bool = False) -> Prediction:
        """Classify images, uint8 ``[N, H, W, C]`` from 0 to 255; see ``evaluation.predict``."""
        return predict(
            self.model, images, reconstruct=reconstruct, precision=self.settings.training.precision
        )

    def evaluate(self, arrays: data.Arrays, *, reconstruct: bool = False) -> Evaluation:
        """Error on labelled images; see ``evaluation.evaluate``."""
        return evaluate(
            self.model, arrays, reconstruct=reconstruct, precision=self.settings.training.precision
        )


Draw = Callable[[loop.Result, Evaluation], None]


def train(
    settings: Settings,
    dataset: data.Dataset,
    workdir: Path,
    *,
    command: str,
    progress: bool,
    draw: Draw | None = None,
    feed: loop.Feed = "auto",
) -> tuple[loop.Result, Evaluation, dict[str, Any]]:
    """Train, or go on training, in a run directory; then test once and write ``summary.json``.

    Ask ``finished`` first: a run that is at its end would be tested again.

    Args:
        settings: what to train.
        dataset: the data that ``settings`` names.
        workdir: the run directory; made if missing.
        command: the command line, for the summary.
        progress: show a progress bar.
        draw: called before the summary is written, to draw the result and the evaluation; a summary
            is the sign that all is done.
        feed: as for ``loop.fit``.

    Returns:
        Result of training, evaluation of the best parameters on the test split (with
        reconstructions), and the summary.

    Raises:
        ValueError: the directory belongs to a run of another config (the differences are named), or
            the data does not fit the network, or the directory cannot be written.
        OSError: the disk became full or unwritable while training.
        FloatingPointError, KeyboardInterrupt, SystemExit: as ``loop.fit``.
    """
    if dataset.made is not None and dataset.base is not None:
        arrays, test = dataset.base("train"), dataset.load("test")
    else:
        arrays, test = dataset.load("train"), dataset.load("test")
    validation = None
    if dataset.divide is not None:
        arrays, validation = dataset.divide(arrays)
    if test["label"].ndim > 1:
        raise ValueError(
            f"{dataset.name} shows {test['label'].shape[1]} classes in every image, expected one"
        )
    test = data.check_arrays(test, where=f"{dataset.name}, test")
    check_labels(test["label"], len(settings.class_names))
    network = settings.create()
    provenance = surroundings()
    _open(workdir, settings)
    result = loop.fit(
        network,
        arrays,
        settings.training,
        workdir=workdir,
        progress=progress,
        made=dataset.made,
        feed=feed,
        validation=validation,
    )
    evaluation = Run(result.model, settings).evaluate(test, reconstruct=True)
    summary = {
        "model": settings.model,
        "dataset": settings.dataset,
        "test_error": evaluation.error,
        "test_error_interval_95": evaluation.interval,
        "test_errors": evaluation.errors,
        "test_images": evaluation.total,
        "validation_error": result.validation_error,
        "parameters": models.count_parameters(network),
        "epochs": settings.training.epochs,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "images_per_second": round(result.images_per_second, 1),
        "seed": settings.training.seed,
        "precision": settings.training.precision,
        "command": command,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": to_json(settings),
        **provenance,
    }
    if draw is not None:
        draw(result, evaluation)
    _write_json(workdir / "summary.json", summary)
    return result, evaluation, summary


def finished(workdir: Path, settings: Settings) -> dict[str, Any] | None:
    """Summary of a run that was trained to its end with these settings, or None.

    Args:
        workdir: the run directory.
        settings: all must be the same, the number of epochs too.

    Returns:
        What ``summary.json`` holds.
    """
    try:
        summary = json.loads((workdir / "summary.json").read_text())
        return summary if summary["settings"] == to_json(settings) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def load(workdir: str | Path) -> Run:
    """The trained network of a run directory, with its best parameters by validation error.

    Before the first validation these are the newest ones.

    Args:
        workdir: the run directory.

    Returns:
        The network, ready to predict.

    Raises:
        ValueError: it is no run directory, holds no checkpoint yet, or a damaged one.
    """
    folder = Path(workdir)
    settings = read_settings(folder)
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        step = checkpoints.latest if checkpoints.best is None else checkpoints.best
        if step is None:
            raise ValueError(
                f"{folder} holds no checkpoint yet: train it with capsjax train --workdir {folder}"
            )
        result = loop.restore(settings.create(), settings.training, checkpoints, step)
    finally:
        checkpoints.close()
    return Run(result, settings)


def read_settings(workdir: Path) -> Settings:
    """Settings of a run directory.

    Args:
        workdir: the run directory.

    Returns:
        What ``config.json`` says.

    Raises:
        ValueError: there is none, or it does not fit this version of the library.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{workdir} is not a run directory (it has no config.json): give a folder that "
            "capsjax train made with --workdir"
        )
    try:
        values = json.loads(path.read_text())
        config_type = type(models.find(values["model"]).config)
        return from_json(Settings, values, {"model_config": config_type})
    except (
        json.JSONDecodeError,
        UnicodeDecodeError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise ValueError(
            f"{path} is not a config of this version of capsjax ({error!r}); use the version that "
            "made it, or train anew in another --workdir"
        ) from error


def _open(workdir: Path, settings: Settings) -> None:
    """Make a run directory, or make sure that it belongs to the same run.

    One in which nothing was saved yet may be taken over by another config.
    """
    wanted = to_json(settings)
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(
            f"the work directory {workdir} cannot be written (Not a directory): give another "
            "--workdir"
        )
    checkpoints = workdir / "checkpoints"
    saved = checkpoints.is_dir() and any(checkpoints.iterdir())
    if (workdir / "config.json").exists():
        differences = _differences(read_settings(workdir), settings) if saved else []
        if differences:
            raise ValueError(
                f"{workdir} holds a run of another config ({'; '.join(differences)}): use the same "
                "options to continue it, or another --workdir"
            )
    elif workdir.exists() and any(item.name != "config.partial" for item in workdir.iterdir()):
        raise ValueError(
            f"{workdir} is not empty and holds no run of capsjax: give a new or empty --workdir"
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        _write_json(workdir / "config.json", wanted)
    except OSError as error:
        raise ValueError(
            f"the work directory {workdir} cannot be written ({error.strerror}): give another "
            "--workdir, or free it"
        ) from error


def _differences(there: Settings, here: Settings) -> list[str]:
    """What forbids to go on; more epochs may."""
    found, wanted = to_json(there), to_json(here)
    more = here.training.epochs > there.training.epochs
    return [
        f"{name} is {_at(found, name)!r} there and {_at(wanted, name)!r} here"
        for name in sorted({*_names(found), *_names(wanted)})
        if _at(found, name) != _at(wanted, name) and not (name == "training.epochs" and more)
    ]


def _names(values: dict[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in values.items():
        if isinstance(value, dict):
            names += _names(value, f"{prefix}{key}.")
        else:
            names.append(prefix + key)
    return names


def _at(values: dict[str, Any], name: str) -> Any:
    for key in name.split("."):
        values = values.get(key, {}) if isinstance(values, dict) else {}
    return None if values == {} else values


def _write_json(path: Path, values: Any) -> None:
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(values, indent=2) + "\n")
    temporary.replace(path)


def surroundings() -> dict[str, Any]:
    """Versions, machine, and the commit of the code that runs, as a summary holds them."""
    packages = ("capsjax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "platform": f"{jax.default_backend()}, {jax.device_count()} device(s)",
        **commit(),
    }


def commit() -> dict[str, Any]:
    """``{"commit": hash or None, "dirty": bool or None}`` of the checkout that this code is in.

    None where the code is installed outside of one.
    """

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
