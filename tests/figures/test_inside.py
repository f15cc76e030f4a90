"""Pictures of what is inside a network hold the numbers that they were given."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from capsjax import figures
from capsjax.analysis.statistics import expected_calibration_error


def layer(path, shape, kind="Convolution", parameters=12):
    return SimpleNamespace(path=path, kind=kind, output_shape=shape, parameters=parameters)


def test_an_architecture_has_a_label_and_as_many_sheets_and_bars_as_each_layer():
    rows = [
        layer("convolution", (20, 20, 3)),
        layer("primary", (6, 6, 2, 8), "PrimaryCapsules", 5000),
        layer("classes", (4, 16), "DenseCapsules"),
        layer("decoder", (28, 28, 1), "DenseDecoder"),
        layer("", (4,), "Network"),
    ]
    figure = figures.architecture(rows, (28, 28, 1), title="small")
    axis = figure.axes[0]
    said = [text.get_text().splitlines() for text in axis.texts if text.get_text()]
    assert said == [
        ["image", "28 x 28 x 1"],
        ["convolution", "20 x 20 x 3", "Convolution", "12 parameters"],
        ["primary", "6 x 6 x 2 x 8", "PrimaryCapsules", "5,000 parameters"],
        ["classes", "4 x 16", "DenseCapsules", "12 parameters"],
        ["decoder", "28 x 28 x 1", "DenseDecoder", "12 parameters"],
    ]
    drawn = {}
    for patch in axis.patches:
        if hasattr(patch, "get_width"):
            drawn.setdefault(patch.get_facecolor(), []).append(patch)
    assert len(drawn[to_rgba(figures.BLUE)]) == 3
    assert len(drawn[to_rgba(figures.ORANGE)]) == 2
    assert len(drawn[to_rgba(figures.PURPLE)]) == 4
    assert len(drawn[to_rgba(figures.GREEN)]) == 1
    # Sides go with the maps'.
    ratio = (
        drawn[to_rgba(figures.BLUE)][0].get_width() / drawn[to_rgba(figures.GREEN)][0].get_width()
    )
    assert ratio == pytest.approx(20 / 28)
    dots = next(line for line in axis.lines if len(line.get_xdata()) == 36)
    assert len(set(dots.get_ydata().round(6))) == 6


def test_layers_beyond_a_line_go_on_below():
    rows = [layer(f"convolutions.{n}", (9, 9, 2)) for n in range(9)]
    axis = figures.architecture(rows, (9, 9, 1)).axes[0]
    heights = [text.get_position()[1] for text in axis.texts if text.get_text()]
    assert len({round(height, 6) for height in heights[:7]}) == 1
    assert heights[7] < heights[0]


def test_perturbations_and_maps_are_where_they_belong():
    images = np.zeros((3, 2, 4, 4, 1))
    images[2, 1] = 0.5
    axis = figures.perturbations(images, [-0.25, 0.25]).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["-0.25", "+0.25"]
    assert [label.get_text() for label in axis.get_yticklabels()][2] == "dimension 2"
    assert axis.images[0].get_array()[13:17, 7:11].tolist() == [[0.5] * 4] * 4
    maps = np.zeros((2, 2, 9))
    maps[0, 1, 8] = 5.0
    maps[1, 1, 8] = -5.0
    shown = figures.feature_maps(maps).axes[0].images[0].get_array()
    assert shown.shape == (8, 32)  # a second row for the ninth, each with a frame
    assert shown[5:7, 1:3].tolist() == [[0, 1], [0, 0]]
    assert figures.feature_maps(maps, most=8).axes[0].images[0].get_array().shape == (4, 32)


def test_primary_capsules_lie_in_the_middle_of_their_fields():
    fields = np.array([[[0, 0, 5, 5], [0, 4, 5, 9]]])
    activations = np.array([[[0.1, 0.9], [0.3, 0.2]]])
    image = np.zeros((9, 9, 1), np.uint8)
    left, right = figures.primary_capsules(image, fields, activations, boxes=1).axes
    dots = left.collections[0]
    assert dots.get_offsets().tolist() == [[2, 2], [6, 2]]
    assert dots.get_sizes().tolist() == pytest.approx([4 + 99, 4 + 33])
    (box,) = right.patches
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((-0.5, -0.5), 5, 5)
    assert box.get_label() == "type 1: 0.90"


def test_boxes_of_one_place_lie_within_each_other():
    image, fields = np.zeros((9, 9, 1), np.uint8), np.array([[[0, 0, 5, 5]]])
    figure = figures.primary_capsules(image, fields, np.array([[[0.1, 0.9]]]), boxes=2)
    first, second = figure.axes[1].patches
    assert second.get_x() > first.get_x()
    assert second.get_width() < first.get_width()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["type 1: 0.90", "type 0: 0.10"]


def test_dead_capsules_are_counted_and_drawn_apart():
    activations = np.array([[0.5, 0.0, 0.004], [0.3, 0.0, 0.002]])
    axis = figures.dead_capsules(activations, title="primary").axes[0]
    assert axis.get_title() == "primary: 2 of 3 dead"
    alive, dead = axis.lines[:2]
    assert alive.get_xdata().tolist() == [1]
    assert alive.get_ydata().tolist() == pytest.approx([0.4])
    assert dead.get_xdata().tolist() == [2, 3]
    assert dead.get_ydata()[0] == pytest.approx(0.003)


def test_flow_has_a_line_for_every_pair_as_thick_as_its_share():
    shares = np.array([[[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], [[1.0, 0.0, 0.25], [0.0, 1.0, 0.75]]])
    figure = figures.flow(shares, parents=["face", "house"], children=["a", "b", "c"])
    assert [axis.get_title() for axis in figure.axes] == ["iteration 1", "iteration 2"]
    face, house = figure.axes[1].collections
    widths = np.array([face.get_linewidths(), house.get_linewidths()])
    np.testing.assert_allclose(widths, 0.2 + 3 * shares[1])
    np.testing.assert_allclose(face.get_alpha(), shares[1, 0])
    starts = [segment[0, 1] for segment in face.get_segments()]
    ends = [segment[1, 1] for segment in face.get_segments()]
    assert starts == sorted(starts, reverse=True)
    assert len(set(ends)) == 1
    said = [text.get_text() for text in figure.axes[0].texts]
    assert set(said) == {"face", "house", "a", "b", "c"}


def test_pictures_by_angle_have_a_line_a_network_and_images_above():
    images = np.zeros((3, 4, 4, 1), np.uint8)
    figure = figures.by_angle(
        [-30, 0, 30], {"capsules": [1, 2, 3], "CNN": [3, 2, 1]}, ylabel="error", images=images
    )
    axis = figure.axes[1]
    assert [line.get_ydata().tolist() for line in axis.lines] == [[1, 2, 3], [3, 2, 1]]
    assert len(figure.axes[0].child_axes) == 3
    assert len(figures.by_angle([0, 1], {"a": [0, 0]}, ylabel="").axes) == 1


def test_equivariance_has_a_line_an_image_and_their_mean_for_every_dimension():
    poses = np.random.default_rng(0).normal(size=(4, 5, 6))
    figure = figures.equivariance([0, 10, 20, 30], poses)
    assert len(figure.axes) == 8  # the last two empty
    lines = figure.axes[3].lines
    assert len(lines) == 6
    np.testing.assert_allclose(lines[2].get_ydata(), poses[:, 2, 3])
    np.testing.assert_allclose(lines[5].get_ydata(), poses[:, :, 3].mean(1))


def test_two_reconstructions_have_their_own_colours_over_the_image():
    images = np.zeros((1, 2, 2, 1), np.uint8)
    images[0, 0, 0] = 255
    drawn = np.zeros((1, 2, 2, 2, 1))
    drawn[0, 0, 0, 1], drawn[0, 1, 1, 0] = 1, 1
    figure = figures.separated(images, drawn, ["3 5"], ["3 8"])
    over = figure.axes[1].images[0].get_array()
    np.testing.assert_allclose(over[0, 0], 0.35)
    np.testing.assert_allclose(over[0, 1], to_rgba(figures.ORANGE)[:3])
    np.testing.assert_allclose(over[1, 0], to_rgba(figures.SKY)[:3])
    assert figure.axes[0].get_title() == "3 5 as\n3 8"
    assert figure.axes[3].images[0].get_array()[0].tolist() == [[0] * 3] * 2


def test_adversarial_images_stand_under_what_was_added():
    images = np.full((1, 1, 2, 1), 51, np.uint8)  # 0.2
    changed = np.array([0.3, 0.1]).reshape(1, 1, 2, 1)
    figure = figures.adversarial(images, changed, ["4"], ["9"], epsilon=0.1)
    shown = [axis.images[0].get_array().ravel() for axis in figure.axes]
    for found, wanted in zip(shown, ([0.2, 0.2], [1, 0], [0.3, 0.1]), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert [axis.get_title() for axis in figure.axes] == ["4", "", "9"]
    assert figure.axes[2].title.get_color() == figures.RED


def test_calibration_is_what_is_right_by_confidence_in_bins_of_enough():
    found = expected_calibration_error([0.9, 0.8, 0.2], [True, False, False], bins=2)
    upper, lower = figures.calibration({"capsules": found}, fewest=2).axes
    line = next(line for line in upper.lines if line.get_label().startswith("capsules"))
    assert line.get_xdata().tolist() == pytest.approx([0.85])
    assert line.get_ydata().tolist() == [0.5]
    assert line.get_label() == "capsules (calibration error 0.300)"
    assert lower.patches[0].get_data().values.tolist() == [1, 2]


def test_the_margin_loss_has_both_of_its_sides():
    axis = figures.margin_loss_curve([0, 0.5, 1], [0.81, 0.16, 0], [0, 0.08, 0.4]).axes[0]
    assert [line.get_ydata().tolist() for line in axis.lines[:2]] == [
        [0.81, 0.16, 0],
        [0, 0.08, 0.4],
    ]
    assert {line.get_xdata()[0] for line in axis.lines[2:]} == {0.9, 0.1}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.architecture([layer("", (4,))], (9, 9, 1)), "layers are empty"),
        (
            lambda: figures.perturbations(np.zeros((2, 3, 4, 4, 1)), [0, 1]),
            r"offsets have shape \(2,\), expected \[3\]",
        ),
        (lambda: figures.feature_maps(np.zeros((2, 2))), "maps have shape"),
        (
            lambda: figures.primary_capsules(
                np.zeros((9, 9, 1), np.uint8), np.zeros((2, 2, 4)), np.zeros((2, 3, 1))
            ),
            r"fields have shape \(2, 2, 4\), expected \[2, 3, 4\]",
        ),
        (lambda: figures.dead_capsules(np.zeros(3)), "activations have shape"),
        (lambda: figures.flow(np.zeros((1, 2, 3)), parents=["a"]), "1 names given, expected 2"),
        (lambda: figures.by_angle([0], {}, ylabel=""), "series is empty"),
        (lambda: figures.equivariance([0], np.zeros((2, 3, 4))), "poses have shape"),
        (
            lambda: figures.separated(np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 1)), [""], [""]),
            "reconstructions have shape",
        ),
        (
            lambda: figures.adversarial(
                np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 1)), [""], [""], epsilon=0
            ),
            "epsilon is 0, expected a positive",
        ),
        (lambda: figures.calibration({}), "series is empty"),
    ],
)
def test_what_does_not_belong_together_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
