"""Max pooling against NumPy, its gradient by hand, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax.ops.pooling import max_pool
from tests.conftest import bare


@pytest.mark.parametrize(("shape", "size"), [((4, 6), 2), ((5, 7), 2), ((7, 9), 3), ((3, 2), 1)])
def test_each_window_gives_its_largest_value(shape, size, random):
    images = random.normal(size=(2, *shape, 3)).astype(np.float32)
    rows, columns = shape[0] // size, shape[1] // size
    expected = np.empty((2, rows, columns, 3), np.float32)
    for i in range(rows):
        for j in range(columns):
            window = images[:, i * size : (i + 1) * size, j * size : (j + 1) * size]
            expected[:, i, j] = window.max((1, 2))
    np.testing.assert_array_equal(max_pool(jnp.asarray(images), size), expected)


def test_the_gradient_goes_to_the_largest_and_is_shared_by_equals():
    image = jnp.array([[1.0, 2.0, 5.0, 5.0], [4.0, 3.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]])
    weights = jnp.array([[10.0, 100.0]])

    def total(image):
        return jnp.sum(weights * max_pool(image[None, :, :, None], 2)[0, :, :, 0])

    expected = [[0, 0, 50, 50], [10, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(jax.grad(total)(image), expected)


@pytest.mark.parametrize(("shape", "size"), [((1, 4, 4, 1), 0), ((1, 4, 1, 1), 2), ((4, 4, 1), 2)])
def test_windows_that_do_not_fit_are_refused(shape, size):
    with pytest.raises(ValueError, match=r"max_pool takes maps .* got \("):
        bare(max_pool)(jnp.zeros(shape), size)
