"""Figures: arrays in, a figure out; it has to be one that can be drawn."""

from collections.abc import Callable
from typing import Any

import numpy as np

from capsjax import figures
from capsjax.analysis.statistics import expected_calibration_error
from tests.fuzz.judge import Row

_RANDOM = np.random.default_rng(0)
_IMAGES = _RANDOM.integers(0, 255, (3, 8, 8, 1)).astype(np.uint8)
_UNIT = _IMAGES / 255
_WORDS = ["a", "b", "c"]
_SHARES = _RANDOM.dirichlet(np.ones(2), (3, 4)).transpose(0, 2, 1)  # 3 iterations, 2 parents
_VOTES, _POSES = _RANDOM.normal(size=(2, 2, 4)), _RANDOM.normal(size=(3, 2, 2))
_LOSSES = {"classification_loss": 0.4, "reconstruction_loss": 0.1, "accuracy": 0.5}
_HISTORY = [
    {"step": 1, "split": "train", **_LOSSES},
    {"step": 2, "split": "validation", "error": 0.2},
    {"step": 2, "split": "train", **_LOSSES},
]
_AT = np.arange(3.0)


def _row(function: Callable[..., Any], only: tuple[str, ...] | None = None, **valid: Any) -> Row:
    def figure(**given: Any) -> None:
        function(**given)

    name = f"figures.{function.__name__}"
    return Row(name, figure, valid, compiled=False, only=only, hides="a figure has a gap there")


ROWS = [
    _row(figures.adversarial, images=_IMAGES, changed=_UNIT, before=_WORDS, after=_WORDS,
         epsilon=0.1),
    _row(figures.perturbations, images=_RANDOM.uniform(size=(2, 3, 8, 8, 1)), offsets=_AT,
         names=["x", "y"]),
    _row(figures.feature_maps, maps=_RANDOM.normal(size=(5, 5, 3)), most=2, title="maps"),
    _row(figures.dead_capsules, activations=_RANDOM.uniform(size=(4, 5)), threshold=0.1),
    _row(figures.contact_sheet, images=_IMAGES, captions=_WORDS, title="images"),
    _row(figures.flow, coefficients=_SHARES, iterations=[1, 3], parents=["x", "y"]),
    _row(figures.squash_curve, before=_AT, after={"squash": _AT}),
    _row(figures.margin_loss_curve, lengths=_AT, present=_AT, absent=_AT, margins=(0.9, 0.1)),
    _row(figures.errors, values=[0.1, 0.2], intervals=[[0.0, 0.2], [0.1, 0.3]],
         names=["x", "y"], references={"paper": 0.1}),
    _row(figures.curves, at=_AT, series={"x": _AT}, xlabel="x", ylabel="y", logarithmic=False),
    _row(figures.calibration, fewest=1,
         series={"x": expected_calibration_error([0.9, 0.3], [True, False], bins=2)}),
    _row(figures.coefficients, coefficients=_SHARES, iterations=[1, 3], parents=["x", "y"]),
    _row(figures.curves_by_iteration, curves={"x": _AT}, ylabel="y", log=False),
    _row(figures.routing_in_2d, votes=_VOTES, poses=_POSES, coefficients=_SHARES,
         iterations=[1, 3]),
    _row(figures.table, values=_RANDOM.uniform(size=(2, 3)), rows=["x", "y"], columns=_WORDS,
         largest=1.0, label="share"),
    _row(figures.image_grid, images=_UNIT[None, ..., 0], rows=["x"], columns=_WORDS),
    _row(figures.learning_curves, history=_HISTORY),
    _row(figures.reconstructions, images=_IMAGES, reconstructed=_UNIT, labels=_WORDS,
         predictions=_WORDS),
    _row(figures.mistakes, images=_IMAGES, labels=np.array([0, 1, 2]),
         activations=_RANDOM.uniform(size=(3, 3)), names=_WORDS, most=2),
    _row(figures.confusion, matrix=np.eye(3, dtype=int), names=_WORDS),
    _row(figures.by_angle, angles=_AT, series={"x": _AT}, ylabel="y", images=_IMAGES),
    _row(figures.equivariance, angles=_AT, poses=_RANDOM.normal(size=(3, 2, 2))),
]  # fmt: skip
