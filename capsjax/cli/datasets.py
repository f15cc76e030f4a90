"""``capsjax datasets``: list them, prepare, verify and show them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from capsjax import data, figures
from capsjax.cli import pictures
from capsjax.cli.options import parse, print_json, table
from capsjax.data import prepared

_MOST_SHOWN = 1000  # images in one picture, which take a minute to draw


@dataclass(frozen=True)
class Listing:
    """List the data sets; or: capsjax datasets prepare | verify | show NAME."""

    json: bool = False
    """print JSON instead of a table"""


@dataclass(frozen=True)
class Prepare:
    """Download a data set's archives, or take them from CAPSJAX_MANUAL_DIR, and prepare it.

    It goes to CAPSJAX_DATA_DIR, or to TFDS's own folder.
    """

    name: tyro.conf.Positional[str]
    """as listed by capsjax datasets"""
    force: bool = False
    """make it anew; the old one stays until the new one is complete"""
    unverified: bool = False
    """take archives in CAPSJAX_MANUAL_DIR that are not the official ones (a part, say)"""


@dataclass(frozen=True)
class Verify:
    """Check a data set: files by their checksums, every image read, examples and labels counted."""

    name: tyro.conf.Positional[str]
    """as listed by capsjax datasets, or the path of your own"""
    json: bool = False
    """print JSON instead of a table"""


@dataclass(frozen=True)
class Show:
    """Draw a contact sheet with labels and factors."""

    name: tyro.conf.Positional[str]
    """as listed by capsjax datasets, or the path of your own"""
    split: str = "train"
    """which split"""
    count: int = 40
    """images on the sheet"""
    seed: int = 0
    """of the choice of images"""
    output: Path | None = None
    """PNG file; by default NAME.png in the current folder"""


def datasets(arguments: Sequence[str]) -> None:
    """List all data sets, or do what the first word says."""
    commands = {"prepare": prepare, "verify": verify, "show": show}
    if arguments and arguments[0] in commands:
        commands[arguments[0]](arguments[1:])
    else:
        _list(arguments)


def _list(arguments: Sequence[str]) -> None:
    options = parse(Listing, arguments, "capsjax datasets")
    rows: list[dict[str, Any]] = []
    for dataset in map(data.find, data.names()):
        to_prepare = dataset.origin in ("archives", "rendering")
        state, size = prepared.state_of(dataset.name) if to_prepare else (dataset.origin, None)
        rows.append(
            {
                "name": dataset.name,
                "splits": dict(dataset.sizes),
                "image_shape": list(dataset.image_shape),
                "classes": dataset.num_classes,
                "source": dataset.source,
                "licence": dataset.licence,
                "state": state,
                "bytes": size,
            }
        )
    if options.json:
        print_json(rows)
        return
    table(
        ("name", "splits", "image", "classes", "state", "source", "licence"),
        [
            (
                row["name"],
                ", ".join(f"{split} {size:,}" for split, size in row["splits"].items()),
                "x".join(map(str, row["image_shape"])),
                str(row["classes"]),
                row["state"] + ("" if row["bytes"] is None else f", {_size(row['bytes'])}"),
                row["source"],
                row["licence"],
            )
            for row in rows
        ],
    )


def _size(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def prepare(arguments: Sequence[str]) -> None:
    """Prepare a data set."""
    options = parse(Prepare, arguments, "capsjax datasets prepare")
    dataset = data.find(options.name)
    if dataset.origin not in ("archives", "rendering"):
        print(f"{options.name} needs no preparation: it is {dataset.origin}")
        return
    there = prepared.folder_of(options.name)
    folder = prepared.prepare(options.name, force=options.force, unverified=options.unverified)
    if there is not None and not options.force:
        print(f"{options.name} is prepared in {folder}; --force makes it anew")
    else:
        print(f"{options.name} is now in {folder}")


def verify(arguments: Sequence[str]) -> None:
    """Verify a data set."""
    options = parse(Verify, arguments, "capsjax datasets verify")
    dataset = data.find(options.name)
    official: bool | None = True
    if dataset.origin in ("archives", "rendering"):
        official = prepared.check_files(options.name)
    histograms = {}
    for split, size in dataset.sizes.items():
        arrays = dataset.load(split)
        count = len(arrays["label"])
        if count != size and official is not False:
            raise ValueError(
                f"{options.name} has {count:,} examples in {split}, expected {size:,}: make it "
                f"again with capsjax datasets prepare {options.name} --force"
            )
        labels = np.bincount(arrays["label"].ravel(), minlength=dataset.num_classes)
        if len(labels) > dataset.num_classes:
            raise ValueError(
                f"{options.name} has the label {len(labels) - 1} in {split}, expected 0 to "
                f"{dataset.num_classes - 1}"
            )
        histograms[split] = labels.tolist()
    if options.json:
        print_json({"name": options.name, "official": official, "labels": histograms})
        return
    origin = {
        True: "files and counts are as they should be",
        False: "files are as they were made, of archives that are not the official ones",
        None: "all images can be read, and counts are as they should be (TFDS made it, without "
        "checksums)",
    }
    print(f"{options.name}: {origin[official]}\n")
    table(
        ("class", *histograms),
        [
            (name, *(f"{labels[index]:,}" for labels in histograms.values()))
            for index, name in enumerate(dataset.class_names)
        ],
    )


def show(arguments: Sequence[str]) -> None:
    """Draw a contact sheet."""
    options = parse(Show, arguments, "capsjax datasets show")
    if not 1 <= options.count <= _MOST_SHOWN:
        raise ValueError(f"count is {options.count}, expected 1 to {_MOST_SHOWN}")
    dataset = data.find(options.name)
    arrays = dataset.load(options.split)
    total = len(arrays["label"])
    order = np.random.default_rng(options.seed).permutation(total)[: options.count]
    captions = [_caption(arrays, dataset.class_names, index) for index in order]
    title = f"{dataset.name}, {options.split}: {len(order)} of {total:,}"
    figure = figures.contact_sheet(arrays["image"][order], captions, title=title)
    output = options.output or Path(f"{Path(options.name).stem}.png")
    pictures.write(figure, output, dpi=120)
    print(f"{len(order)} images of {options.name} are in {output}")


def _caption(arrays: data.Arrays, names: Sequence[str], index: int) -> str:
    """Class, or classes, and below it the factors, two on a line."""
    title = " + ".join(names[label] for label in np.atleast_1d(arrays["label"][index]))
    factors = []
    for key, values in arrays.items():
        if key in ("image", "label") or values.ndim > 2:
            continue
        form = ".2f" if values.dtype == np.float32 else "d"
        numbers = " ".join(format(value, form) for value in np.atleast_1d(values[index]))
        factors.append(f"{key} {numbers}")
    pairs = [", ".join(factors[start : start + 2]) for start in range(0, len(factors), 2)]
    return "\n".join([title, *pairs])
