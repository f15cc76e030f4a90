"""Competition across windows, against plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Capsules
from capsjax.routing import competition, dynamic, em, random_coupling, uniform
from tests.conftest import bare

PARENTS, DIM, TYPES = 3, 4, 2


def convolution_index(size: int, kernel: int, stride: int) -> np.ndarray:
    """Children [rows, columns, kernel * kernel * TYPES] under windows of a size x size grid."""
    positions = range(0, size - kernel + 1, stride)
    table = [
        [
            [
                ((row + r) * size + column + c) * TYPES + kind
                for r, c, kind in itertools.product(range(kernel), range(kernel), range(TYPES))
            ]
            for column in positions
        ]
        for row in positions
    ]
    return np.array(table)


def reference(logits: np.ndarray, index: np.ndarray, over: str) -> np.ndarray:
    """Every coefficient by a loop over all its rivals."""
    windows = list(np.ndindex(index.shape[:-1]))
    parents = range(logits.shape[-2])
    result = np.zeros_like(logits)
    for here, slot, parent in itertools.product(windows, range(index.shape[-1]), parents):
        child = index[(*here, slot)]
        if child < 0:
            continue
        total = 0.0
        for there, other, rival in itertools.product(windows, range(index.shape[-1]), parents):
            if index[(*there, other)] != child:
                continue
            if over == "position" and (there, other) != (here, slot):
                continue
            if over == "type" and rival != parent:
                continue
            total += np.exp(logits[(*there, rival, other)] - logits[(*here, parent, slot)])
        result[(*here, parent, slot)] = 1 / total
    return result


INDEXES = {
    "3x3, stride 1": convolution_index(4, 3, 1),
    "3x3, stride 2": convolution_index(5, 3, 2),
    "padded": np.array([[0, 1, -1], [1, -1, 2]]),
    "one window": np.arange(5),
}


@pytest.mark.core
@pytest.mark.parametrize("over", ["all", "position", "type"])
@pytest.mark.parametrize("name", INDEXES)
def test_coefficients_equal_a_loop_over_all_rivals(name, over, random, precision):
    index = INDEXES[name]
    logits = random.normal(size=(*index.shape[:-1], PARENTS, index.shape[-1]))
    compete = jax.jit(competition.across(index, over=over))
    found = compete(jnp.asarray(logits, precision.dtype))
    np.testing.assert_allclose(
        found, reference(logits, index, over), rtol=precision.tolerance, atol=precision.tolerance
    )


def sums_by_child(coefficients, index, axes):
    """Sum of all coefficients of each child, over windows and the named axes."""
    total = {}
    for place in np.ndindex(index.shape):
        if index[place] >= 0:
            values = np.asarray(coefficients)[(*place[:-1], slice(None), place[-1])]
            total[index[place]] = total.get(index[place], 0) + values.sum(axes)
    return total


@pytest.mark.core
def test_what_a_child_s_coefficients_sum_to(random):
    index = INDEXES["3x3, stride 1"]
    logits = jnp.asarray(random.normal(size=(2, 2, PARENTS, 18)), jnp.float32)
    covering = {child: int((index == child).sum()) for child in np.unique(index)}
    for child, total in sums_by_child(competition.across(index)(logits), index, None).items():
        assert total == pytest.approx(1, rel=1e-5), child
    by_position = competition.across(index, over="position")(logits)
    for child, total in sums_by_child(by_position, index, None).items():
        assert total == pytest.approx(covering[child], rel=1e-5)
    by_type = competition.across(index, over="type")(logits)
    for total in sums_by_child(by_type, index, ()).values():
        np.testing.assert_allclose(total, np.ones(PARENTS), rtol=1e-5)


def test_a_slot_without_a_child_gets_nothing(random):
    index = INDEXES["padded"]
    logits = jnp.asarray(random.normal(size=(2, PARENTS, 3)), jnp.float32)
    for over in ("all", "position", "type"):
        found = np.asarray(competition.across(index, over=over)(logits))
        assert np.all(found[0, :, 2] == 0)
        assert np.all(found[1, :, 1] == 0)


@pytest.mark.parametrize("over", ["all", "position", "type"])
def test_value_and_gradient_are_finite_for_wild_logits(over, random):
    index = INDEXES["padded"]
    compete = competition.across(index, over=over)

    @jax.jit
    def results(logits):
        def total(logits):
            return jnp.sum(compete(logits) * jnp.arange(1.0, 4.0)[None, :, None])

        return jax.value_and_grad(total)(logits)

    for scale in (0.0, 1.0, 1e4, 1e30):
        logits = jnp.asarray(random.normal(size=(2, PARENTS, 3)) * scale, jnp.float32)
        value, gradient = results(logits)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("module", [dynamic, em, uniform, random_coupling])
def test_routings_let_a_child_s_parents_at_all_positions_compete(module, random):
    index = INDEXES["3x3, stride 1"]
    votes = jnp.asarray(random.normal(size=(2, 2, PARENTS, DIM, 18)), jnp.float32)
    children = Capsules(jnp.zeros((2, 2, 18, 5)), jnp.ones((2, 2, 18)))
    config = module.Config()
    params = module.init(
        config, jax.random.key(0), parents=PARENTS, dim=DIM, children=18, child_dim=5
    )
    compete = competition.across(index)
    routed = jax.jit(lambda v, c: module.route(v, c, params, config, compete=compete))(
        votes, children
    )
    for total in sums_by_child(routed.coefficients, index, None).values():
        assert total == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("index", [np.zeros((2, 3)), np.array(3)])
def test_an_index_that_is_no_table_of_integers_is_refused(index):
    with pytest.raises(ValueError, match=r"index has shape .* and dtype .*expected integers"):
        bare(competition.across)(index)


def test_an_unknown_over_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="over is 'none', expected 'all', 'position' or 'type'"):
        bare(competition.across)(np.arange(3), over="none")
    with pytest.raises(ValueError, match=r"logits have shape \(2, 4\).*index of shape \(3,\)"):
        competition.across(np.arange(3))(jnp.zeros((2, 4)))
