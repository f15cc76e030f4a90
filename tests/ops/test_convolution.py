"""conv2d against lax.conv_general_dilated in all three directions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from capsjax.ops import conv2d
from tests.conftest import bare

FEATURES = 4


def library(images, kernel, stride, padding):
    return lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def inputs(random, channels, dtype, size=(10, 7), kernel=(3, 3)):
    images = jnp.asarray(random.normal(size=(2, *size, channels)), dtype)
    weights = random.normal(size=(*kernel, channels, FEATURES)) / np.sqrt(channels * 9)
    return images, jnp.asarray(weights, dtype)


def directions(convolve):
    """Value, image gradient and kernel gradient for a random-looking cotangent."""

    def run(images, kernel):
        value, pull = jax.vjp(convolve, images, kernel)
        cotangent = jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape)
        return value, *pull(cotangent)

    return jax.jit(run)


# A product of 1,024 terms holds all rows of a 3x3 kernel at 1 channel, two and one at 200, and one
# at a time at 400.
@pytest.mark.core
@pytest.mark.parametrize(
    ("channels", "stride", "padding"),
    [
        (1, 1, "VALID"),
        (1, 2, "VALID"),
        (1, 3, "SAME"),
        (200, 1, "SAME"),
        (200, 2, "VALID"),
        (400, 2, "SAME"),
        (400, 3, "VALID"),
    ],
)
def test_all_directions_equal_the_library_convolution(random, x64, channels, stride, padding):
    arrays = inputs(random, channels, jnp.float64)
    results = directions(lambda i, k: conv2d(i, k, stride=stride, padding=padding))(*arrays)
    expected = directions(lambda i, k: library(i, k, stride, padding))(*arrays)
    chex.assert_trees_all_equal_shapes_and_dtypes(results, expected)
    chex.assert_trees_all_close(results, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("stride", "size", "kernel"), [(3, (7, 12), (2, 5)), (2, (5, 4), (4, 4)), (2, (6, 5), (1, 1))]
)
def test_same_padding_of_uneven_sizes_equals_the_library(random, x64, stride, size, kernel):
    arrays = inputs(random, 3, jnp.float64, size, kernel)
    results = directions(lambda i, k: conv2d(i, k, stride=stride, padding="SAME"))(*arrays)
    expected = directions(lambda i, k: library(i, k, stride, "SAME"))(*arrays)
    chex.assert_trees_all_close(results, expected, rtol=1e-10, atol=1e-10)


def test_a_kernel_larger_than_the_image_works_with_same_padding(random, x64):
    arrays = inputs(random, 2, jnp.float64, (3, 4), (5, 5))
    chex.assert_trees_all_close(
        conv2d(*arrays, padding="SAME"), library(*arrays, 1, "SAME"), rtol=1e-10, atol=1e-10
    )


def test_float32_is_within_1e_5_of_the_library(random, apply):
    arrays = inputs(random, 32, jnp.float32)
    result = apply(lambda i, k: conv2d(i, k, stride=2), *arrays)
    chex.assert_shape(result, (2, 4, 3, FEATURES))
    chex.assert_trees_all_close(result, library(*arrays, 2, "VALID"), rtol=1e-5, atol=1e-5)


def test_dtype_of_the_inputs_is_kept_in_all_directions(random, dtype):
    arrays = inputs(random, 3, dtype)
    results = directions(lambda i, k: conv2d(i, k, stride=2))(*arrays)
    chex.assert_type(results, dtype)
    chex.assert_tree_all_finite(results)


def test_gradients_equal_finite_differences(random, x64):
    arrays = inputs(random, 2, jnp.float64, (5, 4), (3, 2))
    convolve = jax.jit(lambda i, k: conv2d(i, k, stride=2))
    check_grads(convolve, arrays, order=2, modes=["rev"])


def test_an_example_alone_is_the_same_as_inside_a_batch(random):
    images, kernel = inputs(random, 3, jnp.float32)
    together = conv2d(images, kernel)
    np.testing.assert_allclose(conv2d(images[1:], kernel)[0], together[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 0), ("cuda", 3), ("tpu", 3)])
def test_only_other_platforms_get_library_convolutions(random, platform, convolutions):
    run = directions(lambda i, k: conv2d(i, k, stride=2))
    exported = jax.export.export(run, platforms=[platform])(*inputs(random, 3, jnp.float32))
    assert exported.mlir_module().count("stablehlo.convolution") == convolutions


@pytest.mark.parametrize(
    ("images", "kernel", "message"),
    [
        ((2, 8, 8), (3, 3, 1, 4), r"\[batch, height, width, channels\].*got \(2, 8, 8\)"),
        ((2, 8, 8, 1), (3, 3, 1), r"\[rows, columns, channels, features\], got .*\(3, 3, 1\)"),
        ((2, 8, 8, 2), (3, 3, 1, 4), r"got \(2, 8, 8, 2\) and \(3, 3, 1, 4\)"),
        ((2, 8, 4, 1), (3, 5, 1, 4), "images of 8x4 are smaller than the kernel of 3x5"),
        ((2, 2, 8, 1), (3, 5, 1, 4), "images of 2x8 are smaller than the kernel of 3x5"),
    ],
)
def test_shapes_that_do_not_fit_raise(images, kernel, message):
    with pytest.raises(ValueError, match=message):
        bare(conv2d)(jnp.ones(images), jnp.ones(kernel))


def test_an_unknown_padding_raises():
    with pytest.raises(ValueError, match="padding is 'full', expected 'VALID' or 'SAME'"):
        bare(conv2d)(jnp.ones((1, 4, 4, 1)), jnp.ones((2, 2, 1, 1)), padding="full")


@pytest.mark.parametrize("stride", [0, -1])
def test_a_stride_below_one_raises(stride):
    with pytest.raises(ValueError, match=f"stride is {stride}, expected at least 1"):
        conv2d(jnp.ones((1, 4, 4, 1)), jnp.ones((2, 2, 1, 1)), stride=stride)
