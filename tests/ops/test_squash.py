"""safe_norm and squash: parity with equation 1, finiteness, bounds, gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jax.test_util import check_grads

from capsjax.ops import safe_norm, squash, squash_exponential
from tests.reference import squash as reference

DIM = 8
# Of five vectors: squash treats those below and above length 1 differently.
LENGTHS = np.array([[1e-3], [0.3], [1.0], [3.0], [1e3]])
_compiled_squash = jax.jit(squash)


def vectors(largest: float) -> st.SearchStrategy:
    largest = float(np.float32(largest))
    entries = st.floats(-largest, largest, width=32, allow_subnormal=False)
    return arrays.arrays(np.float32, (DIM,), elements=entries)


@pytest.mark.core
def test_squash_equals_equation_1(random, precision, apply):
    s = LENGTHS * random.normal(size=(5, DIM))
    expected = np.stack([reference.squash(row) for row in s])
    result = apply(squash, jnp.asarray(s, precision.dtype))
    chex.assert_shape(result, (5, DIM))
    chex.assert_type(result, precision.dtype)
    np.testing.assert_allclose(result, expected, rtol=precision.tolerance)


@pytest.mark.core
def test_squash_exponential_equals_equation_8(random, precision, apply):
    # The third lies at the switch between its two forms.
    s = np.array([[1e-8], [1e-3], [1e-2], [0.3], [3.0], [1e3]]) * random.normal(size=(6, DIM))
    s[2] *= 1e-2 / np.linalg.norm(s[2])
    expected = np.stack([reference.squash_exponential(row) for row in s])
    result = apply(squash_exponential, jnp.asarray(s, precision.dtype))
    np.testing.assert_allclose(result, expected, rtol=precision.tolerance)


def test_squash_exponential_is_smooth_where_its_form_changes(x64):
    x = jnp.outer(jnp.linspace(0.99e-2, 1.01e-2, 21), jnp.array([0.6, 0.8]))
    gradient = jax.vmap(jax.jacobian(squash_exponential))(x)
    # d/ds of (1 - e^-n) s/n at n = 0.01, along s: e^-n; across: (1 - e^-n) / n.
    n = np.linspace(0.99e-2, 1.01e-2, 21)
    along, across = np.array([0.6, 0.8]), np.array([-0.8, 0.6])
    np.testing.assert_allclose(gradient @ along @ along, np.exp(-n), rtol=1e-12)
    np.testing.assert_allclose(gradient @ across @ across, -np.expm1(-n) / n, rtol=1e-12)


def test_safe_norm_equals_the_euclidean_length(random, precision, apply):
    x = LENGTHS * random.normal(size=(5, DIM))
    expected = [reference.norm(row) for row in x]
    result = apply(safe_norm, jnp.asarray(x, precision.dtype))
    chex.assert_shape(result, (5,))
    chex.assert_type(result, precision.dtype)
    np.testing.assert_allclose(result, expected, rtol=precision.tolerance)


@pytest.mark.parametrize(
    ("axis", "keepdims", "shape"),
    [(-1, False, (2, 3)), (-1, True, (2, 3, 1)), (1, False, (2, 4)), (0, True, (1, 3, 4))],
)
def test_axis_and_keepdims_give_these_shapes(dtype, axis, keepdims, shape):
    x = jnp.ones((2, 3, 4), dtype)
    norm = safe_norm(x, axis=axis, keepdims=keepdims)
    chex.assert_shape(norm, shape)
    chex.assert_type(norm, dtype)
    chex.assert_equal_shape([squash(x, axis=axis), x])
    chex.assert_type(squash(x, axis=axis), dtype)


def test_squash_along_another_axis_is_squash_of_the_transpose(random):
    x = jnp.asarray(random.normal(size=(4, 6)), jnp.float32)
    # Up to rounding: the sum over a strided axis may run in another order.
    np.testing.assert_allclose(squash(x, axis=0), squash(x.T).T, rtol=1e-6)


@pytest.mark.core
@pytest.mark.parametrize("function", [safe_norm, squash, squash_exponential])
def test_value_and_gradient_are_finite(dtype, function):
    run = jax.jit(jax.value_and_grad(lambda x: jnp.sum(function(x))))
    for scale in (0.0, 1e-30, 1e-15, 1e15, 1e30):
        chex.assert_tree_all_finite(run(jnp.asarray(scale * np.linspace(-1, 1, DIM), dtype)))


@pytest.mark.parametrize("function", [safe_norm, squash])
def test_zero_has_zero_gradient(dtype, function):
    gradient = jax.jacobian(function)(jnp.zeros(DIM, dtype))
    np.testing.assert_array_equal(np.asarray(gradient, np.float64), 0.0)


@pytest.mark.parametrize("function", [safe_norm, squash, squash_exponential])
def test_zero_stays_zero_and_nan_nan(dtype, function):
    assert not np.any(np.asarray(function(jnp.zeros(DIM, dtype)), np.float64))
    assert np.all(np.isnan(np.asarray(function(jnp.array([1.0, np.nan], dtype)), np.float64)))


def test_squash_exponential_leaves_the_shortest_vectors_as_they_are(dtype):
    gradient = jax.jacobian(squash_exponential)(jnp.zeros(DIM, dtype))
    np.testing.assert_array_equal(np.asarray(gradient, np.float64), np.eye(DIM))


def test_zero_inside_a_batch_leaves_the_others_gradients(random):
    x = jnp.asarray(random.normal(size=(2, DIM)), jnp.float32).at[0].set(0.0)
    gradient = jax.grad(lambda x: jnp.sum(safe_norm(x)))(x)
    np.testing.assert_array_equal(gradient[0], 0.0)
    np.testing.assert_allclose(gradient[1], x[1] / np.linalg.norm(x[1]), rtol=1e-6)


def test_a_vector_near_the_end_of_the_range_keeps_its_length():
    x = jnp.array([1e38, 0.0], jnp.float32)
    np.testing.assert_allclose(safe_norm(x), 1e38, rtol=1e-6)


def test_a_vector_near_the_start_of_the_range_keeps_its_length():
    x = jnp.array([3e-30, 4e-30], jnp.float32)  # the square of either is 0
    np.testing.assert_allclose(safe_norm(x), 5e-30, rtol=1e-6)
    np.testing.assert_allclose(squash_exponential(x), x, rtol=1e-6)


@pytest.mark.parametrize("function", [squash, _compiled_squash])
def test_a_vector_near_the_end_of_the_range_squashes_to_a_unit_vector(function):
    x = jnp.array([1.8e38, -2.4e38], jnp.float32)
    np.testing.assert_allclose(function(x), [0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("function", [safe_norm, squash, squash_exponential])
def test_gradients_equal_finite_differences(random, x64, function):
    x = jnp.asarray(np.array([[0.2], [1.0], [4.0]]) * random.normal(size=(3, DIM)))
    check_grads(jax.jit(function), (x,), order=1, modes=["fwd", "rev"])
    check_grads(jax.jit(jax.grad(lambda x: jnp.sum(function(x)))), (x,), order=1, modes=["rev"])


@given(vectors(float(np.finfo(np.float32).max)))
def test_squash_is_never_longer_than_one(s):
    squashed = np.asarray(_compiled_squash(s), np.float64)
    assert np.linalg.norm(squashed) <= 1 + 2 * np.finfo(np.float32).eps


@given(vectors(1e15))
def test_squash_keeps_the_direction(s):
    length = np.linalg.norm(s.astype(np.float64))
    assume(length > 1e-15)
    squashed = np.asarray(_compiled_squash(s), np.float64)
    cosine = squashed @ s.astype(np.float64) / (np.linalg.norm(squashed) * length)
    assert cosine > 1 - 1e-6


@pytest.mark.parametrize("length", [1.0, 32.0, 5e3, 1e8])
def test_long_vectors_stay_within_rounding_of_one(dtype, length):
    x = jnp.asarray(length * np.full(DIM, DIM**-0.5), dtype)
    for function in (squash, squash_exponential):
        norm = np.linalg.norm(np.asarray(function(x), np.float64))
        assert norm <= 1 + 2 * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("axis", [2, 5, -3])
@pytest.mark.parametrize("function", [safe_norm, squash, squash_exponential])
def test_an_axis_that_is_not_there_is_refused(function, axis):
    with pytest.raises(ValueError, match=rf"axis is {axis}, expected -2 to 1 for shape \(3, 4\)"):
        function(jnp.ones((3, 4)), axis=axis)


@pytest.mark.parametrize("function", [safe_norm, squash, squash_exponential])
def test_integers_are_no_vectors(own_answers, function):
    with pytest.raises(ValueError, match=r"x is int32 \(3,\), expected float"):
        function(jnp.ones(3, jnp.int32))
