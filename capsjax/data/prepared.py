"""Prepared data sets: folders of TFDS with array_record files, made, read and verified.

A folder appears under its name when it is complete; one that TFDS prepared elsewhere is read as it
is. Beside TFDS's own files ours has ``capsjax.json``: the checksums of these, how often each label
occurs, and whether the archives were the official ones.
"""

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from capsjax.data import subsets
from capsjax.data.archives import data_dir
from capsjax.data.dataset import Arrays, Dataset
from capsjax.data.readers import sha256
from capsjax.serial import parse

_STAMP = "capsjax.json"
_INFO = "dataset_info.json"  # TFDS writes it last
_FORMAT = "array_record"
_CHUNK = 1000
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def dataset(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    class_names: tuple[str, ...],
    sizes: Mapping[str, int],
    source: str,
    licence: str,
    origin: str = "archives",
    arrays: Callable[[Arrays], Arrays] | None = None,
    viewpoints: bool = False,
) -> Dataset:
    """A data set that is read from its prepared folder.

    Args:
        name: TFDS's.
        image_shape: height, width and channels.
        class_names: one for each class.
        sizes: official number of examples of each split.
        source: who made it.
        licence: under which terms.
        origin: as for ``Dataset``.
        arrays: makes a split's arrays of its stacked TFDS features; None keeps image and label.
        viewpoints: it has smallNORB's factors, and so the splits of ``subsets.novel_viewpoints``
            for each of azimuth and elevation, such as ``azimuth_train``; an instance of every
            category is set aside for validation.

    Returns:
        The data set.
    """

    def read(split: str) -> Arrays:
        if split not in sizes:
            factor, part = split.split("_")
            return subsets.novel_viewpoints(read("train"), read("test"), factor)[part]  # type: ignore[arg-type]
        features = read_features(name, split)
        return arrays(features) if arrays else {key: features[key] for key in ("image", "label")}

    return Dataset(
        name=name,
        image_shape=image_shape,
        class_names=class_names,
        sizes=dict(sizes),
        source=source,
        licence=licence,
        origin=origin,
        read=read,
        parts=subsets.PARTS if viewpoints else {},
        divide=partial(subsets.hold_out, instance=subsets.HELD_OUT) if viewpoints else None,
    )


def folder_of(name: str) -> Path | None:
    """The prepared folder of a data set's newest version, or None."""
    found = [path.parent for path in data_dir().glob(f"{name}/*/{_INFO}")]
    # TFDS calls what it has not finished incomplete.SOMETHING.
    versions = {_VERSION.fullmatch(folder.name): folder for folder in found}
    numbers = {tuple(map(int, match.groups())): versions[match] for match in versions if match}
    return numbers[max(numbers)] if numbers else None


def read_features(name: str, split: str) -> Arrays:
    """All examples of a split, feature by feature.

    Args:
        name: the data set's.
        split: of the prepared folder.

    Returns:
        An array ``[N, ...]`` for each feature but texts: images uint8, fractions float32, all else
        int32.

    Raises:
        ValueError: it is not prepared, by another file format, or a file is damaged.
    """
    folder = folder_of(name)
    if folder is None:
        raise ValueError(
            f"{name} is not prepared in {data_dir()}: capsjax datasets prepare {name}, or set "
            "CAPSJAX_DATA_DIR to where it is"
        )
    import tensorflow_datasets as tfds  # takes seconds, and few need it

    try:
        builder = tfds.builder_from_directory(folder)
        form = builder.info.file_format
        if form is not tfds.core.FileFormat.ARRAY_RECORD:
            raise ValueError(
                f"its files are {form}, which only TensorFlow reads; prepare it again with "
                f"capsjax datasets prepare {name} --force"
            )
        _check(folder)
        source: Any = builder.as_data_source(split)
        return _stacked(source)
    # TFDS, array_record and Pillow raise many types for damaged files.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"{folder} cannot be read ({error}); if it is damaged: capsjax datasets prepare {name} "
            "--force"
        ) from error


def _stacked(source: Any) -> Arrays:
    arrays: Arrays = {}
    for start in range(0, len(source), _CHUNK):
        chosen = range(start, min(start + _CHUNK, len(source)))
        examples = source.__getitems__(chosen)
        for key, first in examples[0].items():
            if isinstance(first, (bytes, str)):
                continue
            part = np.stack([example[key] for example in examples])
            kind = part.dtype if part.dtype in (np.uint8, np.float32) else np.int32
            whole = arrays.setdefault(key, np.empty((len(source), *part.shape[1:]), kind))
            whole[start : start + len(part)] = part
    return arrays


