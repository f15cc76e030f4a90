"""Layers: parity with the references, shapes and dtypes, which arrays they own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from capsjax import Capsules
from capsjax.layers import Convolution, DenseCapsules, DenseDecoder, PrimaryCapsules
from capsjax.layers.convolution import output_shape
from capsjax.routing import dynamic
from tests.conftest import bare
from tests.reference import dynamic as reference
from tests.reference.squash import norm, squash
from tests.reference.votes import dense_votes


def shapes(module):
    """Names and shapes of a module's parameters."""
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {"/".join(map(str, path)): variable.shape for path, variable in flat}


def convolve(images, kernel, stride, padding):
    return lax.conv_general_dilated(
        images, kernel, (stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.fixture
def rngs():
    return nnx.Rngs(params=0)


@pytest.mark.core
@pytest.mark.parametrize(("padding", "shape"), [("VALID", (2, 3, 2, 4)), ("SAME", (2, 4, 3, 4))])
def test_convolution_is_the_library_convolution_plus_its_bias(random, rngs, apply, padding, shape):
    layer = Convolution(
        2,
        4,
        kernel_size=3,
        stride=2,
        padding=padding,
        bias_init=nnx.initializers.normal(1.0),
        rngs=rngs,
    )
    assert shapes(layer) == {"kernel": (3, 3, 2, 4), "bias": (4,)}
    images = jnp.asarray(random.normal(size=(2, 8, 6, 2)), jnp.float32)
    result = apply(layer, images)
    chex.assert_shape(result, shape)
    chex.assert_type(result, jnp.float32)
    expected = np.asarray(convolve(images, layer.kernel[...], 2, padding))
    expected = expected + np.asarray(layer.bias[...])
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.core
def test_primary_capsules_are_squashed_vectors_of_neighbouring_features(random, rngs, precision):
    layer = PrimaryCapsules(
        3,
        2,
        4,
        kernel_size=3,
        stride=2,
        scale=0.25,
        bias_init=nnx.initializers.normal(1.0),
        rngs=rngs,
    )
    assert shapes(layer) == {"kernel": (3, 3, 3, 8), "bias": (8,)}
    features = jnp.asarray(random.normal(size=(2, 7, 5, 3)), precision.dtype)
    result = jax.jit(layer)(features)
    chex.assert_shape(result.poses, (2, 3, 2, 2, 4))
    chex.assert_shape(result.activations, (2, 3, 2, 2))
    chex.assert_type(list(result), precision.dtype)
    maps = np.asarray(convolve(features, layer.kernel[...], 2, "VALID"), np.float64)
    vectors = (maps * 0.25 + np.asarray(layer.bias[...], np.float64)).reshape(-1, 4)
    expected = np.stack([squash(s) for s in vectors]).reshape(2, 12, 4)
    tolerance = precision.tolerance
    poses = np.reshape(result.poses, expected.shape)
    np.testing.assert_allclose(poses, expected, rtol=tolerance, atol=tolerance)
    lengths = [[norm(v) for v in example] for example in expected]
    activations = np.reshape(result.activations, (2, 12))
    np.testing.assert_allclose(activations, lengths, rtol=tolerance, atol=tolerance)


def test_primary_capsules_alone_equal_those_in_a_batch(random, rngs):
    layer = PrimaryCapsules(3, 2, 4, kernel_size=3, stride=2, rngs=rngs)
    features = jnp.asarray(random.normal(size=(3, 7, 7, 3)), jnp.float32)
    together = jax.jit(layer)(features)
    alone = jax.jit(layer)(features[1:2])
    chex.assert_trees_all_close(
        jax.tree.map(lambda x: x[0], alone), jax.tree.map(lambda x: x[1], together), rtol=1e-5
    )


def dense(config, rngs):
    return DenseCapsules(6, 3, 4, 5, config=config, rngs=rngs)


def children(random, dtype=jnp.float32, batch=2):
    poses = random.normal(size=(batch, 6, 3))
    return Capsules(jnp.asarray(poses, dtype), jnp.asarray(np.linalg.norm(poses, axis=-1), dtype))


@pytest.mark.core
def test_dense_capsules_route_the_votes_of_equation_2(random, rngs, precision):
    layer = dense(dynamic.Config(bias=True, leaky=True), rngs)
    # Larger than at the start, so that the coefficients move away from uniform.
    layer.votes.weights[...] = 5 * layer.votes.weights[...]
    below = children(random, precision.dtype)
    result = jax.jit(layer)(below)
    votes = dense_votes(np.asarray(below.poses), np.asarray(layer.votes.weights[...]))
    bias = np.asarray(layer.routing.params["bias"][...])
    tolerance = precision.tolerance
    for example in range(2):
        expected = reference.route(votes[example], 3, bias=bias, leaky=True)[-1]
        for name in ("poses", "coefficients", "activations"):
            np.testing.assert_allclose(
                getattr(result, name)[example],
                getattr(expected, name),
                rtol=tolerance,
                atol=tolerance,
            )


def test_dense_capsules_give_batched_results_with_a_trace_on_request(random, rngs):
    layer, below = dense(dynamic.Config(num_iterations=2), rngs), children(random)
    result = jax.jit(lambda c: layer(c, trace=True))(below)
    chex.assert_shape(result.poses, (2, 4, 5))
    chex.assert_shape(result.activations, (2, 4))
    chex.assert_shape(result.coefficients, (2, 4, 6))
    chex.assert_shape(result.votes, (2, 4, 5, 6))
    chex.assert_shape(result.trace.poses, (2, 2, 4, 5))
    chex.assert_type(result.poses, jnp.float32)
    assert layer(below).trace is None


def test_dense_capsules_remember_no_batch(random, rngs):
    layer = dense(dynamic.Config(), rngs)
    layer.votes.weights[...] = 5 * layer.votes.weights[...]
    first, second = children(random), children(random)
    before = layer(first)
    assert np.any(layer(second).coefficients != before.coefficients)
    chex.assert_trees_all_equal(layer(first), before)


def test_dense_capsules_under_vmap_equal_a_loop(random, rngs):
    layer = dense(dynamic.Config(), rngs)
    groups = [children(random) for _ in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *groups)
    together = jax.jit(jax.vmap(layer))(stacked)
    for index, below in enumerate(groups):
        chex.assert_trees_all_close(together.poses[index], jax.jit(layer)(below).poses, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (dynamic.Config(), {"votes/weights": (3, 4, 5, 6)}),
        (dynamic.Config(bias=True), {"votes/weights": (3, 4, 5, 6), "routing/params/bias": (4, 5)}),
    ],
)
def test_dense_capsules_own_a_matrix_for_each_pair_and_the_routings_parameters(
    rngs, config, expected
):
    assert shapes(dense(config, rngs)) == expected


def test_a_config_of_no_routing_raises(rngs):
    with pytest.raises(ValueError, match=r"routing is 'dynamic', expected an instance of one of"):
        dense("dynamic", rngs)


def mlp(decoder, poses, mask):
    """The decoder of section 4.1 in NumPy."""
    x = (poses * mask[:, :, None]).reshape(len(poses), -1)
    *hidden, last = [
        (np.asarray(layer.kernel[...], np.float64), np.asarray(layer.bias[...], np.float64))
        for layer in decoder.layers
    ]
    for kernel, bias in hidden:
        x = np.maximum(x @ kernel + bias, 0)
    return 1 / (1 + np.exp(-(x @ last[0] + last[1])))


@pytest.mark.core
@pytest.mark.parametrize("widths", [(), (7,), (7, 9)])
def test_decoder_is_an_mlp_of_the_masked_poses(random, rngs, precision, widths):
    decoder = DenseDecoder(3, 4, (5, 6, 2), widths=widths, rngs=rngs)
    poses, mask = random.normal(size=(2, 3, 4)), np.array([[1.0, 0, 0], [0, 1, 1]])
    result = jax.jit(decoder)(jnp.asarray(poses, precision.dtype), jnp.asarray(mask, jnp.float32))
    chex.assert_shape(result, (2, 5, 6, 2))
    chex.assert_type(result, precision.dtype)
    expected = mlp(decoder, poses, mask).reshape(2, 5, 6, 2)
    np.testing.assert_allclose(result, expected, rtol=precision.tolerance)


def test_decoder_does_not_see_capsules_of_mask_zero(random, rngs):
    decoder = jax.jit(DenseDecoder(3, 4, (5, 6, 2), widths=(7,), rngs=rngs))
    poses = jnp.asarray(random.normal(size=(1, 3, 4)), jnp.float32)
    mask = jnp.array([[0.0, 1.0, 0.0]])
    hidden_changed = decoder(poses.at[0, 0].set(9.0).at[0, 2].set(-9.0), mask)
    np.testing.assert_array_equal(hidden_changed, decoder(poses, mask))
    assert np.any(decoder(poses.at[0, 1].set(9.0), mask) != decoder(poses, mask))


def test_decoder_under_every_call(random, rngs, apply):
    decoder = DenseDecoder(3, 4, (5, 6, 1), widths=(7,), rngs=rngs)
    poses = jnp.asarray(random.normal(size=(2, 3, 4)), jnp.float32)
    result = apply(decoder, poses, jnp.ones((2, 3)))
    chex.assert_shape(result, (2, 5, 6, 1))
    chex.assert_type(result, jnp.float32)
    assert np.all((result > 0) & (result < 1))


def test_output_shape_lists_every_output_without_the_batch(rngs):
    layer = PrimaryCapsules(3, 2, 4, kernel_size=3, stride=2, rngs=rngs)
    assert output_shape(layer, (7, 5, 3)) == ((3, 2, 2, 4), (3, 2, 2))


def test_output_shape_passes_on_what_the_module_refuses(rngs):
    layer = Convolution(1, 4, kernel_size=5, rngs=rngs)
    with pytest.raises(ValueError, match="images of 4x9 are smaller than the kernel of 5x5"):
        bare(output_shape)(layer, (4, 9, 1))
