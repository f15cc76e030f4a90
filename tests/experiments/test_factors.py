"""Accuracy by factor: bins, intervals and words against numbers counted by hand."""

import numpy as np
import pytest

from experiments import factors


def test_images_and_errors_are_counted_in_the_bins_of_every_factor():
    # rotation, shear, scale of height and width, shift down and to the right
    parameters = np.array(
        [
            [-20.0, 0.0, 0.8, 0.8, 0.0, 0.0],
            [-14.9, 0.2, 1.2, 0.8, -3.0, 1.0],
            [19.9, -0.2, 1.2, 1.2, 2.0, 99.0],
        ]
    )
    found = factors.count(parameters, np.array([False, True, True]))
    assert found["rotation"] == {
        "images": [1, 1, 0, 0, 0, 0, 0, 1],
        "errors": [0, 1, 0, 0, 0, 0, 0, 1],
    }
    assert found["shear"]["images"] == [1, 0, 0, 0, 1, 0, 0, 1]
    # sqrt(0.96) = 0.98 is in the bin from 0.95 to 1.
    assert found["scale"]["errors"] == [0, 0, 0, 1, 0, 0, 0, 1]
    # Shifts of at most 0, 3 and 99 pixels; the last bin takes what is beyond it.
    assert found["shift"]["images"] == [1, 1, 0, 0, 0, 0, 0, 1]


def test_accuracy_has_wilson_s_interval_and_no_value_without_images():
    rows = factors.accuracy({"images": [100, 0], "errors": [10, 0]})
    # By hand: centre (0.1 + 0.0192) / 1.0384, half width 1.96 / 1.0384 * sqrt(0.0009 + 0.000096).
    np.testing.assert_allclose(rows[0], [90, 82.56, 94.48], atol=0.01)
    assert np.isnan(rows[1]).all()


def test_the_words_leave_bins_of_few_images_out():
    few = {"images": [100, 100, 10, 0, 0, 0, 0, 0], "errors": [1, 50, 10, 0, 0, 0, 0, 0]}
    none = {"images": [1] * 8, "errors": [1] * 8}
    told = factors.ends({"rotation": few, "shear": none, "scale": none, "shift": none})
    assert told == "rotation 99.0 % (-20 to -15) to 50.0 % (-15 to -10)"


def test_every_factor_has_its_curve():
    rng = np.random.default_rng(0)
    low, high = np.array([[-20, 20], [-0.2, 0.2], [0.8, 1.2], [0.8, 1.2], [-9, 9], [-9, 9]]).T
    counts = factors.count(rng.uniform(low, high, (500, 6)), rng.random(500) < 0.2)
    drawn = factors.curves({"one": counts, "other": counts}, ylabel="accuracy (%)")
    assert set(drawn) == {"rotation", "scale", "shear", "shift"}
    for figure in drawn.values():
        assert [line.get_label() for line in figure.axes[0].lines] == ["one", "other"]
        assert np.nanmax(figure.axes[0].lines[0].get_ydata()) == pytest.approx(80, abs=15)
