"""Votes: parity with equation 2, gradients, coordinates, shapes, errors."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from capsjax.ops import add_coordinates, dense_votes, shared_votes
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


@pytest.mark.core
def test_a_matrix_pose_is_multiplied_from_the_right(random):
    poses = random.normal(size=(BATCH, 5, 6))  # 2x3 matrices
    weights = random.normal(size=(3, PARENTS, 4, 5))
    votes = dense_votes(jnp.asarray(poses), jnp.asarray(weights), rows=2)
    for b in range(BATCH):
        for j in range(PARENTS):
            for i in range(5):
                vote = poses[b, i].reshape(2, 3) @ weights[:, j, :, i]
                np.testing.assert_allclose(votes[b, j, :, i], vote.ravel(), rtol=2e-5, atol=1e-6)


def test_positions_that_share_matrices_vote_as_each_by_itself(random):
    poses = jnp.asarray(random.normal(size=(BATCH, 7, 3, 4)), jnp.float32)
    weights = jnp.asarray(random.normal(size=(2, PARENTS, 2, 3)), jnp.float32)
    votes = shared_votes(poses, weights, rows=2)
    alone = [dense_votes(poses[:, p], weights, rows=2) for p in range(7)]
    np.testing.assert_allclose(votes, np.concatenate(alone, -1), rtol=1e-5, atol=1e-6)


# Coordinates


def where():
    """Row and column of two children."""
    return jnp.array([[0.25, 0.75], [0.5, 0.125]])


def test_coordinates_enter_the_right_hand_column_of_a_matrix_and_the_start_of_a_vector():
    votes = jnp.zeros((1, PARENTS, 9, 2))
    found = np.asarray(add_coordinates(votes, where(), rows=3))
    expected = np.zeros((9, 2))
    expected[2] = [0.25, 0.5]  # row, into the last entry of the first row
    expected[5] = [0.75, 0.125]  # column, into that of the second
    np.testing.assert_array_equal(found[0, 1], expected)
    vector = np.asarray(add_coordinates(votes, where()))[0, 0]
    np.testing.assert_array_equal(vector[:3], [[0.25, 0.5], [0.75, 0.125], [0, 0]])
    with pytest.raises(ValueError, match="votes have dimension 1, expected at least 2"):
        add_coordinates(votes[:, :, :1], where())


def test_coordinates_of_the_smallest_matrix_and_vector():
    matrix = add_coordinates(jnp.ones((1, 1, 4, 2)), where(), rows=2)[0, 0]
    np.testing.assert_array_equal(matrix, [[1, 1], [1.25, 1.5], [1, 1], [1.75, 1.125]])
    vector = add_coordinates(jnp.ones((1, 1, 2, 2)), where())[0, 0]
    np.testing.assert_array_equal(vector, [[1.25, 1.5], [1.75, 1.125]])


def test_each_window_has_coordinates_of_its_own(random):
    votes = jnp.asarray(random.normal(size=(2, 3, PARENTS, DIM, 2)), jnp.float32)
    places = jnp.asarray(random.uniform(size=(3, 2, 2)), jnp.float32)
    found = add_coordinates(votes, places, rows=2)
    for window in range(3):
        alone = add_coordinates(votes[:, window], places[window], rows=2)
        np.testing.assert_array_equal(found[:, window], alone)


# What is refused


@pytest.mark.parametrize("rows", [0, -3, 2])
def test_rows_that_a_vote_cannot_have_are_refused(rows):
    message = f"rows is {rows}, expected a divisor of the votes' dimension 9"
    with pytest.raises(ValueError, match=message):
        add_coordinates(jnp.zeros((1, PARENTS, 9, 2)), where(), rows=rows)


@pytest.mark.parametrize(
    ("poses", "weights", "message"),
    [
        ((7, 4), (4, 5, 6, 7), r"\(7, 4\) and \(4, 5, 6, 7\)"),
        ((2, 3, 7, 4), (4, 5, 6, 7), r"\(2, 3, 7, 4\) and \(4, 5, 6, 7\)"),
        ((3, 7, 4), (4, 5, 6), r"\[inner, parents, columns, children\], got .*\(4, 5, 6\)"),
        ((3, 7, 4), (2, 4, 5, 6, 7), r"\(3, 7, 4\) and \(2, 4, 5, 6, 7\)"),
        ((3, 8, 4), (4, 5, 6, 7), "8 children of dimension 4.*expect 7 of dimension 4"),
        ((3, 7, 2), (4, 5, 6, 7), "7 children of dimension 2.*expect 7 of dimension 4"),
    ],
)
def test_shapes_that_disagree_raise(poses, weights, message):
    with pytest.raises(ValueError, match=message):
        bare(dense_votes)(jnp.ones(poses), jnp.ones(weights))


@pytest.mark.parametrize("vote", [dense_votes, shared_votes])
def test_no_rows_and_sizes_that_disagree_are_named_by_the_function_itself(own_answers, vote):
    poses = jnp.ones((3, 7, 4) if vote is dense_votes else (3, 2, 7, 4))
    with pytest.raises(ValueError, match="rows is 0, expected at least 1"):
        vote(poses, jnp.ones((4, 5, 6, 7)), rows=0)
    with pytest.raises(ValueError, match=r"7 children of dimension 4.*expect 8 of dimension 6"):
        vote(poses, jnp.ones((3, 5, 6, 8)), rows=2)


@pytest.mark.parametrize("shape", [(3, 7, 4), (1, 3, 2, 7, 4)])
def test_poses_without_an_axis_of_positions_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[batch, positions, children, child_dim\], got \("):
        bare(shared_votes)(jnp.ones(shape), jnp.ones((4, 5, 6, 7)))


def test_integers_are_no_poses_and_no_votes(own_answers):
    weights = jnp.ones((4, 5, 6, 7))
    for vote, shape in ((dense_votes, (3, 7, 4)), (shared_votes, (3, 2, 7, 4))):
        with pytest.raises(ValueError, match=r"poses is int32 .*, expected float"):
            vote(jnp.ones(shape, jnp.int32), weights)
    with pytest.raises(ValueError, match=r"votes is int32 .*, expected float"):
        add_coordinates(jnp.ones((1, PARENTS, 4, 2), jnp.int32), where())
