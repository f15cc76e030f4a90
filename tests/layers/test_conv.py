"""Windows, votes in them, and convolutional and class capsules, against loops in NumPy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax.layers.conv import ConvolutionalCapsules
from capsjax.layers.dense import ClassCapsules, DenseCapsules
from capsjax.layers.votes import balanced
from capsjax.ops.windows import coordinates_of, slots_of, windows_of
from capsjax.routing import dynamic, em, inverted_attention, self_routing, uniform
from capsjax.routing import variational_bayes as vb
from capsjax.types import Capsules

BATCH, SHAPE, DIM, PARENTS = 2, (5, 4, 3), 4, 2


def grid(random, shape=SHAPE, dim=DIM):
    poses = random.normal(size=(BATCH, *shape, dim))
    activations = random.uniform(0.1, 0.9, size=(BATCH, *shape))
    return Capsules(jnp.asarray(poses, jnp.float32), jnp.asarray(activations, jnp.float32))


def places(size, kernel, stride, padding):
    """For every window along one axis, the positions it covers, some outside of the axis."""
    if padding == "VALID":
        return [
            [k * stride + r for r in range(kernel)] for k in range((size - kernel) // stride + 1)
        ]
    count = -(-size // stride)
    missing = max((count - 1) * stride + kernel - size, 0)
    return [[k * stride + r - missing // 2 for r in range(kernel)] for k in range(count)]


GEOMETRIES = [(3, 1, "VALID"), (3, 2, "VALID"), (2, 2, "SAME"), (3, 2, "SAME"), (1, 1, "VALID")]


@pytest.mark.core
@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_windows_hold_what_a_loop_finds_and_the_index_names_it(random, kernel, stride, padding):
    options = {"kernel_size": kernel, "stride": stride, "padding": padding}
    values = random.normal(size=(BATCH, *SHAPE, DIM))
    found = np.asarray(windows_of(jnp.asarray(values), **options))
    index = slots_of(SHAPE, **options)
    where = coordinates_of(SHAPE, **options)
    rows = places(SHAPE[0], kernel, stride, padding)
    columns = places(SHAPE[1], kernel, stride, padding)
    assert found.shape == (BATCH, len(rows), len(columns), kernel * kernel * SHAPE[2], DIM)
    for h, window_rows in enumerate(rows):
        for w, window_columns in enumerate(columns):
            slot = 0
            for row in window_rows:
                for column in window_columns:
                    inside = 0 <= row < SHAPE[0] and 0 <= column < SHAPE[1]
                    for kind in range(SHAPE[2]):
                        if inside:
                            expected = values[:, row, column, kind].astype(np.float32)
                            number = (row * SHAPE[1] + column) * SHAPE[2] + kind
                            place = [(row + 0.5) / SHAPE[0], (column + 0.5) / SHAPE[1]]
                        else:
                            expected, number, place = np.zeros((BATCH, DIM)), -1, [0, 0]
                        np.testing.assert_array_equal(found[:, h, w, slot], expected)
                        assert index[h, w, slot] == number
                        np.testing.assert_allclose(where[h, w, slot], place, rtol=1e-6)
                        slot += 1


def squash(vector):
    length = np.linalg.norm(vector)
    return vector * length / (1 + length**2)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("matrix", [True, False])
def test_convolutional_capsules_equal_loops_over_windows(random, matrix, shared):
    layer = ConvolutionalCapsules(
        SHAPE,
        DIM,
        PARENTS,
        DIM,
        kernel_size=3,
        stride=2,
        config=uniform.Config(),
        matrix=matrix,
        shared=shared,
        over="position",
        rngs=nnx.Rngs(params=0),
    )
    below = grid(random)
    routed = jax.jit(layer)(below)
    assert layer.out_shape == (2, 1, PARENTS)
    weights = np.asarray(layer.votes.weights[...], np.float64)
    poses = np.asarray(below.poses, np.float64)
    for b in range(BATCH):
        for h in range(2):
            own = weights if shared else weights[h, 0]
            seen = poses[b, 2 * h : 2 * h + 3, 0:3].reshape(-1, DIM)
            for j in range(PARENTS):
                total = np.zeros(DIM)
                for i, pose in enumerate(seen):
                    total += (pose.reshape(-1, own.shape[0]) @ own[:, j, :, i]).ravel() / PARENTS
                np.testing.assert_allclose(
                    routed.poses[b, h, 0, j], squash(total), rtol=1e-4, atol=1e-6
                )


def test_a_child_s_parents_at_all_positions_share_it_and_padding_takes_no_part(random):
    layer = ConvolutionalCapsules(
        SHAPE,
        DIM,
        PARENTS,
        DIM,
        kernel_size=3,
        padding="SAME",
        config=em.Config(),
        matrix=True,
        rngs=nnx.Rngs(params=0),
    )
    routed = layer(grid(random))
    index = slots_of(SHAPE, kernel_size=3, padding="SAME")
    coefficients = np.asarray(routed.coefficients, np.float64)
    total = np.zeros((BATCH, np.prod(SHAPE)))
    for h, w, slot in np.ndindex(index.shape):
        if index[h, w, slot] < 0:
            assert not coefficients[:, h, w, :, slot].any()
        else:
            total[:, index[h, w, slot]] += coefficients[:, h, w, :, slot].sum(-1)
    np.testing.assert_allclose(total, 1, rtol=1e-5)


CONFIGS = [
    dynamic.Config(),
    em.Config(),
    vb.Config(),
    self_routing.Config(),
    inverted_attention.Config(),
    vb.Config(activation="identity"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__module__.split(".")[-1])
def test_layers_stack_with_every_kind_of_routing(random, config):
    rngs = nnx.Rngs(params=0)
    options = {"config": config, "matrix": True, "normalise": True, "rngs": rngs}
    first = ConvolutionalCapsules(SHAPE, DIM, 3, DIM, kernel_size=2, coordinates=True, **options)
    second = ClassCapsules(first.out_shape, DIM, 5, DIM, **options)
    third = DenseCapsules(5, DIM, 2, 6, config=config, rngs=rngs)

    graph, state = nnx.split((first, second, third))

    def run(state, children):
        routed = []
        for layer in nnx.merge(graph, state):
            routed.append(layer(children, trace=True))
            children = Capsules(routed[-1].poses, routed[-1].activations)
        return routed

    routed = jax.eval_shape(run, state, grid(random))
    chex.assert_shape(routed[0].poses, (BATCH, 4, 3, 3, DIM))
    chex.assert_shape(routed[0].activations, (BATCH, 4, 3, 3))
    chex.assert_shape(routed[0].votes, (BATCH, 4, 3, 3, DIM, 12))
    chex.assert_shape(routed[1].poses, (BATCH, 5, DIM))
    chex.assert_shape(routed[1].coefficients, (BATCH, 5, 36))
    chex.assert_shape(routed[2].poses, (BATCH, 2, 6))
    assert routed[0].trace.coefficients.shape[0] == BATCH


def test_poses_of_one_type_are_normalised_together(random):
    layer = ClassCapsules(
        SHAPE,
        DIM,
        PARENTS,
        DIM,
        config=uniform.Config(),
        coordinates=False,
        normalise=True,
        rngs=nnx.Rngs(params=0),
    )
    poses = np.asarray(layer(grid(random)).poses)
    np.testing.assert_allclose(poses.mean((0, 2)), 0, atol=1e-5)
    assert np.all(poses.std((0, 2)) > 0.5)
    layer.eval()
    assert np.abs(np.asarray(layer(grid(random)).poses).mean()) < 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kernel_size": 5}, "a grid of 5x4 capsules is smaller than the window of 5x5"),
        ({"kernel_size": 0}, "kernel_size is 0 and stride 1, expected at least 1 each"),
        ({"kernel_size": 2, "stride": 0}, "stride 0"),
        ({"kernel_size": 2, "padding": "FULL"}, "padding is 'FULL'"),
        ({"kernel_size": 2, "over": "everything"}, "over is 'everything'"),
        ({"kernel_size": 2, "config": 3}, "routing is 3"),
    ],
)
def test_windows_that_cannot_be_are_refused(random, options, said):
    with pytest.raises(ValueError, match=said):
        ConvolutionalCapsules(
            SHAPE,
            DIM,
            PARENTS,
            DIM,
            **{"config": uniform.Config(), **options},
            rngs=nnx.Rngs(params=0),
        )(grid(random))


@pytest.mark.parametrize(("child_dim", "dim"), [(6, 6), (4, 9), (16, 8)])
def test_a_matrix_pose_that_is_not_square_is_refused(child_dim, dim):
    with pytest.raises(ValueError, match=f"poses have dimension {child_dim} below and {dim} here"):
        DenseCapsules(
            3, child_dim, 2, dim, config=uniform.Config(), matrix=True, rngs=nnx.Rngs(params=0)
        )


def test_balanced_weights_keep_the_length_of_poses_under_uniform_coupling(random):
    children, parents, dim = 32, 8, 16
    init = balanced(dynamic.Config(), children, parents, dim)
    weights = np.asarray(init(jax.random.key(0), (dim, parents, dim, children)), np.float64)
    units = random.normal(size=(200, children, dim))
    poses = 0.5 * units / np.linalg.norm(units, axis=-1, keepdims=True)
    sums = np.einsum("bia,ajdi->bjd", poses, weights) / parents
    assert 0.35 < np.linalg.norm(sums, axis=-1).mean() < 0.55
