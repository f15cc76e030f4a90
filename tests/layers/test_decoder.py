"""Decoders that enlarge a map: parity with NumPy, shapes, what they see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import models
from capsjax.layers import ClassIndependentDecoder, ConvolutionalDecoder


@pytest.fixture
def rngs():
    return nnx.Rngs(params=0)


def array(parameter):
    return np.asarray(parameter[...], np.float64)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def doubled(x, axis):
    """Linear interpolation at half-pixel centres; beyond the edge is the edge."""
    size = x.shape[axis]
    result = []
    for k in range(2 * size):
        place = (k + 0.5) / 2 - 0.5
        before = int(np.floor(place))
        share = place - before
        first, second = (np.take(x, np.clip(n, 0, size - 1), axis) for n in (before, before + 1))
        result.append((1 - share) * first + share * second)
    return np.stack(result, axis)


def convolved(x, kernel):
    """Unpadded convolution, one output at a time."""
    rows, columns = kernel.shape[:2]
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    out = np.zeros((len(x), height, width, kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            out[:, i, j] = np.einsum("bhwc,hwcf->bf", x[:, i : i + rows, j : j + columns], kernel)
    return out


def scattered(x, kernel, stride):
    """Transposed convolution: each input adds its multiple of the kernel to the output.

    Of the full result a "SAME" one keeps ``stride`` times the input's size. TensorFlow and Keras
    call the flipped kernel the kernel.
    """
    batch, height, width, _ = x.shape
    size = kernel.shape[0]
    full = np.zeros((batch, (height - 1) * stride + size, (width - 1) * stride + size))
    full = np.repeat(full[..., None], kernel.shape[3], -1)
    flipped = kernel[::-1, ::-1]
    for i in range(height):
        for j in range(width):
            rows = slice(i * stride, i * stride + size)
            columns = slice(j * stride, j * stride + size)
            full[:, rows, columns] += np.einsum("bc,hwcf->bhwf", x[:, i, j], flipped)
    cut = (size - stride) // 2
    return full[:, cut : cut + height * stride, cut : cut + width * stride]


def shaken(module):
    """With parameters that all have an effect: biases are 0 and scales 1 at the start."""
    random = np.random.default_rng(1)
    state = nnx.state(module, nnx.Param)
    nnx.update(module, jax.tree.map(lambda x: x + 0.3 * random.normal(size=x.shape), state))
    return module


@pytest.mark.core
def test_the_published_decoders_have_their_published_parameters():
    def abstract(kind, *sizes, **options):
        return nnx.eval_shape(lambda: kind(*sizes, **options, rngs=nnx.Rngs(params=0)))

    smallnorb = abstract(ConvolutionalDecoder, 5, 16, (48, 48, 2))
    assert models.count_parameters(smallnorb) == 5_184 + 640 + 73_856 + 147_584 + 2_306
    assert smallnorb.start == (8, 8)
    mnist = abstract(ClassIndependentDecoder, 32, (28, 28, 1))
    assert models.count_parameters(mnist) == 58_417
    resized = abstract(ClassIndependentDecoder, 32, (64, 64, 3), features=(64, 32, 16, 8))
    assert models.count_parameters(resized) == 67_571


@pytest.mark.parametrize(
    ("image_shape", "start", "cut"),
    [((12, 8, 2), (5, 4), (0, 0)), ((5, 10, 1), (4, 5), (1, 1))],
)
def test_convolutional_decoder_enlarges_and_convolves(random, rngs, x64, image_shape, start, cut):
    decoder = shaken(ConvolutionalDecoder(3, 4, image_shape, features=(3, 4), rngs=rngs))
    assert decoder.start == start
    poses, mask = random.normal(size=(2, 3, 4)), np.array([[1.0, 0, 0], [0, 1, 1]])
    result = jax.jit(decoder)(jnp.asarray(poses, jnp.float64), jnp.asarray(mask))
    assert result.dtype == jnp.float64
    x = (poses * mask[:, :, None]).reshape(2, 12) @ array(decoder.linear.kernel)
    x = (x + array(decoder.linear.bias)).reshape(2, *start, 1)
    *turns, last = [(array(c.kernel), array(c.bias)) for c in decoder.convolutions]
    for kernel, bias in turns:
        x = convolved(doubled(doubled(x, 1), 2), kernel) + bias
        x = np.where(x > 0, x, 0.2 * x)
    x = logistic(convolved(x, last[0]) + last[1])
    top, left = cut
    expected = x[:, top : top + image_shape[0], left : left + image_shape[1]]
    assert expected.shape == (2, *image_shape)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-10)


def test_the_gradient_of_enlarging_is_the_transposed_interpolation(random, x64):
    weights = random.normal(size=(1, 6, 10, 2))
    gradient = jax.grad(
        lambda x: jnp.sum(jax.image.resize(x, weights.shape, "bilinear") * weights)
    )(jnp.zeros((1, 3, 5, 2)))
    expected = np.zeros((1, 3, 5, 2))
    for index in np.ndindex(expected.shape):
        unit = np.zeros(expected.shape)
        unit[index] = 1
        expected[index] = np.sum(doubled(doubled(unit, 1), 2) * weights)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("image_shape", "start", "cut"),
    [
        ((8, 8, 1), (2, 2, 3), (0, 0)),
        ((7, 13, 2), (2, 4, 3), (0, 1)),
        ((1, 6, 3), (1, 2, 3), (1, 1)),
    ],
)
def test_class_independent_decoder_sees_the_chosen_pose_alone(
    random, rngs, x64, image_shape, start, cut
):
    decoder = ClassIndependentDecoder(5, image_shape, channels=3, features=(4, 3, 2), rngs=rngs)
    decoder = shaken(decoder)
    decoder.eval()
    assert decoder.start == start
    poses, mask = random.normal(size=(2, 4, 5)), np.eye(4)[[2, 0]]
    found = jax.jit(decoder)(jnp.asarray(poses, jnp.float64), jnp.asarray(mask))
    assert found.dtype == jnp.float64
    chosen = np.stack([poses[0, 2], poses[1, 0]])
    x = np.maximum(chosen @ array(decoder.linear.kernel) + array(decoder.linear.bias), 0)
    # Running statistics are still 0 and 1.
    normalisation = decoder.normalisation
    x = x.reshape(2, *start) / np.sqrt(1 + 1e-3) * array(normalisation.scale)
    x = x + array(normalisation.bias)
    for convolution, stride in zip(decoder.convolutions, (1, 2, 2, 1), strict=True):
        x = scattered(x, array(convolution.kernel), stride) + array(convolution.bias)
    top, left = cut
    expected = logistic(x)[:, top : top + image_shape[0], left : left + image_shape[1]]
    assert expected.shape == (2, *image_shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    # Another class with the same pose gives the same image.
    moved = jnp.asarray(poses[:, [0, 2, 1, 3]], jnp.float64)
    again = jax.jit(decoder)(moved, jnp.asarray(np.eye(4)[[1, 0]]))
    np.testing.assert_array_equal(again[0], found[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda rngs: ConvolutionalDecoder(3, 4, (9, 6, 1), features=(2,), rngs=rngs),
        lambda rngs: ClassIndependentDecoder(4, (9, 6, 1), channels=2, features=(2, 2), rngs=rngs),
    ],
    ids=["convolutional", "class independent"],
)
def test_they_do_not_see_capsules_of_mask_zero(random, rngs, make):
    decoder = shaken(make(rngs))
    decoder.eval()
    draw = jax.jit(decoder)
    poses = jnp.asarray(random.normal(size=(1, 3, 4)), jnp.float32)
    mask = jnp.array([[0.0, 1.0, 0.0]])
    hidden_changed = draw(poses.at[0, 0].set(9.0).at[0, 2].set(-9.0), mask)
    np.testing.assert_array_equal(hidden_changed, draw(poses, mask))
    assert np.any(draw(poses.at[0, 1].set(9.0), mask) != draw(poses, mask))
