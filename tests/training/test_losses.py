"""Margin and reconstruction losses against equation 4 and section 4.1."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from capsjax.training import losses
from tests.conftest import bare, bare_config
from tests.reference import losses as reference

CLASSES = 6
TARGETS = np.array([0.0, 1, 0, 0, 1, 0])
OTHER = {"positive_margin": 0.8, "negative_margin": 0.2, "absent_weight": 0.7}


@pytest.fixture
def lengths(random):
    return random.uniform(size=CLASSES)


@pytest.mark.core
@pytest.mark.parametrize("margins", [{}, OTHER])
@pytest.mark.parametrize("reduction", ["paper", "official"])
def test_margin_loss_equals_equation_4(lengths, precision, margins, reduction):
    config = losses.Config(**margins, reduction=reduction)
    arrays = (jnp.asarray(x, precision.dtype) for x in (lengths, TARGETS))
    result = losses.margin_loss(*arrays, config)
    expected = reference.margin_loss(lengths, TARGETS, **margins, official=reduction == "official")
    np.testing.assert_allclose(result, expected, rtol=precision.tolerance)


@pytest.mark.core
def test_margin_loss_by_hand():
    # Present and 0.5 long: (0.9 - 0.5)^2; absent and 0.3 long: 0.5 * (0.3 - 0.1)^2.
    arrays = jnp.array([0.5, 0.3]), jnp.array([1.0, 0.0])
    assert float(losses.margin_loss(*arrays)) == pytest.approx(0.16 + 0.02, rel=1e-6)
    half_mean = losses.margin_loss(*arrays, losses.Config(reduction="official"))
    assert float(half_mean) == pytest.approx(0.18 / 4, rel=1e-6)


def test_margin_loss_is_zero_beyond_both_margins(dtype):
    lengths, targets = jnp.array([0.95, 0.05, 0.0], dtype), jnp.array([1, 0, 0], dtype)
    assert float(losses.margin_loss(lengths, targets)) == 0.0


def test_margin_loss_is_a_scalar_of_the_inputs_dtype_in_every_mode(lengths, dtype, apply):
    result = apply(losses.margin_loss, jnp.asarray(lengths, dtype), jnp.asarray(TARGETS, dtype))
    chex.assert_shape(result, ())
    chex.assert_type(result, dtype)


def test_margin_loss_gradients_equal_finite_differences(x64):
    # Away from the margins, where the second derivative jumps.
    lengths = jnp.array([0.05, 0.5, 0.3, 0.95, 0.97, 0.6])
    check_grads(jax.jit(lambda x: losses.margin_loss(x, jnp.asarray(TARGETS))), (lengths,), order=1)


@pytest.mark.core
@pytest.mark.parametrize("reduction", ["paper", "official"])
@pytest.mark.parametrize("weight", [0.0005, 0.392])
def test_reconstruction_loss_is_the_weighted_sum_of_squares(random, precision, weight, reduction):
    pair = random.uniform(size=(2, 5, 4, 2))
    config = losses.Config(reconstruction_weight=weight, reduction=reduction)
    result = losses.reconstruction_loss(*jnp.asarray(pair, precision.dtype), config)
    expected = reference.reconstruction_loss(*pair, weight)
    np.testing.assert_allclose(result, expected, rtol=precision.tolerance)


def test_the_default_reconstruction_weight_is_the_papers():
    result = losses.reconstruction_loss(jnp.ones((2, 2, 1)), jnp.zeros((2, 2, 1)))
    assert float(result) == pytest.approx(4 * 0.0005, rel=1e-6)


def test_reconstruction_loss_is_a_scalar_of_the_inputs_dtype_in_every_mode(random, dtype, apply):
    pair = jnp.asarray(random.uniform(size=(2, 5, 4, 2)), dtype)
    result = apply(losses.reconstruction_loss, *pair)
    chex.assert_shape(result, ())
    chex.assert_type(result, dtype)


def test_reconstruction_loss_gradients_equal_finite_differences(random, x64):
    pair = tuple(jnp.asarray(random.uniform(size=(2, 3, 2, 1))))
    check_grads(jax.jit(losses.reconstruction_loss), pair, order=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive_margin": 0.05}, r"margins are 0\.1 .* and 0\.05 .*negative <= positive"),
        ({"positive_margin": 1.1}, r"1\.1 \(positive\), expected 0 <= negative <= positive <= 1"),
        ({"negative_margin": -0.1}, r"margins are -0\.1 \(negative\)"),
        ({"absent_weight": -1.0}, r"absent_weight is -1\.0 .* expected neither to be negative"),
        ({"reconstruction_weight": -0.5}, r"reconstruction_weight is -0\.5, expected neither"),
        ({"reduction": "mean"}, "reduction is 'mean', expected 'paper' or 'official'"),
    ],
)
def test_a_config_out_of_range_raises(options, message):
    with pytest.raises(ValueError, match=message):
        bare_config(losses.Config, **options)


@pytest.mark.parametrize(("lengths", "targets"), [((3,), (4,)), ((2, 3), (2, 3)), ((), ())])
def test_lengths_and_targets_that_disagree_raise(lengths, targets):
    with pytest.raises(
        ValueError, match=r"activations have shape .* targets .*expected \[classes\]"
    ):
        bare(losses.margin_loss)(jnp.ones(lengths), jnp.ones(targets))


def test_images_that_disagree_raise():
    message = r"reconstruction has shape \(2, 3, 1\), image \(3, 2, 1\): expected the same shape"
    with pytest.raises(ValueError, match=message):
        bare(losses.reconstruction_loss)(jnp.ones((2, 3, 1)), jnp.ones((3, 2, 1)))


@pytest.mark.core
def test_negative_log_likelihood_equals_its_sum(precision, random):
    activations = random.dirichlet(np.ones(CLASSES))
    arrays = (jnp.asarray(x, precision.dtype) for x in (activations, TARGETS))
    shares = (activations + 1e-7) / (1 + CLASSES * 1e-7)
    expected = -sum(np.log(share) for share, t in zip(shares, TARGETS, strict=True) if t)
    np.testing.assert_allclose(
        losses.negative_log_likelihood(*arrays), expected, rtol=precision.tolerance
    )


def test_negative_log_likelihood_is_finite_for_an_activation_of_zero(dtype):
    arrays = jnp.array([0.0, 1.0], dtype), jnp.array([1.0, 0.0], dtype)
    value, gradient = jax.value_and_grad(losses.negative_log_likelihood)(*arrays)
    chex.assert_tree_all_finite((value, gradient))
    assert float(value) > 10
    assert float(gradient[0]) < -1e5


def test_negative_log_likelihood_of_activations_that_all_rise_stays_as_it_is():
    activations, targets = jnp.array([0.3, 0.1, 0.1]), jnp.array([1.0, 0.0, 0.0])
    for scale in (1, 3):
        loss = losses.negative_log_likelihood(scale * activations, targets)
        np.testing.assert_allclose(loss, np.log(5 / 3), rtol=1e-5)


def test_the_kind_chooses_the_loss(lengths):
    arrays = jnp.asarray(lengths, jnp.float32), jnp.asarray(TARGETS, jnp.float32)
    nll = losses.classification_loss(*arrays, losses.Config(kind="negative_log_likelihood"))
    assert float(nll) == float(losses.negative_log_likelihood(*arrays))
    assert float(losses.classification_loss(*arrays)) == float(losses.margin_loss(*arrays))
    with pytest.raises(ValueError, match="kind is 'hinge', expected 'margin'"):
        bare_config(losses.Config, kind="hinge")
    for loss in (losses.negative_log_likelihood, losses.classification_loss):
        with pytest.raises(ValueError, match=r"activations have shape \(6,\)"):
            bare(loss)(arrays[0], jnp.ones(3))
