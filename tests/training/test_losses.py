"""Every loss against the equations of its paper, and the spread loss's margin by step."""

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
        ({"kind": "hinge"}, "kind is 'hinge', expected 'margin' or 'spread'"),
        ({"spread_schedule": "cosine"}, "spread_schedule is 'cosine', expected 'linear'"),
        ({"kind": "spread", "margin_steps": 0}, "margin_steps is 0, expected at least 1, or None"),
        ({"margin_steps": 5}, "margin_steps and spread_schedule are of kind='spread'"),
        (
            {"kind": "spread", "margin_steps": 5, "spread_schedule": "official"},
            "margin_steps is of spread_sch",
        ),
        ({"kind": "cross_entropy", "reduction": "official"}, "leave it at 'paper' with kind="),
        ({"reduction": "mean"}, "reduction is 'mean', expected 'paper' or 'official'"),
    ],
)
def test_a_config_out_of_range_raises(options, message):
    with pytest.raises(ValueError, match=message):
        bare_config(losses.Config, **options)


def test_a_config_at_the_ends_of_its_range_is_taken():
    losses.Config(negative_margin=0.0, positive_margin=1.0)
    losses.Config(negative_margin=0.5, positive_margin=0.5)
    losses.Config(absent_weight=0.0, reconstruction_weight=0.0)
    losses.Config(kind="spread", margin_steps=1)
    losses.Config(kind="spread", reduction="official")


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
    with pytest.raises(ValueError, match=r"shape \(3, 1, 1\), image \(1, 3, 1\)"):
        bare(losses.reconstruction_loss)(jnp.ones((3, 1, 1)), jnp.ones((1, 3, 1)))


@pytest.mark.core
@pytest.mark.parametrize("targets", [TARGETS, np.eye(CLASSES)[2]], ids=["two", "one"])
def test_spread_loss_equals_equation_3_over_all_pairs(lengths, precision, targets):
    arrays = [jnp.asarray(x, precision.dtype) for x in (lengths, targets)]
    for margin in (0.2, 0.9):
        expected = reference.spread_loss(lengths, targets, margin)
        found = losses.spread_loss(*arrays, margin)
        np.testing.assert_allclose(found, expected, rtol=precision.tolerance)
        mean = losses.spread_loss(*arrays, margin, losses.Config(reduction="official"))
        np.testing.assert_allclose(mean, expected / CLASSES, rtol=precision.tolerance)


@pytest.mark.core
def test_spread_loss_by_hand():
    # Class 0 leads class 1 by 0.4 and class 2 by 0.7: 0.5 short of 0.9, and 0.2.
    arrays = jnp.array([0.8, 0.4, 0.1]), jnp.array([1.0, 0.0, 0.0])
    assert float(losses.spread_loss(*arrays, 0.9)) == pytest.approx(0.25 + 0.04, rel=1e-5)
    assert float(losses.spread_loss(*arrays, 0.5)) == pytest.approx(0.01, rel=1e-5)
    assert float(losses.spread_loss(*arrays, 0.2)) == 0


@pytest.mark.core
@pytest.mark.parametrize("targets", [TARGETS, np.eye(CLASSES)[2]], ids=["two", "one"])
def test_cross_entropy_is_the_mean_of_the_present_classes(precision, random, targets):
    logits = random.normal(size=CLASSES) * 5
    arrays = (jnp.asarray(x, precision.dtype) for x in (logits, targets))
    expected = reference.cross_entropy(logits, targets)
    np.testing.assert_allclose(losses.cross_entropy(*arrays), expected, rtol=precision.tolerance)


def test_cross_entropy_without_any_class_is_zero():
    assert float(losses.cross_entropy(jnp.array([2.0, 1.0]), jnp.zeros(2))) == 0


def test_cross_entropy_of_large_logits_is_finite(dtype):
    arrays = jnp.array([3e4, -3e4], dtype), jnp.array([0.0, 1.0], dtype)
    value, gradient = jax.value_and_grad(losses.cross_entropy)(*arrays)
    assert float(value) == pytest.approx(6e4, rel=1e-2)
    chex.assert_tree_all_finite(gradient)


@pytest.mark.parametrize("loss", [losses.spread_loss, losses.cross_entropy])
def test_new_losses_are_scalars_of_the_inputs_dtype_in_every_mode(loss, lengths, dtype, apply):
    result = apply(loss, jnp.asarray(lengths, dtype), jnp.asarray(TARGETS, dtype))
    chex.assert_shape(result, ())
    chex.assert_type(result, dtype)


def test_gradients_of_spread_and_cross_entropy_equal_finite_differences(x64):
    # No lead is exactly the margin, where the second derivative jumps.
    lengths = jnp.array([0.05, 0.5, 0.3, 0.95, 0.97, 0.6])
    for loss in (losses.spread_loss, losses.cross_entropy):
        check_grads(jax.jit(lambda x, f=loss: f(x, jnp.asarray(TARGETS))), (lengths,), order=1)


