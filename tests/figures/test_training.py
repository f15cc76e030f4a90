"""What the figures of a training run plot."""

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from capsjax import figures


def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=40)
    return file.getvalue()


def shown(axis: Any) -> np.ndarray:
    """The one image of an axis."""
    [image] = axis.get_images()
    return np.asarray(image.get_array())


def history(steps: int, validated: Any = ()) -> list[dict[str, Any]]:
    """Training losses 1/step and 2/step, accuracy 0.75; errors as given, every ten steps."""
    train = [
        {
            "step": step,
            "split": "train",
            "loss": 3 / step,
            "classification_loss": 1 / step,
            "reconstruction_loss": 2 / step,
            "accuracy": 0.75,
        }
        for step in range(1, steps + 1)
    ]
    validation = [
        {"step": 10 * number, "split": "validation", "error": error}
        for number, error in enumerate(validated, start=1)
    ]
    return train + validation


# Learning curves


@pytest.mark.core
def test_learning_curves_plot_both_losses_by_step() -> None:
    figure = figures.learning_curves(history(30, [0.5, 0.25]))
    left, right = figure.axes
    assert left.get_yscale() == "log"
    steps = np.arange(1, 31)
    raw = [line.get_ydata() for line in left.lines if line.get_label().startswith("_")]
    np.testing.assert_allclose(raw[0], 1 / steps)
    np.testing.assert_allclose(raw[1], 2 / steps)
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert labels == ["classification loss", "reconstruction loss"]
    # Smoothed over three steps, two at the ends.
    smooth = left.lines[1].get_ydata()
    assert smooth[0] == pytest.approx((1 + 1 / 2) / 2)
    assert smooth[9] == pytest.approx((1 / 9 + 1 / 10 + 1 / 11) / 3)
    assert smooth[29] == pytest.approx((1 / 29 + 1 / 30) / 2)
    np.testing.assert_array_equal(left.lines[1].get_xdata(), steps)
    assert png(figure).startswith(b"\x89PNG")
    assert right.get_ylabel() == "error (%)"


@pytest.mark.core
def test_learning_curves_plot_errors_in_percent() -> None:
    right = figures.learning_curves(history(30, [0.5, 0.25])).axes[1]
    train, validation = right.lines
    np.testing.assert_allclose(train.get_ydata(), 25)
    np.testing.assert_allclose(validation.get_xdata(), [10, 20])
    np.testing.assert_allclose(validation.get_ydata(), [50, 25])
    assert right.get_ylim()[0] == 0
    assert right.get_ylim()[1] > 50


def test_learning_curves_before_the_first_validation() -> None:
    figure = figures.learning_curves(history(1))
    assert len(figure.axes[1].lines) == 1
    assert png(figure).startswith(b"\x89PNG")


def test_learning_curves_of_a_network_without_a_decoder() -> None:
    entries = [{**entry, "reconstruction_loss": 0.0} for entry in history(20)]
    assert png(figures.learning_curves(entries)).startswith(b"\x89PNG")


@pytest.mark.parametrize("entries", [[], history(0, [0.5])])
def test_learning_curves_without_a_training_step_are_refused(entries: list) -> None:
    with pytest.raises(ValueError, match="split 'train'"):
        figures.learning_curves(entries)


# Reconstructions


def test_two_reconstructions_of_an_image_lie_below_it() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 5, 4, 1)).astype(np.uint8)
    rebuilt = rng.random((3, 2, 5, 4, 1)).astype(np.float32)
    figure = figures.reconstructions(images, rebuilt, ["0 1", "2 3", "4 5"], ["0 1", "2 4", "4 5"])
    assert len(figure.axes) == 9
    for column in range(3):
        for row in range(2):
            axis = figure.axes[3 * (row + 1) + column]
            np.testing.assert_allclose(shown(axis), rebuilt[column, row, ..., 0], rtol=1e-6)
    assert [axis.get_title() for axis in figure.axes[:3]] == ["0 1", "2 3 as 2 4", "4 5"]
    assert png(figure).startswith(b"\x89PNG")


def test_mistakes_of_two_classes_name_both_sets() -> None:
    images = np.zeros((3, 4, 4, 1), np.uint8)
    labels = np.array([[2, 0], [1, 0], [1, 2]])
    activations = np.array([[0.9, 0.1, 0.7], [0.2, 0.4, 0.6], [0.8, 0.3, 0.6]])
    figure = figures.mistakes(images, labels, activations, ["a", "b", "c"])
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    # Surest first: means of 0.7 and 0.5; the first image is right.
    assert titles == ["b c as a c\n0.45, 0.70", "a b as b c\n0.30, 0.50"]


