"""Residual networks: values against loops in NumPy, shapes, which arrays they own, refusals."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax.layers import NormalisedConvolution, ResidualBlock, ResidualTrunk
from capsjax.layers.residual import halving


def names(module: nnx.Module) -> set[str]:
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {"/".join(map(str, path)) for path, _ in flat}


def stirred(module: Any, random: np.random.Generator) -> Any:
    """In evaluation, with statistics, scales and offsets that leave nothing as it is."""
    for _, part in nnx.iter_modules(module):
        if isinstance(part, nnx.BatchNorm):
            for name in ("mean", "scale", "bias"):
                variable = getattr(part, name)
                variable[...] = jnp.asarray(random.normal(size=variable.shape), jnp.float32)
            part.var[...] = jnp.asarray(random.uniform(0.5, 2, size=part.var.shape), jnp.float32)
    module.eval()
    return module


def normalised_convolution(x: np.ndarray, module: Any, stride: int) -> np.ndarray:
    """Of one image ``[height, width, channels]``, each sum by itself."""
    kernel = np.asarray(module.convolution.kernel[...], np.float64)
    size, features = kernel.shape[0], kernel.shape[3]
    height, width = (-(-n // stride) for n in x.shape[:2])
    out = np.zeros((height, width, features))
    for row in range(height):
        for column in range(width):
            for a in range(size):
                for b in range(size):
                    # The window's middle is on the place that the stride takes.
                    y, z = row * stride + a - size // 2, column * stride + b - size // 2
                    if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
                        out[row, column] += x[y, z] @ kernel[a, b]
    norm = module.normalisation
    mean, variance, scale, bias = (
        np.asarray(getattr(norm, name)[...], np.float64)
        for name in ("mean", "var", "scale", "bias")
    )
    return (out - mean) / np.sqrt(variance + 1e-5) * scale + bias


def residual_block(x: np.ndarray, block: Any, stride: int) -> np.ndarray:
    hidden = np.maximum(normalised_convolution(x, block.first, stride), 0)
    result = normalised_convolution(hidden, block.second, 1)
    if block.projection is not None:
        return np.maximum(result + normalised_convolution(x, block.projection, stride), 0)
    missing = result.shape[-1] - x.shape[-1]
    for row in range(result.shape[0]):
        for column in range(result.shape[1]):
            for channel in range(x.shape[-1]):
                place = (row, column, channel + missing // 2)
                result[place] += x[row * stride, column * stride, channel]
    return np.maximum(result, 0)


@pytest.mark.parametrize(
    ("channels", "features", "stride", "shortcut"),
    [(2, 5, 2, "A"), (3, 3, 1, "B"), (2, 4, 2, "B"), (2, 3, 1, "B")],
)
def test_a_block_adds_two_convolutions_to_its_shortcut(
    random: np.random.Generator, channels: int, features: int, stride: int, shortcut: Any
) -> None:
    rngs = nnx.Rngs(params=0)
    block = ResidualBlock(channels, features, stride=stride, shortcut=shortcut, rngs=rngs)
    assert (block.projection is not None) == (shortcut == "B" and (stride, channels) != (1, 3))
    block = stirred(block, random)
    x = random.normal(size=(2, 5, 4, channels))
    found = jax.jit(block)(jnp.asarray(x, jnp.float32))
    expected = np.stack([residual_block(each, block, stride) for each in x])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_trunk_is_a_convolution_and_then_its_blocks(random: np.random.Generator) -> None:
    trunk = ResidualTrunk(1, [(2, 1, 1), (4, 2, 2)], shortcut="A", rngs=nnx.Rngs(params=0))
    trunk = stirred(trunk, random)
    assert [block.stride for block in trunk.blocks] == [1, 2, 1]
    x = random.normal(size=(1, 5, 6, 1))
    expected = np.maximum(normalised_convolution(x[0], trunk.first, 1), 0)
    for block, stride in zip(trunk.blocks, (1, 2, 1), strict=True):
        expected = residual_block(expected, block, stride)
    found = jax.jit(trunk)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)
    chex.assert_shape(found, (1, *trunk.out_shape((5, 6, 1))))
    assert trunk.out_shape((5, 6, 1)) == (3, 3, 4)
    assert trunk.out_shape((32, 32, 1)) == (16, 16, 4)


@pytest.mark.core
def test_nothing_has_a_bias_but_the_normalisations() -> None:
    block = ResidualBlock(2, 4, stride=2, shortcut="B", rngs=nnx.Rngs(params=0))
    parts = ("first", "second", "projection")
    expected = {f"{part}/convolution/kernel" for part in parts}
    expected |= {f"{part}/normalisation/{name}" for part in parts for name in ("scale", "bias")}
    assert names(block) == expected
    assert names(ResidualBlock(2, 4, stride=2, shortcut="A", rngs=nnx.Rngs(params=0))) == {
        name for name in expected if not name.startswith("projection")
    }


def test_a_bias_is_there_where_it_is_asked_for(random: np.random.Generator) -> None:
    layer: Any = NormalisedConvolution(2, 3, kernel_size=3, use_bias=True, rngs=nnx.Rngs(params=0))
    x = jnp.asarray(random.normal(size=(2, 4, 4, 2)), jnp.float32)
    run = nnx.jit(lambda layer, x: layer(x))
    before = run(layer.convolution, x)
    layer.convolution.bias[...] = jnp.arange(3.0)
    np.testing.assert_allclose(
        run(layer.convolution, x), before + np.arange(3.0).reshape(1, 1, 1, 3), rtol=1e-6
    )


def test_statistics_of_the_batch_are_followed_at_a_tenth(random: np.random.Generator) -> None:
    layer = NormalisedConvolution(1, 2, kernel_size=1, rngs=nnx.Rngs(params=0))
    layer.convolution.kernel[...] = jnp.array([[[[1.0, 2.0]]]])
    x = random.normal(3, 2, size=(4, 5, 5, 1))
    out = nnx.jit(lambda layer, x: layer(x))(layer, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(np.mean(out, axis=(0, 1, 2)), 0, atol=1e-5)
    mean, variance = x.mean(), x.var()
    np.testing.assert_allclose(
        layer.normalisation.mean[...], [0.1 * mean, 0.1 * 2 * mean], rtol=1e-4
    )
    np.testing.assert_allclose(
        layer.normalisation.var[...], [0.9 + 0.1 * variance, 0.9 + 0.1 * 4 * variance], rtol=1e-4
    )


def test_stages_halve_but_the_first() -> None:
    assert halving((16, 32, 64), (3, 4, 5)) == ((16, 3, 1), (32, 4, 2), (64, 5, 2))
    with pytest.raises(ValueError, match=r"widths are \(16, 32\) and blocks \(3,\), expected as"):
        halving((16, 32), (3,))


def test_what_cannot_be_is_refused() -> None:
    rngs = nnx.Rngs(params=0)
    with pytest.raises(ValueError, match="shortcut 'A' adds channels of zeros to 4, and 2 are"):
        ResidualBlock(4, 2, shortcut="A", rngs=rngs)
    unknown: Any = "C"
    with pytest.raises(ValueError, match="shortcut is 'C', expected 'A' or 'B'"):
        ResidualBlock(4, 4, shortcut=unknown, rngs=rngs)
    for stages in ([], [(4, 0, 1)]):
        with pytest.raises(ValueError, match=r"stages are \(.*\), expected at least one"):
            ResidualTrunk(1, stages, rngs=rngs)


def test_a_trunk_keeps_to_its_dtype() -> None:
    def run(images: Any) -> Any:
        trunk = ResidualTrunk(1, [(2, 1, 1), (4, 1, 2)], rngs=nnx.Rngs(params=0))
        graph, params, rest = nnx.split(trunk, nnx.Param, ...)
        return nnx.merge(graph, jax.tree.map(lambda x: x.astype(images.dtype), params), rest)(
            images
        )

    out = jax.eval_shape(run, jax.ShapeDtypeStruct((2, 4, 4, 1), jnp.bfloat16))
    assert (out.shape, out.dtype) == ((2, 2, 2, 4), jnp.bfloat16)