@pytest.mark.core
@pytest.mark.parametrize("steps", [None, 30, 1000])
@pytest.mark.parametrize("at", [0, 1, 25, 50, 99, 100, 5000])
def test_the_linear_margin_grows_from_02_to_09(at, steps):
    found = losses.spread_margin(at, 100, losses.Config(kind="spread", margin_steps=steps))
    assert float(found) == pytest.approx(reference.spread_margin(at, 100, steps), rel=1e-5)
    traced = jax.jit(lambda n: losses.spread_margin(n, 1))(jnp.int32(at))
    assert float(traced) == pytest.approx(0.9 if at else 0.2, rel=1e-6)


def test_the_first_half_of_an_odd_number_of_steps_is_the_smaller_one():
    assert float(losses.spread_margin(2, 5)) == pytest.approx(0.9, rel=1e-6)
    assert float(losses.spread_margin(1, 5)) == pytest.approx(0.55, rel=1e-6)


@pytest.mark.core
@pytest.mark.parametrize("at", [0, 50_000, 130_000, 200_000, 400_000, 10_000_000])
def test_the_official_margin_follows_its_logistic_curve(at):
    config = losses.Config(kind="spread", spread_schedule="official")
    found = float(losses.spread_margin(at, 100, config))
    assert found == pytest.approx(reference.spread_margin(at, 100, official=True), rel=1e-5)
    # By hand: the logistic function of 0 is 1/2, that of 10 is 0.9999546.
    known = {200_000: 0.2 + 0.79 / 2, 10_000_000: 0.2 + 0.79 * 0.9999546}
    assert found == pytest.approx(known.get(at, found), rel=1e-6)


@pytest.mark.core
@pytest.mark.parametrize("targets", [TARGETS, np.eye(CLASSES)[2]], ids=["two", "one"])
def test_negative_log_likelihood_sums_over_the_present_classes(precision, random, targets):
    activations = random.dirichlet(np.ones(CLASSES))
    arrays = (jnp.asarray(x, precision.dtype) for x in (activations, targets))
    np.testing.assert_allclose(
        losses.negative_log_likelihood(*arrays),
        reference.negative_log_likelihood(activations, targets),
        rtol=precision.tolerance,
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


@pytest.mark.core
def test_the_kind_chooses_the_loss(lengths):
    arrays = jnp.asarray(lengths, jnp.float32), jnp.asarray(TARGETS, jnp.float32)
    logits = 3 * arrays[0] - 1

    def found(kind, **options):
        return float(losses.classification_loss(*arrays, losses.Config(kind=kind), **options))

    # The float64 references tell all of them apart.
    assert found("margin") == pytest.approx(reference.margin_loss(lengths, TARGETS), rel=1e-5)
    for margin in (0.3, 0.9):
        expected = reference.spread_loss(lengths, TARGETS, margin)
        assert found("spread", margin=margin) == pytest.approx(expected, rel=1e-5)
    expected = reference.negative_log_likelihood(lengths, TARGETS)
    assert found("negative_log_likelihood", logits=logits) == pytest.approx(expected, rel=1e-5)
    expected = reference.cross_entropy(3 * lengths - 1, TARGETS)
    assert found("cross_entropy", logits=logits) == pytest.approx(expected, rel=1e-5)
    expected = reference.cross_entropy(lengths, TARGETS)
    assert found("cross_entropy") == pytest.approx(expected, rel=1e-5)


def test_every_loss_refuses_shapes_that_disagree():
    every = (
        losses.negative_log_likelihood,
        losses.classification_loss,
        losses.spread_loss,
        losses.cross_entropy,
    )
    for loss in every:
        with pytest.raises(ValueError, match=r"activations have shape \(6,\)"):
            bare(loss)(jnp.ones(6), jnp.ones(3))


def test_what_is_no_array_of_floats_is_refused_and_shapes_are_named_by_the_loss(own_answers):
    whole, three, four = jnp.ones(3, jnp.int32), jnp.ones(3), jnp.ones(4)
    of_classes = (
        losses.margin_loss,
        losses.spread_loss,
        losses.cross_entropy,
        losses.negative_log_likelihood,
        losses.classification_loss,
    )
    for loss in of_classes:
        with pytest.raises(ValueError, match=r"is int32 \(3,\), expected float \[classes\]"):
            loss(whole, three)
        with pytest.raises(ValueError, match=r"activations have shape \(3,\) and targets \(4,\)"):
            loss(three, four)
    images = jnp.ones((2, 2, 1)), jnp.ones((2, 3, 1))
    with pytest.raises(ValueError, match=r"reconstruction is int32 .*, expected float"):
        losses.reconstruction_loss(images[0].astype(int), images[0])
    with pytest.raises(ValueError, match=r"shape \(2, 2, 1\), image \(2, 3, 1\)"):
        losses.reconstruction_loss(*images)
    with pytest.raises(TypeError, match="total_steps is 'all', expected"):
        losses.spread_margin(0, "all")
