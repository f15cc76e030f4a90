"""What the figures of a routing plot."""

import io
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from capsjax import figures


def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=40)
    return file.getvalue()


def shares(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Coefficients [iterations, parents, children] that sum to 1 over parents."""
    drawn = random.random(shape)
    return drawn / drawn.sum(1, keepdims=True)


def titles(figure: Figure) -> list[str]:
    """Of the panels, which may be set at the left or in the middle."""
    both = [axis.get_title(loc="left") + axis.get_title() for axis in figure.axes]
    return [title for title in both if title]


def legend(figure: Figure) -> list[str]:
    [box] = figure.legends
    return [text.get_text() for text in box.get_texts()]


# Coefficients


@pytest.mark.core
def test_coefficients_show_parents_by_children_from_zero_to_one(random) -> None:
    values = shares(random, 3, 2, 4)
    figure = figures.coefficients(jnp.asarray(values), parents=["face", "house"])
    *panels, bar = figure.axes
    assert titles(figure) == ["iteration 1", "iteration 2", "iteration 3"]
    for panel, expected in zip(panels, values, strict=True):
        [image] = panel.get_images()
        np.testing.assert_allclose(image.get_array(), expected, rtol=1e-6)
        assert image.get_clim() == (0, 1)
        assert [label.get_text() for label in panel.get_yticklabels()] == ["face", "house"]
    assert panels[-1].get_xlabel() == "child"
    assert bar.get_ylabel() == "coupling coefficient"
    assert png(figure).startswith(b"\x89PNG")


def test_coefficients_of_the_iterations_asked_for(random) -> None:
    values = shares(random, 6, 10, 1152)
    figure = figures.coefficients(values, iterations=[1, 6])
    assert titles(figure) == ["iteration 1", "iteration 6"]
    [image] = figure.axes[1].get_images()
    np.testing.assert_array_equal(image.get_array(), values[5])
    assert figure.axes[0].get_ylabel() == "parent"


@pytest.mark.parametrize(("count", "expected"), [(1, [1]), (4, [1, 2, 3, 4]), (9, [1, 3, 5, 7, 9])])
def test_many_iterations_are_thinned_out_evenly(random, count: int, expected: list) -> None:
    figure = figures.coefficients(shares(random, count, 2, 3))
    assert titles(figure) == [f"iteration {number}" for number in expected]


def test_coefficients_darken_with_the_share_in_grey_print_as_well() -> None:
    image = figures.coefficients(np.ones((1, 1, 1))).axes[0].get_images()[0]
    red, green, blue = image.get_cmap()(np.linspace(0, 1, 50))[:, :3].T
    assert (np.diff(0.299 * red + 0.587 * green + 0.114 * blue) < 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coefficients": np.ones((2, 3))}, r"\(2, 3\), expected \[iterations, parents, children"),
        ({"coefficients": np.ones((2, 3, 0))}, r"\(2, 3, 0\)"),
        ({"iterations": [0]}, r"\[0\], expected some of 1 to 2"),
        ({"iterations": [3]}, r"\[3\], expected some of 1 to 2"),
        ({"iterations": []}, r"\[\], expected some of 1 to 2"),
        ({"parents": ["one"]}, "1 names given, expected 3, one for each parent"),
    ],
)
def test_coefficients_refuse_what_does_not_fit(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figures.coefficients(**{"coefficients": np.ones((2, 3, 4)), **options})


# Curves by iteration


@pytest.mark.core
def test_curves_are_drawn_from_iteration_one() -> None:
    figure = figures.curves_by_iteration(
        {"dynamic": [1.0, 0.5, 0.25], "uniform": jnp.ones(1)},
        ylabel="entropy (nats)",
        title="Entropy",
    )
    [axis] = figure.axes
    np.testing.assert_array_equal(axis.lines[0].get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), [1, 0.5, 0.25])
    np.testing.assert_array_equal(axis.lines[1].get_xdata(), [1])
    assert legend(figure) == ["dynamic", "uniform"]
    assert (axis.get_ylabel(), axis.get_title()) == ("entropy (nats)", "Entropy")
    assert axis.get_yscale() == "linear"
    assert png(figure).startswith(b"\x89PNG")


def test_eight_curves_differ_in_colour_and_in_marker_and_neighbours_in_dashes() -> None:
    curves = {str(number): np.full(3, number) for number in range(8)}
    lines = figures.curves_by_iteration(curves, ylabel="").axes[0].lines
    assert len({to_hex(line.get_color()) for line in lines}) == 8
    assert len({line.get_marker() for line in lines}) == 8
    dashes = [line.get_linestyle() for line in lines]
    assert all(one != other for one, other in pairwise(dashes))
    # Readable on white paper: none as light as yellow.
    luminance = [np.dot(to_rgb(line.get_color()), [0.299, 0.587, 0.114]) for line in lines]
    assert max(luminance) < 0.7


def test_twenty_curves_still_differ() -> None:
    curves = {str(number): np.full(3, number) for number in range(20)}
    lines = figures.curves_by_iteration(curves, ylabel="").axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 20


def test_a_curve_keeps_its_style_where_another_has_nothing_to_show() -> None:
    full = figures.curves_by_iteration({"a": [1, 2], "b": [2, 1]}, ylabel="").axes[0]
    gap = figures.curves_by_iteration({"a": [np.nan, np.inf], "b": [2, 1]}, ylabel="").axes[0]
    assert np.isnan(gap.lines[0].get_ydata()).all()
    assert gap.lines[1].get_color() == full.lines[1].get_color()


def test_a_logarithmic_scale_leaves_out_zeros() -> None:
    figure = figures.curves_by_iteration({"a": [1, 0.1, 0, -1]}, ylabel="change", log=True)
    [axis] = figure.axes
    assert axis.get_yscale() == "log"
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), [1, 0.1, np.nan, np.nan])
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "curves are empty"),
        ({"em": np.ones((2, 2))}, r"curves\['em'\] have shape \(2, 2\), expected \[iterations\]"),
        ({"em": []}, r"curves\['em'\] have shape \(0,\)"),
    ],
)
def test_curves_refuse_what_does_not_fit(curves: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figures.curves_by_iteration(curves, ylabel="")


# Squashing


@pytest.mark.core
def test_squash_curve_plots_lengths_after_by_lengths_before() -> None:
    before = np.linspace(0, 4, 9)
    after = {"Sabour": before**2 / (1 + before**2), "Mazzia": 1 - np.exp(-before)}
    figure = figures.squash_curve(before, after)
    [axis] = figure.axes
    lines = {line.get_label(): line for line in axis.lines}
    for name, expected in after.items():
        np.testing.assert_array_equal(lines[name].get_xdata(), before)
        np.testing.assert_array_equal(lines[name].get_ydata(), expected)
    np.testing.assert_array_equal(lines["unchanged"].get_ydata(), before)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("length before", "length after")
    assert axis.get_xlim() == (0, 4)
    assert lines["Sabour"].get_linestyle() != lines["Mazzia"].get_linestyle()
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([0, 1, 2], {}, "after is empty"),
        ([0, 1, 2], {"f": [0, 1]}, r"after\['f'\] have shape \(2,\), expected \[3\]"),
        ([[0, 1]], {"f": [0, 1]}, r"before have shape \(1, 2\), expected \[points\]"),
    ],
)
def test_squash_curve_refuses_what_does_not_fit(before: Any, after: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figures.squash_curve(before, after)


# Routing in a plane


def plane(random: np.random.Generator, iterations: int = 3, parents: int = 2, children: int = 5):
    return {
        "votes": random.uniform(-1, 1, (parents, 2, children)),
        "poses": random.uniform(-0.7, 0.7, (iterations, parents, 2)),
        "coefficients": shares(random, iterations, parents, children),
    }


@pytest.mark.core
def test_votes_are_drawn_where_they_are_and_grow_with_their_coefficient(random) -> None:
    given = plane(random)
    figure = figures.routing_in_2d(**given, parents=["face", "house"])
    assert titles(figure) == ["iteration 1", "iteration 2", "iteration 3"]
    for iteration, axis in enumerate(figure.axes):
        for parent, dots in enumerate(axis.collections):
            np.testing.assert_allclose(dots.get_offsets(), given["votes"][parent].T)
            order = np.argsort(given["coefficients"][iteration, parent])
            assert (np.diff(dots.get_sizes()[order]) > 0).all()
            assert (np.diff(dots.get_alpha()[order]) > 0).all()
    one, other = figure.axes[0].collections
    assert to_hex(one.get_facecolor()[0]) != to_hex(other.get_facecolor()[0])
    assert legend(figure)[:3] == ["votes for face", "votes for house", "pose"]
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.core
def test_a_star_stands_at_each_pose_with_its_trail(random) -> None:
    given = plane(random)
    figure = figures.routing_in_2d(**given)
    for iteration, axis in enumerate(figure.axes):
        stars = [line for line in axis.lines if line.get_marker() == "*"]
        trails = [line for line in axis.lines if line.get_linestyle() == ":"]
        for parent in range(2):
            np.testing.assert_allclose(
                stars[parent].get_xydata(), given["poses"][iteration, parent][None]
            )
            np.testing.assert_allclose(
                trails[parent].get_xydata(), given["poses"][: iteration + 1, parent]
            )
    assert legend(figure)[:2] == ["votes for parent 0", "votes for parent 1"]


def test_coefficients_that_are_no_shares_are_drawn_as_zero_or_one(random) -> None:
    given = plane(random, iterations=1, parents=1, children=4)
    given["coefficients"] = np.array([[[-0.5, 0, 1, 1.5]]])
    figure = figures.routing_in_2d(**given)
    [dots] = figure.axes[0].collections
    sizes = dots.get_sizes()
    assert 0 < sizes[0] == sizes[1] < sizes[2] == sizes[3]
    assert png(figure).startswith(b"\x89PNG")


def test_everything_lies_inside_the_panel(random) -> None:
    given = plane(random)
    given["votes"][0, 0, 0] = 5
    [axis, *_] = figures.routing_in_2d(**given).axes
    assert axis.get_xlim()[1] > 5
    assert axis.get_ylim()[0] < -5
    near = figures.routing_in_2d(np.zeros((1, 2, 1)), np.zeros((1, 1, 2)), np.ones((1, 1, 1)))
    assert near.axes[0].get_xlim()[1] > 1, "the unit circle is seen as well"


def test_a_plane_of_many_iterations_shows_four_or_those_asked_for(random) -> None:
    given = plane(random, iterations=10)
    assert len(figures.routing_in_2d(**given).axes) == 4
    figure = figures.routing_in_2d(**given, iterations=[2, 10])
    assert titles(figure) == ["iteration 2", "iteration 10"]
    trail = next(line for line in figure.axes[0].lines if line.get_linestyle() == ":")
    assert len(trail.get_xdata()) == 2, "the trail has the iterations that are not shown, too"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"votes": np.ones((2, 3, 5))}, r"votes .*\(2, 3, 5\), expected \[parents, 2, children\]"),
        ({"poses": np.ones((3, 2, 3))}, r"poses .*\(3, 2, 3\), expected \[3, 2, 2\]"),
        ({"poses": np.ones((4, 2, 2))}, r"poses .*\(4, 2, 2\), expected \[3, 2, 2\]"),
        (
            {"coefficients": np.ones((3, 2, 4))},
            r"coefficients .*\(3, 2, 4\), expected \[iterations, 2, 5\]",
        ),
        ({"parents": ["face"]}, "1 names given, expected 2"),
        ({"iterations": [4]}, "expected some of 1 to 3"),
    ],
)
def test_a_plane_refuses_what_does_not_fit(random, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figures.routing_in_2d(**{**plane(random), **options})
