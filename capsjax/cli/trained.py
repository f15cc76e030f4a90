"""``capsjax evaluate`` and ``capsjax predict``: using a trained network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from capsjax import data, pretrained
from capsjax.cli.options import parse, print_json, table
from capsjax.data import files
from capsjax.training.evaluation import Evaluation


@dataclass(frozen=True)
class Evaluate:
    """Error of a trained network: 95 % Wilson interval, error of each class, confusion matrix."""

    run: tyro.conf.Positional[Path]
    """run directory as made by capsjax train, file of capsjax export, or name listed by capsjax
    pretrained; a path that is there comes first"""
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
    """run directory as made by capsjax train, file of capsjax export, or name listed by capsjax
    pretrained; a path that is there comes first"""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """image files, of the size that the network was trained on"""
    json: bool = False
    """print a JSON array instead"""


def evaluate(arguments: Sequence[str]) -> None:
    """Print the error of a trained network."""
    options = parse(Evaluate, arguments, "capsjax evaluate")
    trained, card = pretrained.find(options.run)
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
    tested = None
    if card is not None and (name, options.split) == (trained.settings.dataset, "test"):
        tested = card.tested
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
                **({} if tested is None else _stated(tested, evaluation)),
            }
        )
        return
    print(
        f"{name}, {options.split}: error {evaluation.error:.2%} (95 % interval {low:.2%} to "
        f"{high:.2%}, {evaluation.errors} of {evaluation.total:,})"
    )
    if matrix is None:
        print(f"{evaluation.digit_error:.2%} of all single digits missed")
    if tested is not None:
        _print_stated(tested, evaluation)
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


def _stated(tested: pretrained.Tested, evaluation: Evaluation) -> dict[str, Any]:
    """What the file states beside what was found, as JSON values."""
    return {
        "stated_errors": tested.errors,
        "stated_images": tested.images,
        "same_platform": tested.platform == pretrained.here(),
        "reproduced": tested.reproduced(evaluation.errors, evaluation.total),
    }


def _print_stated(tested: pretrained.Tested, evaluation: Evaluation) -> None:
    same = tested.platform == pretrained.here()
    reproduced = tested.reproduced(evaluation.errors, evaluation.total)
    print(
        f"stated: {tested.errors} of {tested.images:,}, measured on {tested.where()}\n"
        "expected: exactly so many on the same platform, within "
        f"{pretrained.ELSEWHERE} images elsewhere\n"
        f"here, on {'the same' if same else 'another'} platform: {evaluation.errors}, "
        f"{'as expected' if reproduced else 'NOT as expected'}"
    )


def predict(arguments: Sequence[str]) -> None:
    """Print the class of each image."""
    options = parse(Predict, arguments, "capsjax predict")
    if not options.images:
        raise ValueError("no image given, expected: capsjax predict RUN IMAGE...")
    trained, _ = pretrained.find(options.run)
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
