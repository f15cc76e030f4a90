"""One run directory: ``config.json``, ``metrics.jsonl``, ``checkpoints/``, ``summary.json``.

``train`` fills one, ``fit`` all but its summary, ``load`` reads a trained network back from one.
"""

import datetime
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from capsjax import data, models
from capsjax.serial import to_json
from capsjax.training import hosts, lock, loop, parallel
from capsjax.training.checkpoint import Checkpoints
from capsjax.training.evaluation import Evaluation, Prediction, check_labels, evaluate, predict
from capsjax.training.json_file import read_sealed, write_sealed
from capsjax.training.provenance import commit, surroundings
from capsjax.training.settings import (
    Settings,
    differences,
    read_settings,
    settings_for,
    write_settings,
)

__all__ = [
    "Draw",
    "Run",
    "Settings",
    "commit",
    "finished",
    "fit",
    "load",
    "read_settings",
    "settings_for",
    "surroundings",
    "train",
]


_MEND = "bring it back from a copy, or remove it; the command that trained the run then tests again"


class Run(typing.NamedTuple):
    """A trained network and where it came from."""

    model: nnx.Module
    settings: Settings

    def predict(self, images: np.ndarray, *, reconstruct: bool = False) -> Prediction:
        """Classify images, uint8 ``[N, H, W, C]`` from 0 to 255; see ``evaluation.predict``."""
        return predict(
            self.model,
            images,
            classes_per_image=self.settings.classes_per_image,
            reconstruct=reconstruct,
            precision=self.settings.training.precision,
            recipe=self.settings.training.recipe,
        )

    def evaluate(
        self, arrays: data.Arrays, *, reconstruct: bool = False, mesh: Mesh | None = None
    ) -> Evaluation:
        """Error on labelled images; see ``evaluation.evaluate``."""
        return evaluate(
            self.model,
            arrays,
            reconstruct=reconstruct,
            precision=self.settings.training.precision,
            recipe=self.settings.training.recipe,
            mesh=mesh,
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
    devices: int | None = None,
    tensorboard: bool = False,
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
        devices: as for ``loop.fit``. Of several hosts that train together each gets all that is
            returned, and the first one writes and draws.
        tensorboard: as for ``loop.fit``.

    Returns:
        Result of training, evaluation of the best parameters on the test split (with
        reconstructions), and the summary.

    Raises:
        ValueError: the directory belongs to a run of another config (the differences are named), or
            cannot be written, or another process trains there, or the data does not fit the
            network, or the devices cannot share a batch.
        OSError: the disk became full or unwritable while training.
        FloatingPointError, KeyboardInterrupt, SystemExit, hosts.Lost: as ``loop.fit``.
    """
    test = data.check_arrays(dataset.load("test"), where=f"{dataset.name}, test", several=True)
    check_labels(test["label"], len(settings.class_names))
    mesh = parallel.make_mesh(devices, settings.training.batch_size)
    provenance = surroundings()
    with lock.alone_in(workdir):
        result = fit(
            settings,
            dataset,
            workdir,
            progress=progress,
            feed=feed,
            devices=devices,
            tensorboard=tensorboard,
        )
        evaluation = Run(result.model, settings).evaluate(
            test, reconstruct=True, mesh=parallel.host_mesh(mesh)
        )
        if draw is not None and hosts.is_first():
            draw(result, evaluation)
        finished_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        summary = {
            **_figures(settings, result, evaluation),
            "parameters": models.count_parameters(result.model),
            "command": command,
            "finished": finished_at,
            "settings": to_json(settings),
            **provenance,
        }
        if hosts.is_first():
            write_sealed(workdir / "summary.json", summary)
        hosts.wait_for_all()
    return result, evaluation, summary


def fit(
    settings: Settings,
    dataset: data.Dataset,
    workdir: Path,
    *,
    progress: bool = False,
    feed: loop.Feed = "auto",
    devices: int | None = None,
    each_epoch: loop.EachEpoch | None = None,
    tensorboard: bool = False,
) -> loop.Result:
    """Train, or go on training, in a run directory; nothing is tested.

    Args:
        settings: what to train.
        dataset: the data that ``settings`` names; its test split is not read.
        workdir: the run directory; made if missing.
        progress: show a progress bar.
        feed: as for ``loop.fit``.
        devices: as for ``loop.fit``.
        each_epoch: as for ``loop.fit``.
        tensorboard: as for ``loop.fit``.

    Returns:
        Result of training.

    Raises:
        Exceptions of ``train``.
    """
    if dataset.made is not None and dataset.base is not None:
        arrays = dataset.base("train")
    else:
        arrays = dataset.load("train")
    validation = None
    if dataset.divide is not None:
        arrays, validation = dataset.divide(arrays)
    network = settings.create()
    with lock.alone_in(workdir):
        with hosts.first_goes_ahead():
            _open(workdir, settings)
        return loop.fit(
            network,
            arrays,
            settings.training,
            workdir=workdir,
            progress=progress,
            made=dataset.made,
            feed=feed,
            validation=validation,
            devices=devices,
            each_epoch=each_epoch,
            tensorboard=tensorboard,
        )


def _figures(settings: Settings, result: loop.Result, evaluation: Evaluation) -> dict[str, Any]:
    """What a summary says of a training and of its test."""
    several = {"test_digit_error": evaluation.digit_error}
    return {
        "model": settings.model,
        "dataset": settings.dataset,
        "test_error": evaluation.error,
        "test_error_interval_95": evaluation.interval,
        "test_errors": evaluation.errors,
        "test_images": evaluation.total,
        **(several if settings.classes_per_image > 1 else {}),
        "validation_error": result.validation_error,
        "epochs": settings.training.epochs,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "images_per_second": round(result.images_per_second, 1),
        "seed": settings.training.seed,
        "precision": settings.training.precision,
    }


def finished(workdir: Path, settings: Settings) -> dict[str, Any] | None:
    """Summary of a run that was trained to its end with these settings, or None.

    Args:
        workdir: the run directory.
        settings: all must be the same, the number of epochs too.

    Returns:
        What ``summary.json`` holds, without its checksum.

    Raises:
        ValueError: the summary is damaged.
    """
    try:
        summary = read_sealed(workdir / "summary.json", mend=_MEND)
    except OSError:
        return None
    return summary if summary.get("settings") == to_json(settings) else None


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


def _open(workdir: Path, settings: Settings) -> None:
    """Begin a run in a directory, or make sure that it belongs to the same run.

    One in which nothing was saved yet may be taken over by another config.
    """
    checkpoints = workdir / "checkpoints"
    saved = checkpoints.is_dir() and any(checkpoints.iterdir())
    if (workdir / "config.json").exists():
        found = differences(read_settings(workdir), settings) if saved else []
        if found:
            raise ValueError(
                f"{workdir} holds a run of another config ({'; '.join(found)}): use the same "
                "options to continue it, or another --workdir"
            )
    elif {item.name for item in workdir.iterdir()} - {"config.partial", lock.NAME}:
        raise ValueError(
            f"{workdir} is not empty and holds no run of capsjax: give a new or empty --workdir"
        )
    try:
        if hosts.is_first():
            write_settings(workdir, settings)
    except OSError as error:
        raise ValueError(
            f"the work directory {workdir} cannot be written ({error.strerror}): give another "
            "--workdir, or free it"
        ) from error
