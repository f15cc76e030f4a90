"""Capsule convolutions, residual cells, routing by a shared kernel: parity with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Capsules, routing
from capsjax.layers import CapsuleConvolution, ResidualCapsules, SharedKernelCapsules
from capsjax.layers.cells import everywhere
from capsjax.routing import dynamic
from tests.reference.squash import norm, squash

BATCH, HEIGHT, WIDTH, TYPES, DIM = 2, 4, 3, 3, 2
GRID = (BATCH, HEIGHT, WIDTH, TYPES, DIM)


@pytest.fixture
def rngs():
    return nnx.Rngs(params=0)


def grid(random, dtype=jnp.float32):
    poses = random.normal(size=GRID)
    return poses, Capsules(jnp.asarray(poses, dtype), jnp.ones(GRID[:-1], dtype))


def array(parameter):
    return np.asarray(parameter[...], np.float64)


def convolved(x, kernel, stride=1):
    """A 3x3 convolution with "SAME" padding, one output at a time."""
    pads = []
    for size in x.shape[1:3]:
        total = max((-(-size // stride) - 1) * stride + 3 - size, 0)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = (-(-size // stride) for size in x.shape[1:3])
    out = np.zeros((len(x), height, width, kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            window = padded[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
            out[:, i, j] = np.einsum("bhwc,hwcf->bf", window, kernel)
    return out


def squashed(vectors):
    flat = [squash(s) for s in vectors.reshape(-1, vectors.shape[-1])]
    return np.reshape(flat, vectors.shape)


def capsules(x, kernel, dim, stride=1):
    """Capsules by convolving all numbers below."""
    sums = convolved(x.reshape(*x.shape[:3], -1), kernel, stride)
    return squashed(sums.reshape(*sums.shape[:3], -1, dim))


def routed(x, kernel, bias, parents, iterations):
    """Algorithm 1 of the paper, in loops: votes, softmax_3D, sum, squash, agreement."""
    batch, height, width, types, _ = x.shape
    votes = np.stack([convolved(x[:, :, :, s], kernel) for s in range(types)], axis=-2)
    votes = votes.reshape(batch, height, width, types, parents, -1)
    poses = np.zeros((batch, height, width, parents, votes.shape[-1]))
    shares = np.zeros((batch, height, width, parents, types))
    for b in range(batch):
        logits = np.zeros((height, width, parents, types))
        for _ in range(iterations):
            for s in range(types):
                exponentials = np.exp(logits[..., s])
                shares[b, ..., s] = exponentials / exponentials.sum()
            for place in np.ndindex(height, width, parents):
                p, q, r = place
                total = sum(shares[(b, *place, s)] * votes[b, p, q, s, r] for s in range(types))
                poses[(b, *place)] = squash(total + bias[r])
                for s in range(types):
                    logits[(*place, s)] += votes[b, p, q, s, r] @ poses[(b, *place)]
    return poses, shares


@pytest.mark.core
@pytest.mark.parametrize("stride", [1, 2])
def test_capsule_convolution_squashes_a_convolution_of_all_numbers(random, rngs, precision, stride):
    layer = CapsuleConvolution(TYPES, DIM, 4, 5, stride=stride, rngs=rngs)
    assert layer.kernel.shape == (3, 3, TYPES * DIM, 20)
    poses, children = grid(random, precision.dtype)
    found = jax.jit(layer)(children)
    expected = capsules(poses, array(layer.kernel), 5, stride)
    assert expected.shape[1:3] == (-(-HEIGHT // stride), -(-WIDTH // stride))
    assert found.poses.dtype == precision.dtype
    np.testing.assert_allclose(found.poses, expected, rtol=0, atol=precision.tolerance)
    lengths = np.reshape([norm(v) for v in expected.reshape(-1, 5)], expected.shape[:-1])
    np.testing.assert_allclose(found.activations, lengths, rtol=0, atol=precision.tolerance)


def test_many_layers_keep_the_capsules_lengths(random, rngs):
    layers = [CapsuleConvolution(8, 8, 8, 8, rngs=rngs) for _ in range(12)]
    poses = jnp.asarray(random.normal(size=(4, 4, 4, 8, 8)), jnp.float32)
    children = Capsules(poses, jnp.ones(poses.shape[:-1]))
    call = nnx.jit(lambda layer, children: layer(children))
    for layer in layers:
        children = call(layer, children)
    assert 0.5 < float(jnp.mean(children.activations)) < 0.9


@pytest.mark.core
@pytest.mark.parametrize("iterations", [1, 3])
def test_shared_kernel_capsules_are_those_of_algorithm_1(random, rngs, x64, iterations):
    config = dynamic.Config(num_iterations=iterations, bias=True)
    layer = SharedKernelCapsules(TYPES, DIM, 2, 3, config=config, rngs=rngs)
    assert layer.kernel.shape == (3, 3, DIM, 6)
    # Larger than at the start, so that the coefficients move away from uniform.
    layer.kernel[...] = 4 * layer.kernel[...]
    layer.routing.params["bias"][...] = jnp.asarray(random.normal(size=(2, 3)), jnp.float32)
    poses, children = grid(random, jnp.float64)
    found = jax.jit(layer)(children)
    bias = array(layer.routing.params["bias"])
    expected, shares = routed(poses, array(layer.kernel), bias, 2, iterations)
    if iterations > 1:
        assert shares.max() > 3 * shares.min()
    np.testing.assert_allclose(found.poses, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.coefficients, shares, rtol=0, atol=1e-10)
    lengths = np.linalg.norm(expected, axis=-1)
    np.testing.assert_allclose(found.activations, lengths, rtol=0, atol=1e-10)


def test_a_child_competes_over_all_parents_at_all_positions(random):
    logits = jnp.asarray(random.normal(size=(4, 3, 2, 5)), jnp.float32)
    found = everywhere(logits)
    np.testing.assert_allclose(np.sum(found, axis=(0, 1, 2)), np.ones(5), rtol=1e-6)
    ratio = np.exp(np.float64(logits[1, 2, 0, 3]) - np.float64(logits[3, 0, 1, 3]))
    np.testing.assert_allclose(found[1, 2, 0, 3] / found[3, 0, 1, 3], ratio, rtol=1e-5)


@pytest.mark.parametrize("config", [None, dynamic.Config(bias=True)], ids=["plain", "routed"])
def test_a_residual_cell_adds_two_capsule_convolutions_and_a_shortcut(random, rngs, x64, config):
    cell = ResidualCapsules(TYPES, DIM, 4, 3, config=config, rngs=rngs)
    poses, children = grid(random, jnp.float64)
    found, of_shortcut = jax.jit(cell)(children)
    first = capsules(poses, array(cell.first.kernel), 3, 2)
    main = capsules(first, array(cell.main[0].kernel), 3)
    main = capsules(main, array(cell.main[1].kernel), 3)
    if config is None:
        shortcut = capsules(first, array(cell.shortcut.kernel), 3)
        assert of_shortcut is None
    else:
        bias = array(cell.shortcut.routing.params["bias"])
        shortcut, _ = routed(first, array(cell.shortcut.kernel), bias, 4, 3)
        np.testing.assert_allclose(of_shortcut.poses, shortcut, rtol=0, atol=1e-10)
    expected = main + shortcut
    assert expected.shape == (BATCH, 2, 2, 4, 3)
    np.testing.assert_allclose(found.poses, expected, rtol=0, atol=1e-10)
    lengths = np.minimum(np.linalg.norm(expected, axis=-1), 1)
    assert config is not None or lengths.max() == 1
    np.testing.assert_allclose(found.activations, lengths, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", routing.ALGORITHMS)
def test_any_routing_runs_on_a_shared_kernel(random, rngs, name):
    config = routing.config_of(name)
    layer = SharedKernelCapsules(TYPES, DIM, 2, 3, config=config, rngs=rngs)
    layer.eval()
    found = jax.jit(layer)(grid(random)[1])
    assert found.poses.shape == (BATCH, HEIGHT, WIDTH, 2, 3)
    assert found.activations.shape == (BATCH, HEIGHT, WIDTH, 2)
    assert np.all(np.isfinite(found.poses))
    assert np.all((found.activations >= 0) & (found.activations <= 1 + 1e-6))
    sums = np.sum(found.coefficients, axis=(1, 2, 3))
    if name != "self_attention":  # whose prior is added to its shares
        np.testing.assert_allclose(sums, np.ones((BATCH, TYPES)), rtol=1e-5)
