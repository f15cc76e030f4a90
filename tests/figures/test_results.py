"""Pictures of results show the numbers that they were given."""

import numpy as np
import pytest

from capsjax import figures


def test_errors_are_dots_in_percent_with_their_intervals():
    figure = figures.errors(
        [0.01, 0.02],
        [[0.005, 0.02], [0.015, 0.03]],
        ["first", "second"],
        references={"paper": 0.0025},
    )
    (axis,) = figure.axes
    dots, _, (bars,) = axis.containers[0].lines
    assert list(dots.get_xdata()) == pytest.approx([1, 2])
    ends = [segment[:, 0] for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[0.5, 2], [1.5, 3]])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["first", "second"]
    assert any(list(line.get_xdata()) == [0.25, 0.25] for line in axis.lines)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["paper"]


@pytest.mark.parametrize(
    ("values", "intervals", "names", "message"),
    [
        ([0.1], [[0, 1], [0, 1]], ["a"], r"intervals have shape \(2, 2\), expected \[1, 2\]"),
        ([0.1], [[0, 1]], ["a", "b"], "2 names given, expected 1, one for each row"),
        ([], np.zeros((0, 2)), [], r"values have shape \(0,\), expected \[N\]"),
    ],
)
def test_errors_that_do_not_belong_together_are_refused(values, intervals, names, message):
    with pytest.raises(ValueError, match=message):
        figures.errors(values, intervals, names)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_curves_have_a_line_a_series_and_a_band_where_there_is_a_spread(logarithmic):
    figure = figures.curves(
        [1, 2, 3],
        {"capsules": [3, 2, 1], "CNN": [4, 3, np.nan]},
        xlabel="images",
        ylabel="error",
        spreads={"CNN": [[3, 5], [2, 4], [1, 3]]},
        logarithmic=logarithmic,
    )
    (axis,) = figure.axes
    assert [list(line.get_ydata())[:2] for line in axis.lines] == [[3, 2], [4, 3]]
    assert len(axis.collections) == 1
    assert axis.get_xscale() == ("log" if logarithmic else "linear")
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("images", "error")


def test_curves_of_nothing_or_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="series is empty"):
        figures.curves([1], {}, xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match=r"CNN have shape \(2,\), expected \[3\]"):
        figures.curves([1, 2, 3], {"CNN": [1, 2]}, xlabel="x", ylabel="y")
