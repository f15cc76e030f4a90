"""Properties of drawn bars and blobs are those that they were drawn with."""

import numpy as np
import pytest

from experiments import digit_shapes
from experiments.digit_shapes import PROPERTIES


def bar(width, *, length=20, slant=0, right=0, down=0, grey=1.0):
    image = np.zeros((40, 40))
    for row in range(length):
        top, left = 20 - length // 2 + down + row, 20 - width // 2 + right
        shift = slant * (row - length // 2)
        image[top, left + shift : left + shift + width] = grey
    return image


def measured(*images):
    rows = digit_shapes.shapes(np.stack(images))
    return [dict(zip(PROPERTIES, row, strict=True)) for row in rows]


@pytest.mark.parametrize("width", [2, 4])
def test_an_upright_bar(width):
    (found,) = measured(bar(width))
    # Width times length over half of the way around; corners are cut off a little.
    assert found["thickness"] == pytest.approx(width * 20 / (width + 20), rel=0.04)
    # Variance of so many pixels in a row: (n^2 - 1) / 12.
    assert found["width"] == pytest.approx(np.sqrt((width**2 - 1) / 12))
    assert found["height"] == pytest.approx(np.sqrt(399 / 12))
    assert found["skew"] == pytest.approx(0, abs=1e-12)
    # The middle of an even number of pixels is between two, as the image's is.
    assert (found["shift_x"], found["shift_y"]) == pytest.approx((0, 0), abs=1e-12)


def test_a_slanted_bar_is_as_wide_as_an_upright_one():
    upright, slanted = measured(bar(4), bar(4, slant=1))
    assert slanted["skew"] == pytest.approx(1)
    assert slanted["width"] == pytest.approx(upright["width"])
    assert slanted["height"] == pytest.approx(upright["height"])


def test_a_moved_bar_has_its_shift():
    (found,) = measured(bar(4, right=3, down=-5))
    assert (found["shift_x"], found["shift_y"]) == pytest.approx((3, -5))


def test_a_paler_bar_is_no_thinner_and_a_veil_changes_nothing():
    full, pale, veiled = measured(bar(4), bar(4, grey=0.5), np.maximum(bar(4), 0.09))
    assert pale == pytest.approx(full)
    assert veiled == pytest.approx(full)


def test_an_image_without_a_digit_has_no_properties():
    assert np.isnan(digit_shapes.shapes(np.zeros((1, 8, 8)))).all()


def test_spread_is_about_the_mean_of_the_class():
    values = np.array([[1.0], [3.0], [101.0], [103.0]]) * np.ones((1, 6))
    assert digit_shapes.spread(values, np.array([0, 0, 7, 7])) == pytest.approx(np.ones(6))


def blobs(poses, labels):
    """Moved to the right by 8 for each unit of the first dimension; the second does nothing."""
    x = np.arange(40) - 19.5
    centre = 8 * poses[:, 0, None, None] * (1 + labels[:, None, None])
    return np.exp(-((x[None, None, :] - centre) ** 2 + x[None, :, None] ** 2) / 18)


def test_effects_are_slopes_over_the_whole_range():
    poses = np.array([[0.1, 0.3], [0.0, 0.2], [-0.1, 0.0]])
    labels = np.array([0, 0, 1])
    offsets = np.linspace(-0.25, 0.25, 11)
    found = digit_shapes.effects(blobs, poses, labels, offsets, np.eye(2), at_once=2)
    assert found.shape == (3, 2, 6)
    shift = found[..., PROPERTIES.index("shift_x")]
    np.testing.assert_allclose(shift, [[4, 0], [4, 0], [8, 0]], atol=0.1)
    assert np.abs(found[..., PROPERTIES.index("shift_y")]).max() < 1e-9
    diagonal = digit_shapes.effects(blobs, poses, labels, offsets, np.array([[0.6, 0.8]]))
    np.testing.assert_allclose(diagonal[..., 4], [[2.4], [2.4], [4.8]], atol=0.1)
    means = digit_shapes.by_class(found, labels, 3)
    np.testing.assert_allclose(means[:2, 0, 4], [4, 8], atol=0.1)
    assert np.isnan(means[2]).all()


def test_a_dimension_is_named_by_its_strongest_property():
    effects = np.zeros((1, 3, 6))
    effects[0, 0, 1], effects[0, 0, 3] = 0.6, -0.9
    effects[0, 1, 0] = 0.49
    assert digit_shapes.names(effects, 0.5) == [["skew", "none", "none"]]
    # 0.9 of 1.5, and 0.49 of 0.49; what does nothing is left out.
    assert digit_shapes.purity(effects) == pytest.approx((0.6 + 1) / 2)
