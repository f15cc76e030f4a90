"""conv2d against lax.conv_general_dilated in all three directions."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads

from capsjax.ops import conv2d, convolution, patches, winograd
from experiments.benchmarks.convolutions import GEOMETRIES
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


def by_loops(images, kernel, gradient, stride):
    """Output and both gradients in float64 NumPy, one kernel element at a time."""
    height, width = gradient.shape[1:3]
    output, of_kernel = np.zeros(gradient.shape), np.zeros(kernel.shape)
    of_images = np.zeros(images.shape)
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            rows = slice(row, row + stride * (height - 1) + 1, stride)
            columns = slice(column, column + stride * (width - 1) + 1, stride)
            seen = images[:, rows, columns]
            output += np.einsum("bhwc,cf->bhwf", seen, kernel[row, column])
            of_kernel[row, column] = np.einsum("bhwc,bhwf->cf", seen, gradient)
            of_images[:, rows, columns] += np.einsum("bhwf,cf->bhwc", gradient, kernel[row, column])
    return output, of_kernel, of_images


def three_directions(lowering, images, kernel, gradient, stride):
    run = jax.jit(
        lambda images, kernel, gradient: (
            lowering.forward(images, kernel, stride),
            lowering.kernel_gradient(images, kernel.shape, gradient, stride),
            lowering.images_gradient(images.shape, kernel, gradient, stride),
        )
    )
    return run(*map(jnp.asarray, (images, kernel, gradient)))


@st.composite
def geometries(draw):
    """Shapes of images, of a kernel and of the output, and a stride."""
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    stride, out = draw(st.integers(1, 3)), (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    left = draw(st.integers(0, stride - 1))  # behind the last window
    size = [stride * (n - 1) + k + left for n, k in zip(out, kernel, strict=True)]
    channels, features = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return (2, *size, channels), (*kernel, channels, features), (2, *out, features), stride


@pytest.mark.core
@pytest.mark.parametrize("name", convolution.LOWERINGS)
@hypothesis.given(geometry=geometries())
@hypothesis.settings(max_examples=15)
@hypothesis.example(geometry=((1, 20, 20, 2), (9, 9, 2, 3), (1, 6, 6, 3), 2))  # CapsNet's second
@hypothesis.example(geometry=((1, 6, 6, 400), (3, 3, 400, 2), (1, 4, 4, 2), 1))  # row by row
def test_every_lowering_is_a_convolution_in_all_directions(name, geometry):
    images, kernel, output, stride = geometry
    taps = -(-max(kernel[:2]) // stride)
    hypothesis.assume(not name.startswith("winograd") or taps + int(name.split()[1]) <= 7)
    random = np.random.default_rng(0)
    arrays = [random.normal(size=shape) for shape in (images, kernel, output)]
    with jax.enable_x64(True):
        results = three_directions(convolution.LOWERINGS[name], *arrays, stride)
    expected = by_loops(*arrays, stride)
    chex.assert_trees_all_close(results, expected, rtol=1e-10, atol=1e-10)


# Of what is chosen on a CPU: polynomials of 4 and of 2 outputs, patches row by row, the library.
@pytest.mark.core
@pytest.mark.parametrize(
    ("size", "kernel", "channels", "features", "stride", "padding"),
    [
        ((20, 20), (3, 3), 32, 32, 1, "SAME"),
        ((33, 33), (9, 9), 32, 32, 2, "VALID"),
        ((10, 7), (5, 4), 300, 4, 2, "VALID"),
        ((10, 7), (3, 3), 2, 4, 2, "SAME"),
    ],
)
@pytest.mark.parametrize("precision", [None, "highest"])
def test_what_is_chosen_equals_the_library_in_all_directions(
    random, x64, size, kernel, channels, features, stride, padding, precision
):
    images = random.normal(size=(8, *size, channels))
    weights = random.normal(size=(*kernel, channels, features))
    with jax.default_matmul_precision(precision):
        results = directions(lambda i, k: conv2d(i, k, stride=stride, padding=padding))(
            jnp.asarray(images), jnp.asarray(weights)
        )
    pads = ((0, 0), (0, 0))
    if padding == "SAME":
        pads = lax.padtype_to_pads(size, kernel, (stride, stride), padding)
    cotangent = np.cos(np.arange(results[0].size)).reshape(results[0].shape)
    padded = np.pad(images, ((0, 0), *pads, (0, 0)))
    value, of_weights, of_images = by_loops(padded, weights, cotangent, stride)
    inside = tuple(slice(before, before + n) for (before, _), n in zip(pads, size, strict=True))
    expected = value, of_images[:, *inside], of_weights
    chex.assert_trees_all_close(results, expected, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_every_network_gets_a_lowering_that_can_do_it(geometry):
    kernel = (geometry.kernel_size,) * 2 + (geometry.channels, geometry.features)
    images = (64, geometry.side, geometry.side, geometry.channels)
    for direction in ("forward", "kernel_gradient", "images_gradient"):
        chosen = convolution.rule(direction, images, kernel, geometry.stride, jnp.float32)
        of_two_bytes = convolution.rule(direction, images, kernel, geometry.stride, jnp.bfloat16)
        assert chosen in convolution.LOWERINGS
        if chosen.startswith("winograd"):
            taps = -(-geometry.kernel_size // geometry.stride)
            assert winograd.matrices(int(chosen.split()[1]), taps)  # has points enough
        assert not of_two_bytes.startswith("winograd")


# Polynomials' values round more than plain sums: 1e-4 of the output's standard deviation is what
# their document promises in float32, and "highest" is the way back.
@pytest.mark.parametrize(
    ("images", "kernel", "stride"),
    [((8, 24, 24, 64), (3, 3, 64, 64), 1), ((16, 20, 20, 64), (9, 9, 64, 64), 2)],
)
def test_rounding_of_what_is_chosen_in_float32(random, images, kernel, stride):
    assert convolution.rule("forward", images, kernel, stride, jnp.float32).startswith("winograd")
    arrays = [random.normal(size=shape).astype(np.float32) for shape in (images, kernel)]
    out = patches.output_size(images, kernel, stride)
    arrays.append(random.normal(size=(images[0], *out, kernel[3])).astype(np.float32))
    exact = by_loops(*(array.astype(np.float64) for array in arrays), stride)

    def ours(images, kernel, gradient):
        value, pull = jax.vjp(lambda i, k: conv2d(i, k, stride=stride), images, kernel)
        of_images, of_kernel = pull(gradient)
        return value, of_kernel, of_images

    for precision, allowed in ((None, 1e-4), ("highest", 2e-5)):
        with jax.default_matmul_precision(precision):
            results = jax.jit(ours)(*arrays)
        for result, wanted in zip(results, exact, strict=True):
            assert np.abs(np.asarray(result) - wanted).max() < allowed * wanted.std()


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
def test_other_platforms_get_library_convolutions_only(random, platform, convolutions):
    run = directions(lambda i, k: conv2d(i, k, stride=1))
    images, kernel = (8, 20, 20, 32), (3, 3, 32, 32)
    arrays = [jnp.zeros(shape, jnp.float32) for shape in (images, kernel)]
    exported = jax.export.export(run, platforms=[platform])(*arrays)
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
