"""Minimal algorithms in one dimension; convolutions made of them are in test_convolution."""

import numpy as np
import pytest

from capsjax.ops import winograd

SIZES = [(outputs, taps) for outputs in range(1, 6) for taps in range(1, 6) if outputs + taps <= 7]


@pytest.mark.core
@pytest.mark.parametrize(("outputs", "taps"), SIZES)
def test_the_matrices_compute_a_correlation(random, outputs, taps):
    matrices = winograd.matrices(outputs, taps)
    signal, kernel = random.normal(size=outputs + taps - 1), random.normal(size=taps)
    values = (matrices.kernel @ kernel) * (matrices.image @ signal)
    expected = np.correlate(signal, kernel, mode="valid")
    np.testing.assert_allclose(matrices.output.T @ values, expected, rtol=1e-11, atol=1e-12)


def test_two_outputs_of_three_taps_are_winograds_own():
    # F(2, 3) with points 0, 1, -1 and infinity, worked out by hand.
    image = [[-1, 0, 1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]
    kernel = [[-1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
    output = [[1, 0], [1, 1], [1, -1], [0, 1]]
    matrices = winograd.matrices(2, 3)
    for found, wanted in zip(matrices, (output, kernel, image), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("outputs", "taps"), [(4, 4), (0, 3), (2, 0), (1, 7)])
def test_sizes_without_points_enough_raise(outputs, taps):
    with pytest.raises(ValueError, match=f"outputs is {outputs} and taps {taps}, expected"):
        winograd.matrices(outputs, taps)