@pytest.mark.core
@pytest.mark.parametrize("channels", [1, 3])
def test_images_lie_over_their_reconstructions(channels: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 5, 4, channels)).astype(np.uint8)
    rebuilt = rng.random((3, 5, 4, channels)).astype(np.float32)
    figure = figures.reconstructions(images, rebuilt, ["a", "b", "c"], ["a", "c", "c"])
    assert len(figure.axes) == 6
    for column in range(3):
        upper, lower = figure.axes[column], figure.axes[3 + column]
        np.testing.assert_allclose(
            shown(upper).reshape(5, 4, channels), images[column] / 255, rtol=1e-6
        )
        np.testing.assert_allclose(shown(lower).reshape(5, 4, channels), rebuilt[column], rtol=1e-6)
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert titles == ["a", "b as c", "c"]
    colors = [to_rgba(axis.title.get_color()) for axis in figure.axes[:3]]
    assert colors == [to_rgba("black"), to_rgba(figures.RED), to_rgba("black")]
    assert png(figure).startswith(b"\x89PNG")


def test_grey_images_are_shown_from_black_to_white() -> None:
    images = np.full((1, 4, 4, 1), 100, np.uint8)
    figure = figures.reconstructions(images, images / 255, ["a"], ["a"])
    [image] = figure.axes[0].get_images()
    assert image.get_clim() == (0, 1)
    assert image.get_cmap().name == "gray"


# Mistakes

NAMES = ["zero", "one", "two"]
ACTIVATIONS = np.array(
    [
        [0.9, 0.1, 0.2],  # right
        [0.3, 0.6, 0.1],  # wrong, 0.6 sure
        [0.1, 0.2, 0.8],  # wrong, 0.8 sure
        [0.1, 0.7, 0.2],  # right
        [0.7, 0.2, 0.1],  # wrong, 0.7 sure
    ]
)
TRUE = np.array([0, 0, 1, 1, 2])


def numbered(count: int, channels: int = 1) -> np.ndarray:
    images = np.zeros((count, 4, 4, channels), np.uint8)
    images += np.arange(count, dtype=np.uint8)[:, None, None, None]
    return images


@pytest.mark.core
@pytest.mark.parametrize("channels", [1, 3])
def test_mistakes_come_surest_first_with_both_classes_and_activations(channels: int) -> None:
    figure = figures.mistakes(numbered(5, channels), TRUE, ACTIVATIONS, NAMES)
    filled = [axis for axis in figure.axes if axis.get_images()]
    assert [round(float(shown(axis).max() * 255)) for axis in filled] == [2, 4, 1]
    assert [axis.get_title() for axis in filled] == [
        "one as two\n0.20, 0.80",
        "two as zero\n0.10, 0.70",
        "zero as one\n0.30, 0.60",
    ]
    assert png(figure).startswith(b"\x89PNG")


def test_no_more_mistakes_are_shown_than_asked_for() -> None:
    figure = figures.mistakes(numbered(5), TRUE, ACTIVATIONS, NAMES, most=2)
    filled = [axis for axis in figure.axes if axis.get_images()]
    assert [round(float(shown(axis).max() * 255)) for axis in filled] == [2, 4]


def test_many_mistakes_fill_several_rows() -> None:
    activations = np.tile([0.2, 0.9, 0.1], (30, 1))
    figure = figures.mistakes(numbered(30), np.zeros(30, int), activations, NAMES)
    assert sum(bool(axis.get_images()) for axis in figure.axes) == 24


@pytest.mark.core
def test_without_a_mistake_the_figure_says_so() -> None:
    figure = figures.mistakes(numbered(3), np.array([0, 1, 2]), np.eye(3), NAMES)
    assert not any(axis.get_images() for axis in figure.axes)
    assert "no mistakes" in {text.get_text() for axis in figure.axes for text in axis.texts}
    assert png(figure).startswith(b"\x89PNG")


# Confusion


@pytest.mark.core
def test_confusion_shows_counts_with_a_pale_diagonal() -> None:
    matrix = np.array([[50, 3, 0], [1, 40, 0], [0, 7, 60]])
    figure = figures.confusion(matrix, NAMES)
    [axis] = figure.axes
    np.testing.assert_array_equal(shown(axis), [[0, 3, 0], [1, 0, 0], [0, 7, 0]])
    written = {text.get_position(): text.get_text() for text in axis.texts}
    assert written == {
        (0, 0): "50", (1, 0): "3", (0, 1): "1", (1, 1): "40", (1, 2): "7", (2, 2): "60",
    }  # fmt: skip
    assert [label.get_text() for label in axis.get_xticklabels()] == NAMES
    assert [label.get_text() for label in axis.get_yticklabels()] == NAMES
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("matrix", [np.array([[5]]), np.diag([3, 4]), np.zeros((2, 2), int)])
def test_confusion_without_a_mistake_or_with_one_class(matrix: np.ndarray) -> None:
    names = NAMES[: len(matrix)]
    figure = figures.confusion(matrix, names)
    assert shown(figure.axes[0]).max() == 0
    assert png(figure).startswith(b"\x89PNG")


def test_confusion_of_a_hundred_classes_grows() -> None:
    many = figures.confusion(np.eye(100, dtype=int), [str(number) for number in range(100)])
    few = figures.confusion(np.eye(3, dtype=int), NAMES)
    assert many.get_figwidth() > 5 * few.get_figwidth()
