"""Reconstructions of two digits: errors against loops, and pictures that survive being kept."""

import json

import numpy as np
import pytest

from capsjax.training.evaluation import Prediction
from experiments import separation


def example(said):
    """Pictures of two flat digits of 4x4 pixels, and what was said and drawn of them."""
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 128, (len(said), 2, 4, 4, 1), np.uint8)
    labels = np.array([[n % 9, n % 9 + 1] for n in range(len(said))], np.int32)
    arrays = {"image": sources.sum(1, dtype=np.uint8), "label": labels, "sources": sources}
    drawn = rng.random((len(said), 2, 4, 4, 1)).astype(np.float32)
    prediction = Prediction(np.array(said, np.int32), np.zeros((len(said), 10)), drawn)
    return prediction, arrays


def test_a_reconstruction_is_compared_with_the_digit_of_its_class():
    # Both found, in the other order; one found; none.
    prediction, arrays = example([[1, 0], [1, 5], [8, 9]])
    found = separation.squared_errors(prediction, arrays)
    drawn, sources = prediction.reconstructions, arrays["sources"] / 255

    def error(a, b):
        return float(((a - b) ** 2).mean())

    own = [
        error(drawn[0, 1], sources[0, 0]),
        error(drawn[0, 0], sources[0, 1]),
        error(drawn[1, 0], sources[1, 0]),
    ]
    assert found["reconstruction"] == pytest.approx(np.mean(own))
    assert found["by_class"][0] == pytest.approx(own[0])
    assert found["by_class"][1] == pytest.approx((own[1] + own[2]) / 2)
    assert found["by_class"][2:] == [None] * 8
    others = [error(sources[n, 0], sources[n, 1]) for n in (0, 0, 1)]
    assert found["other"] == pytest.approx(np.mean(others))
    # What is left of the whole picture without one digit is the other.
    rest = [(sources[n, k] ** 2).mean() for n, k in ((0, 1), (0, 0), (1, 1))]
    assert found["picture"] == pytest.approx(np.mean(rest))
    blank = [(sources[n, k] ** 2).mean() for n, k in ((0, 0), (0, 1), (1, 0))]
    assert found["blank"] == pytest.approx(np.mean(blank))


def test_nothing_found_is_no_number():
    prediction, arrays = example([[8, 9]])
    found = separation.squared_errors(prediction, arrays)
    assert json.loads(json.dumps(found)) == found
    assert found["reconstruction"] is None


def test_without_a_decoder_there_is_nothing_to_compare():
    prediction, arrays = example([[1, 0]])
    with pytest.raises(ValueError, match="holds no reconstructions"):
        separation.squared_errors(prediction._replace(reconstructions=None), arrays)


def test_kept_pictures_stand_beside_what_was_drawn_of_their_class():
    prediction, arrays = example([[1, 0], [1, 5], [8, 2], [9, 8]])
    kept = json.loads(json.dumps(separation.kept(prediction, arrays, 4)))
    assert kept["said"] == [[0, 1], [1, 5], [2, 8], [9, 8]]
    figure = separation.sheet(kept, "title")
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 20
    pictures = [axis.images[0].get_array() for axis in shown[:5]]
    expected = [
        arrays["image"][0] / 255,
        arrays["sources"][0, 0] / 255,
        prediction.reconstructions[0, 1],
        arrays["sources"][0, 1] / 255,
        prediction.reconstructions[0, 0],
    ]
    # 16 shades; the whole picture is made of two of them.
    for picture, wanted in zip(pictures, expected, strict=True):
        np.testing.assert_allclose(picture, wanted[..., 0], atol=1 / 15)
    said = shown[2].get_title()
    error = ((prediction.reconstructions[0, 1] - arrays["sources"][0, 0] / 255) ** 2).mean()
    assert said == f"drawn as 0\nerror {error:.4f}"
