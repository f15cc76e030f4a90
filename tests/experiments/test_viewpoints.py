"""Errors by viewpoint, counted by hand."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from experiments import training, viewpoints

VIEWS = {
    "image": np.zeros((6, 4, 4, 2), np.uint8),
    "label": np.array([0, 0, 1, 1, 0, 1]),
    "instance": np.array([0, 0, 0, 0, 1, 0]),
    "azimuth": np.array([0, 40, 300, 100, 180, 100]),
    "elevation": np.array([30, 30, 40, 40, 70, 70]),
}


class Said(NamedTuple):
    labels: np.ndarray


class Fixed:
    """Says this of any images; the second, the fourth and the fifth are wrong."""

    def predict(self, images: np.ndarray) -> Said:
        return Said(np.array([0, 1, 1, 0, 1, 1]))


@pytest.mark.parametrize(
    ("split", "parts"),
    [
        ("azimuth", {"familiar": [0, 1, 0], "novel": [1, 1, 0]}),
        ("elevation", {"familiar": [0, 1, 0, 1], "novel": [1, 0]}),
        ("own", {"all": [0, 1, 0, 1, 1, 0]}),
    ],
)
def test_errors_are_counted_on_familiar_and_on_novel_views(split: str, parts: dict) -> None:
    fixed: Any = Fixed()
    found = viewpoints.measure(fixed, VIEWS, split)
    assert set(found) == {*parts, "by", "toys"}
    for part, wrong in parts.items():
        assert found[part]["test_errors"] == sum(wrong)
        assert found[part]["test_error"] == sum(wrong) / len(wrong)
        assert training.wrong_images(found[part]).tolist() == [bool(each) for each in wrong]


def test_errors_are_counted_by_angle_and_by_toy() -> None:
    fixed: Any = Fixed()
    found = viewpoints.measure(fixed, VIEWS, "azimuth")
    assert found["by"] == {
        "azimuth": {
            "values": [0, 40, 100, 180, 300],
            "errors": [0, 1, 1, 1, 0],
            "images": [1, 1, 2, 1, 1],
        },
        "elevation": {"values": [30, 40, 70], "errors": [1, 1, 1], "images": [2, 2, 2]},
    }
    # Novel are the last three: one of a toy of the first category, two of one of the second.
    assert found["toys"] == {"values": [1, 100], "errors": [1, 1], "images": [1, 2]}


def test_a_ratio_s_interval_is_that_of_toys_drawn_anew() -> None:
    same = {"errors": [3, 1, 4]}
    assert viewpoints.ratio_interval(same, same) == (1, 1, 1)
    # Two toys: twice the first (1/2), twice the second (3/2), both (1), a quarter to a half each.
    assert viewpoints.ratio_interval({"errors": [1, 3]}, {"errors": [2, 2]}) == (1, 0.5, 1.5)


def test_only_familiar_views_are_shown() -> None:
    views = viewpoints.few()
    shown = {split: viewpoints.shown(views, split).load("train") for split in ("azimuth", "own")}
    assert set(shown["own"]["azimuth"].tolist()) == {0, 40, 180}
    assert set(shown["azimuth"]["azimuth"].tolist()) == {0, 40}
    assert set(shown["azimuth"]["elevation"].tolist()) == {30, 50}
    assert len(shown["azimuth"]["image"]) == 40
