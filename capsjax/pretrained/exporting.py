"""From a run directory to one file that others can use."""

import tempfile
from pathlib import Path
from typing import Any, Literal

from capsjax import data, models, weights
from capsjax.pretrained.card import Card, metadata, read
from capsjax.training import metric_log, run
from capsjax.training.settings import Settings

# Of a run's summary, what the file repeats.
_PROVENANCE = ("command", "commit", "dirty", "finished", "versions", "python", "platform")


def export(
    workdir: str | Path,
    path: str | Path,
    *,
    dtype: Literal["bfloat16", "float16"] | None = None,
    provenance: dict[str, Any] | None = None,
) -> Card:
    """Write the network of a run that is at its end to one file, with the error that it then has.

    The weights are stored, read back, and these tested once on the whole test split: the error that
    the file states is that of what it holds, also where ``dtype`` rounds it. The file is there
    complete or not at all; one of its name is replaced.

    The data set's name and the command go into the file as they were given, with any paths in them.

    Args:
        workdir: the run directory.
        path: of the file, ending in ``.safetensors``.
        dtype: store floating arrays so, at half of float32's size; None stores them as they are.
        provenance: ``command``, ``commit``, ``dirty``, ``finished``, ``versions``, ``python`` and
            ``platform`` of the training; None takes those of the run's ``summary.json``.

    Returns:
        What the file says.

    Raises:
        ValueError: no run directory, one whose training is not at its end or whose data set is not
            at hand, a path of another ending or in no folder, a number too large for ``dtype``.
        OSError: the file cannot be written.

    Example:
        >>> export("runs/mnist", "mnist.safetensors", dtype="float16")  # doctest: +SKIP
    """
    workdir, path = Path(workdir), Path(path)
    _check_path(path)
    settings = run.read_settings(workdir)
    _check_finished(workdir, settings)
    provenance = _provenance(workdir, settings, provenance)
    test = data.find(settings.dataset).load("test")
    trained = run.load(workdir)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.safetensors"
        weights.save(draft, trained.model, name=settings.model, dtype=dtype)
        stored = run.Run(weights.load(draft), settings)
    said = metadata(
        settings,
        provenance,
        stored.evaluate(test),
        dtype=dtype or "float32",
        parameters=models.count_parameters(stored.model),
    )
    # Numbers that were rounded before are stored as they are.
    weights.save(path, stored.model, name=settings.model, dtype=dtype, metadata=said)
    return read(path)


def _check_path(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ValueError(f"the file {path} does not end in .safetensors: give another name")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent}: make it, or give another path")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give another path")


def _check_finished(workdir: Path, settings: Settings) -> None:
    """Every epoch ends with a validation; what comes after the last checkpoint is dropped."""
    log = workdir / "metrics.jsonl"
    history = metric_log.read(log) if log.is_file() else []
    done = sum(entry["split"] == "validation" for entry in history)
    wanted = settings.training.epochs
    if done < wanted:
        raise ValueError(
            f"the training in {workdir} is not at its end ({done} of {wanted} epochs): give the "
            "command that began it again, then export"
        )


def _provenance(workdir: Path, settings: Settings, given: dict[str, Any] | None) -> dict[str, Any]:
    found = run.finished(workdir, settings) if given is None else given
    if found is None:
        raise ValueError(
            f"{workdir} has no summary.json of its training: give the command that began it again, "
            "then export"
        )
    missing = [name for name in _PROVENANCE if name not in found]
    if missing:
        raise ValueError(f"nothing says the training's {', '.join(missing)}: give provenance")
    return {name: found[name] for name in _PROVENANCE}