def prepare(name: str, *, force: bool = False, unverified: bool = False) -> Path:
    """Make a data set's folder, unless it is there.

    Args:
        name: a key of ``builders.BUILDERS``.
        force: make it anew; the old one stays until the new one is complete.
        unverified: take archives in ``CAPSJAX_MANUAL_DIR`` whatever their checksum; the folder says
            so.

    Returns:
        The folder.

    Raises:
        ValueError: an archive is wrong or missing, or TFDS made the folder in another format.
        OSError: the disk is full or unwritable; an older folder is untouched.
    """
    there = folder_of(name)
    if there is not None and not force:
        if (form := _format_of(there)) != _FORMAT:
            raise ValueError(
                f"{there} holds {form} files, which only TensorFlow reads: --force replaces it, or "
                "set CAPSJAX_DATA_DIR to another folder"
            )
        return there
    from capsjax.data import builders

    root = data_dir()
    root.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(root, name)
    prefix = f".preparing-{name}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=root) as work:
        builder = builders.BUILDERS[name](data_dir=work, unverified=unverified)
        # TFDS says where it wrote, which is not where it stays.
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare(download_dir=root / "downloads")
        except RuntimeError as error:  # of array_record, which knows no OSError
            raise OSError(
                f"{root} could not be written ({str(error)[:300]}): free some space, or set "
                "CAPSJAX_DATA_DIR to another disk; what was prepared before is untouched"
            ) from error
        made = Path(builder.data_path)
        _stamp(name, made, verified=not unverified)
        place = root / name / made.name
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            place.rename(Path(work) / "old")
        try:
            made.rename(place)
        except OSError:
            if (Path(work) / "old").exists():
                (Path(work) / "old").rename(place)
            raise
    return place


def _remove_leftovers(root: Path, name: str) -> None:
    """Remove what attempts left that were killed: folders of processes that are no more."""
    for folder in root.glob(f".preparing-{name}-*"):
        process = folder.name.removeprefix(f".preparing-{name}-").split("-")[0]
        try:
            os.kill(int(process), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue


def _stamp(name: str, folder: Path, *, verified: bool) -> None:
    files = sorted(path for path in folder.iterdir() if path.name != _STAMP)
    stamp = {
        "name": name,
        "verified": verified,
        "sha256": {path.name: sha256(path) for path in files},
    }
    (folder / _STAMP).write_text(json.dumps(stamp, indent=1) + "\n")


def check_files(name: str) -> bool | None:
    """Compare a prepared folder's files with the checksums of the day they were made.

    Args:
        name: the data set's.

    Returns:
        Whether it was made of the official archives; None where TFDS made it and there are no
        checksums.

    Raises:
        ValueError: it is not prepared, or a file is missing or has changed.
        OSError: a file cannot be read.
    """
    folder = folder_of(name)
    if folder is None:
        raise ValueError(f"{name} is not prepared in {data_dir()}: capsjax datasets prepare {name}")
    try:
        return _check(folder)
    except ValueError as error:
        raise ValueError(
            f"{error}; make it again with capsjax datasets prepare {name} --force"
        ) from error


def _check(folder: Path) -> bool | None:
    """What ``check_files`` says of a folder."""
    if not (folder / _STAMP).is_file():
        return None
    try:
        stamp = parse((folder / _STAMP).read_bytes())
        expected, verified = dict(stamp["sha256"]), bool(stamp["verified"])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{folder / _STAMP} is damaged ({error!r})") from error
    for file, checksum in expected.items():
        path = folder / file
        if not path.is_file():
            raise ValueError(f"{path} is missing")
        if (found := sha256(path)) != checksum:
            raise ValueError(f"{path} has changed: its SHA-256 is {found}, expected {checksum}")
    return verified


def _format_of(folder: Path) -> str:
    try:
        return json.loads((folder / _INFO).read_text()).get("fileFormat", _FORMAT)
    except (ValueError, AttributeError):
        return _FORMAT  # damaged, which reading it will say


def state_of(name: str) -> tuple[str, int | None]:
    """Whether a data set is prepared, in words, and the bytes that it takes."""
    folder = folder_of(name)
    if folder is None:
        return "not prepared", None
    size = sum(os.stat(path).st_size for path in folder.iterdir())
    if (form := _format_of(folder)) != _FORMAT:
        return f"prepared as {form}, for TensorFlow only", size
    try:
        if not json.loads((folder / _STAMP).read_text())["verified"]:
            return "prepared, not of the official archives", size
    except (OSError, ValueError, LookupError, TypeError):
        pass  # TFDS made it, or ``check_files`` will say what is wrong
    return "prepared", size
