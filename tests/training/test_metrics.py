"""Accuracy, exact match and the confusion matrix against counting."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax.training import metrics
from tests.conftest import bare


@pytest.mark.core
def test_accuracy_counts_examples_whose_largest_activation_is_the_label(random, apply, dtype):
    # Twentieths differ in bfloat16 too, so that no two activations of an example tie.
    activations = random.permuted(np.tile(np.arange(4) / 20, (20, 1)), axis=1)
    labels = random.integers(0, 4, size=20)
    pairs = zip(activations.tolist(), labels.tolist(), strict=True)
    hits = sum(row.index(max(row)) == label for row, label in pairs)
    arrays = jnp.asarray(activations, dtype), jnp.asarray(labels, jnp.int32)
    result = apply(metrics.accuracy, *arrays)
    chex.assert_shape(result, ())
    assert float(result) == pytest.approx(hits / 20, rel=1e-6)


def test_accuracy_of_one_example_is_one_or_zero():
    for label, expected in [(1, 1.0), (0, 0.0)]:
        assert metrics.accuracy(jnp.array([0.2, 0.9]), jnp.array(label)) == expected


def test_accuracy_takes_several_batch_axes():
    activations = jnp.eye(3)[jnp.array([[0, 1], [2, 2]])]
    assert metrics.accuracy(activations, jnp.array([[0, 1], [2, 0]])) == 0.75


@pytest.mark.parametrize("labels", [(4,), (5, 3), ()])
def test_accuracy_of_shapes_that_disagree_raises(labels):
    with pytest.raises(ValueError, match=r"activations have shape \(5, 3\) and labels .*expected"):
        bare(metrics.accuracy)(jnp.ones((5, 3)), jnp.zeros(labels, jnp.int32))


@pytest.mark.core
@pytest.mark.parametrize("k", [1, 2, 3])
def test_exact_match_compares_sets(random, dtype, apply, k):
    # Levels that every dtype tells apart, so that none is tied.
    activations = random.permuted(np.tile(np.arange(4) / 20, (40, 1)), axis=1)
    labels = random.permuted(np.tile(np.arange(4), (40, 1)), axis=1)[:, :k]
    hits = 0
    for row, classes in zip(activations, labels, strict=True):
        hits += {*sorted(range(4), key=lambda c: -row[c])[:k]} == {*classes}
    result = apply(
        metrics.exact_match, jnp.asarray(activations, dtype), jnp.asarray(labels, jnp.int32)
    )
    chex.assert_shape(result, ())
    assert 0 < hits < 40
    assert float(result) == pytest.approx(hits / 40, rel=1e-6)


@pytest.mark.parametrize("labels", [(5,), (4, 2), (5, 2, 2)])
def test_exact_match_of_shapes_that_disagree_raises(labels):
    with pytest.raises(ValueError, match=r"activations have shape \(5, 3\) and labels .*k\]"):
        bare(metrics.exact_match)(jnp.ones((5, 3)), jnp.zeros(labels, jnp.int32))


@pytest.mark.core
def test_confusion_matrix_counts_true_classes_in_rows(random, apply):
    predictions, labels = random.integers(0, 4, size=(2, 50))
    expected = np.zeros((4, 4), int)
    for prediction, label in zip(predictions, labels, strict=True):
        expected[label, prediction] += 1
    arrays = jnp.asarray(predictions, jnp.int32), jnp.asarray(labels, jnp.int32)
    result = apply(lambda p, k: metrics.confusion_matrix(p, k, 4), *arrays)
    chex.assert_type(result, jnp.int32)
    np.testing.assert_array_equal(result, expected)


def test_confusion_matrix_has_rows_for_classes_that_never_occur():
    nothing = jnp.zeros(0, jnp.int32)
    np.testing.assert_array_equal(
        metrics.confusion_matrix(nothing, nothing, 3), np.zeros((3, 3), int)
    )


def test_confusion_matrix_of_shapes_that_disagree_raises():
    message = r"predictions have shape \(3,\) and labels \(4,\), expected the same"
    with pytest.raises(ValueError, match=message):
        bare(metrics.confusion_matrix)(jnp.zeros(3, jnp.int32), jnp.zeros(4, jnp.int32), 5)


def test_accuracy_under_jit_compiles_once():
    accuracy = jax.jit(lambda activations, labels: metrics.accuracy(activations, labels))
    for scale in (1.0, 2.0):
        accuracy(scale * jnp.eye(3), jnp.arange(3))
    assert accuracy._cache_size() == 1
