"""Tables and grids show what they were given, where it belongs."""

import io

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from capsjax import figures


def test_a_table_writes_every_number_on_its_colour():
    figure = figures.table(
        [[0.1, 1.5], [np.nan, 0.5]], ["a", "b"], ["x", "y"], largest=1, label="R2", title="all"
    )
    axis, bar = figure.axes
    said = {text.get_position(): text.get_text() for text in axis.texts}
    assert said == {(0, 0): "0.10", (1, 0): "1.50", (1, 1): "0.50"}
    assert [label.get_text() for label in axis.get_xticklabels()] == ["x", "y"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert axis.images[0].get_clim() == (0, 1)
    assert (axis.get_title(), bar.get_ylabel()) == ("all", "R2")


def test_a_signed_table_is_white_at_0_and_may_have_texts():
    figure = figures.table(
        [[-1.0, 0.0]], ["a"], ["x", "y"], largest=2, label="", texts=[["low", "none"]]
    )
    axis = figure.axes[0]
    picture = axis.images[0]
    assert picture.get_clim() == (-2, 2)
    assert picture.cmap(picture.norm(0.0)) == pytest.approx((1, 1, 1, 1), abs=0.01)
    assert [text.get_text() for text in axis.texts] == ["low", "none"]


def test_a_grid_has_every_image_in_its_row_and_column():
    images = np.arange(24).reshape(2, 3, 2, 2) / 24
    figure = figures.image_grid(images, ["a", "b"], ["x", "y", "z"], title="t")
    (axis,) = figure.axes
    shown = axis.images[0].get_array()
    assert shown.shape == (8, 12)  # each with a line around
    for row, column in np.ndindex(2, 3):
        place = shown[4 * row + 1 : 4 * row + 3, 4 * column + 1 : 4 * column + 3]
        np.testing.assert_array_equal(place, images[row, column])
        assert axis.get_xticks()[column] == 4 * column + 1.5
        assert axis.get_yticks()[row] == 4 * row + 1.5
    assert [label.get_text() for label in axis.get_xticklabels()] == ["x", "y", "z"]


def test_a_notebook_shows_a_figure_before_pyplot_drew_one():
    figure = figures.image_grid(np.zeros((1, 1, 2, 2)), ["a"], ["x"])
    shown, _ = DisplayFormatter().format(figure)
    picture = Image.open(io.BytesIO(shown["image/png"]))
    assert picture.size == tuple(np.round(figure.get_size_inches() * figure.dpi).astype(int))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: figures.table([[1.0]], ["a", "b"], ["x"], largest=1, label=""),
            "2 names given, expected 1",
        ),
        (
            lambda: figures.table([[1.0]], ["a"], ["x"], largest=0, label=""),
            "largest is 0, expected a positive",
        ),
        (
            lambda: figures.table([[1.0]], ["a"], ["x"], largest=1, label="", texts=[["a", "b"]]),
            "texts are not 1 rows of 1",
        ),
        (
            lambda: figures.image_grid(np.zeros((1, 1, 2)), ["a"], ["x"]),
            r"images have shape \(1, 1, 2\), expected \[rows, columns, height, width\]",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
