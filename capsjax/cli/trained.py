"""``capsjax evaluate`` and ``capsjax predict``: using a trained network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from capsjax import data
from capsjax.cli.options import parse, print_json, table
from capsjax.data import files
from capsjax.training import run


@dataclass(frozen=True)
class Evaluate:
    """Error of a trained network: 95 % Wilson interval, error of each class, confusion matrix."""

    run: tyro.conf.Positional[Path]
    """run directory, as made by capsjax train"""
    split: str = "test"
    """split of the data set (for your own files also "all")"""
    dataset: str | None = None
    """another data set's name or path; None is the one of the run"""
    json: bool = False
    """print one JSON object instead"""


@dataclass(frozen=True)
class Predict:
    """Class of image files, by a trained network."""

    run: tyro.conf.Positional[Path]
    """run directory, as made by capsjax train"""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """image files, of the size that the network was trained on"""
    json: bool = False
    """print a JSON array instead"""


def evaluate(arguments: Sequence[str]) -> None:
    """Print the error of a trained network."""
    options = parse(Evaluate, arguments, "capsjax evaluate")
    trained = run.load(options.run)
    name = options.dataset or trained.settings.dataset
    dataset = data.find(name)
    shape = trained.settings.shape_of_data
    if dataset.image_shape != shape:
        raise ValueError(
            f"images of {name} have shape {dataset.image_shape}, the network of {options.run} "
            f"takes {shape}: bring them to that size first"
        )
    names = trained.settings.class_names
    if any(ours != theirs for ours, theirs in zip(names, dataset.class_names, strict=False)):
        raise ValueError(
            f"classes of {name} are {', '.join(dataset.class_names)}, the network of {options.run} "
            f"was trained on {', '.join(names)}: labels would mean something else; use the same "
            "names"
        )
    evaluation = trained.evaluate(dataset.load(options.split))
    low, high = evaluation.interval
    matrix = evaluation.confusion
    if options.json:
        print_json(
            {
                "dataset": name,
                "split": options.split,
                "error": evaluation.error,
                "error_interval_95": [low, high],
                "errors": evaluation.errors,
                "digit_error": evaluation.digit_error,
                "images": evaluation.total,
                "class_errors": dict(zip(names, evaluation.class_errors, strict=True)),
                "confusion": None if matrix is None else matrix.tolist(),
            }
        )
        return
    print(
        f"{name}, {options.split}: error {evaluation.error:.2%} (95 % interval {low:.2%} to "
        f"{high:.2%}, {evaluation.errors} of {evaluation.total:,})"
    )
    if matrix is None:
        print(f"{evaluation.digit_error:.2%} of all single digits missed")
    print()
    table(
        ("class", "images", "error", *(f"as {other}" for other in names if matrix is not None)),
        [
            (
                label,
                str(evaluation.shown[row]),
                "-" if error is None else f"{error:.2%}",
                *map(str, () if matrix is None else matrix[row]),
            )
            for row, (label, error) in enumerate(zip(names, evaluation.class_errors, strict=True))
        ],
    )


def predict(arguments: Sequence[str]) -> None:
    """Print the class of each image."""
    options = parse(Predict, arguments, "capsjax predict")
    if not options.images:
        raise ValueError("no image given, expected: capsjax predict RUN IMAGE...")
    trained = run.load(options.run)
    height, width, channels = trained.settings.shape_of_data
    images = []
    for path in options.images:
        image = files.read_image(path, channels=channels)
        if image.shape[:2] != (height, width):
            raise ValueError(
                f"{path} is {image.shape[1]} wide and {image.shape[0]} high, the network of "
                f"{options.run} takes {width} and {height}: resize it first"
            )
        images.append(image)
    prediction = trained.predict(np.stack(images))
    names = trained.settings.class_names
    found = list(zip(options.images, prediction.labels, prediction.activations, strict=True))
    rows = [
        {
            "image": str(path),
            "class": names[label] if label.ndim == 0 else [names[each] for each in label],
            "activation": activations[label].tolist(),
            "activations": dict(zip(names, map(float, activations), strict=True)),
        }
        for path, label, activations in found
    ]
    if options.json:
        print_json(rows)
    else:
        table(
            ("image", "class", "activation"),
            [
                (
                    str(path),
                    " ".join(names[each] for each in np.atleast_1d(label)),
                    " ".join(f"{activations[each]:.3f}" for each in np.atleast_1d(label)),
                )
                for path, label, activations in found
            ],
        )
