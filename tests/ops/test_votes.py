"""Dense votes: parity with equation 2, gradients, shapes, errors."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from capsjax.ops import dense_votes, shared_votes
from tests.conftest import bare
from tests.reference import votes as reference

BATCH, CHILDREN, CHILD_DIM, PARENTS, DIM = 3, 7, 4, 5, 6


@jax.jit
def _value_and_gradients(poses, weights):
    votes, pull = jax.vjp(dense_votes, poses, weights)
    return votes, *pull(jnp.ones_like(votes))


@pytest.fixture
def inputs(random):
    poses = random.normal(size=(BATCH, CHILDREN, CHILD_DIM))
    weights = random.normal(size=(CHILD_DIM, PARENTS, DIM, CHILDREN))
    return poses, weights


@pytest.mark.core
def test_votes_equal_equation_2(inputs, precision, apply):
    result = apply(dense_votes, *(jnp.asarray(x, precision.dtype) for x in inputs))
    chex.assert_shape(result, (BATCH, PARENTS, DIM, CHILDREN))
    chex.assert_type(result, precision.dtype)
    np.testing.assert_allclose(
        result, reference.dense_votes(*inputs), rtol=precision.tolerance, atol=precision.tolerance
    )


@pytest.mark.core
def test_gradients_equal_those_of_the_contraction(inputs, random, precision, apply):
    cotangent = random.normal(size=(BATCH, PARENTS, DIM, CHILDREN))
    poses, weights = inputs
    by_poses = np.einsum("ajdi,bjdi->bia", weights, cotangent)
    by_weights = np.einsum("bia,bjdi->ajdi", poses, cotangent)

    def pull(poses, weights, cotangent):
        return jax.vjp(dense_votes, poses, weights)[1](cotangent)

    arrays = (jnp.asarray(x, precision.dtype) for x in (*inputs, cotangent))
    gradients = apply(pull, *arrays)
    tolerance = 2 * precision.tolerance
    np.testing.assert_allclose(gradients[0], by_poses, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(gradients[1], by_weights, rtol=tolerance, atol=tolerance)


def test_votes_of_matrices_and_their_gradients_equal_products_of_matrices(random, precision, apply):
    rows, inner, columns = 2, 3, 4
    poses = random.normal(size=(BATCH, CHILDREN, rows * inner))
    weights = random.normal(size=(inner, PARENTS, columns, CHILDREN))
    cotangent = random.normal(size=(BATCH, PARENTS, rows * columns, CHILDREN))
    matrices = poses.reshape(BATCH, CHILDREN, rows, inner)
    pulled = cotangent.reshape(BATCH, PARENTS, rows, columns, CHILDREN)
    expected = (
        np.einsum("bira,ajci->bjrci", matrices, weights).reshape(cotangent.shape),
        np.einsum("ajci,bjrci->bira", weights, pulled).reshape(poses.shape),
        np.einsum("bira,bjrci->ajci", matrices, pulled),
    )

    def all_three(poses, weights, cotangent):
        votes, pull = jax.vjp(partial(dense_votes, rows=rows), poses, weights)
        return votes, *pull(cotangent)

    arrays = (jnp.asarray(x, precision.dtype) for x in (poses, weights, cotangent))
    tolerance = 2 * precision.tolerance
    for found, wanted in zip(apply(all_three, *arrays), expected, strict=True):
        chex.assert_type(found, precision.dtype)
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 2])
def test_gradients_equal_finite_differences(inputs, rows, x64):
    poses, weights = map(jnp.asarray, inputs)
    vote = jax.jit(partial(dense_votes, rows=rows))
    check_grads(vote, (poses, weights[: CHILD_DIM // rows]), order=2, modes=["rev"])


def test_a_numpy_cotangent_is_taken(inputs, pytestconfig):
    if pytestconfig.getoption("--jaxtyping-packages"):
        pytest.skip("the checked annotations of the gradient's inner functions name jax arrays")
    arrays = [jnp.asarray(x, jnp.float32) for x in inputs]
    _, pull = jax.vjp(dense_votes, *arrays)
    chex.assert_trees_all_equal_shapes(
        pull(np.ones((BATCH, PARENTS, DIM, CHILDREN), np.float32)), tuple(arrays)
    )


def test_value_and_gradients_are_finite_and_of_the_inputs_dtype(inputs, dtype):
    arrays = [jnp.asarray(x, dtype) for x in inputs]
    for scale in (0.0, 1e-15, 1e15):
        results = _value_and_gradients(arrays[0], arrays[1] * scale)
        chex.assert_type(results, dtype)
        chex.assert_tree_all_finite(results)


def test_an_example_alone_is_the_same_as_inside_a_batch(inputs):
    poses, weights = (jnp.asarray(x, jnp.float32) for x in inputs)
    together = dense_votes(poses, weights)
    for example in range(BATCH):
        alone = dense_votes(poses[example : example + 1], weights)[0]
        np.testing.assert_allclose(alone, together[example], rtol=1e-6, atol=1e-6)


def test_bfloat16_sums_are_rounded_once(random):
    poses, weights, cotangent = (
        jnp.asarray(random.uniform(0.5, 1, shape), jnp.bfloat16)
        for shape in ((256, 7, 4), (4, 5, 6, 7), (256, 5, 6, 7))
    )
    u, w, g = (np.asarray(x, np.float64) for x in (poses, weights, cotangent))

    def check(subscripts, left, right, found):
        chex.assert_type(found, jnp.bfloat16)
        expected = np.einsum(subscripts, left, right)
        np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=2.0**-8)

    votes, pull = jax.vjp(dense_votes, poses, weights)
    poses_gradient, weights_gradient = pull(cotangent)
    check("bia,ajdi->bjdi", u, w, votes)
    check("ajdi,bjdi->bia", w, g, poses_gradient)
    check("bia,bjdi->ajdi", u, g, weights_gradient)

    halves, doubled = u.reshape(256, 7, 2, 2), np.repeat(g, 2, 2).reshape(256, 5, 6, 2, 7)
    doubled = np.moveaxis(doubled, 2, 3)
    votes, pull = jax.vjp(partial(dense_votes, rows=2), poses, weights[:2])
    poses_gradient, weights_gradient = pull(jnp.tile(cotangent, (1, 1, 2, 1)))
    check("bira,ajci->bjrci", halves, w[:2], votes.reshape(256, 5, 2, 6, 7))
    check("ajci,bjrci->bira", w[:2], doubled, poses_gradient.reshape(halves.shape))
    check("bira,bjrci->ajci", halves, doubled, weights_gradient)

    wide, matrices = poses.reshape(16, 16, 7, 4), weights
    votes, pull = jax.vjp(shared_votes, wide, matrices)
    check("bpia,ajci->bjcpi", u.reshape(16, 16, 7, 4), w, votes.reshape(16, 5, 6, 16, 7))
    _, weights_gradient = pull(cotangent[:16].repeat(16, -1))
    repeated = g[:16].repeat(16, -1).reshape(16, 5, 6, 16, 7)
    check("bpia,bjcpi->ajci", u.reshape(16, 16, 7, 4), repeated, weights_gradient)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_matrix_products_without_a_loop(inputs, platform, rows):
    def loss(poses, weights):
        return jnp.sum(jnp.square(dense_votes(poses, weights, rows=rows)))

    poses, weights = (jnp.asarray(x, jnp.float32) for x in inputs)
    exported = jax.export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=[platform])
    text = exported(poses, weights[: CHILD_DIM // rows]).mlir_module()
    assert text.count("stablehlo.dot_general") == 3
    assert "stablehlo.while" not in text


@pytest.mark.parametrize(
    ("poses", "weights", "message"),
    [
        ((7, 4), (4, 5, 6, 7), r"\(7, 4\) and \(4, 5, 6, 7\)"),
        ((3, 7, 4), (4, 5, 6), r"\[inner, parents, columns, children\], got .*\(4, 5, 6\)"),
        ((3, 8, 4), (4, 5, 6, 7), "8 children of dimension 4.*expect 7 of dimension 4"),
        ((3, 7, 2), (4, 5, 6, 7), "7 children of dimension 2.*expect 7 of dimension 4"),
    ],
)
def test_shapes_that_disagree_raise(poses, weights, message):
    with pytest.raises(ValueError, match=message):
        bare(dense_votes)(jnp.ones(poses), jnp.ones(weights))
