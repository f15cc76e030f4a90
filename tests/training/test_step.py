"""The training step and the learning-rate schedules, against formulas and by-hand gradients."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from capsjax.training import losses, step
from capsjax.types import Output
from tests.training.small import (
    WEIGHT,
    Level,
    assert_same_bits,
    digits,
    flat_images,
)

RATE = 0.1


@pytest.mark.core
@pytest.mark.parametrize(("total", "warm_up"), [(1, 0), (3, 0), (100, 25), (199, 49), (1000, 50)])
def test_cosine_warms_up_and_falls_to_zero_by_its_formula(total: int, warm_up: int) -> None:
    found = step.schedule("cosine", 2e-3, total)
    first = 2e-3 / (warm_up + 1)
    for at in {0, 1, warm_up // 2, warm_up, (warm_up + total) // 2, total - 1, total, 2 * total}:
        if at < warm_up:
            expected = first + (2e-3 - first) * at / warm_up
        else:
            done = min(1, (at - warm_up) / (total - warm_up))
            expected = 2e-3 * (1 + math.cos(math.pi * done)) / 2
        assert float(found(jnp.asarray(at))) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_the_cosine_s_first_step_is_not_lost() -> None:
    assert float(step.schedule("cosine", 2e-3, 1000)(jnp.asarray(0))) > 0


@pytest.mark.core
@pytest.mark.parametrize("at", [0, 1, 1999, 2000, 20_000, 300_000, 1_000_000])
def test_recipe_decays_by_4_percent_in_2000_steps_and_never_below_1e_6(at: int) -> None:
    found = step.schedule("recipe", 1e-3, 100)(jnp.asarray(at))
    expected = max(1e-6, 1e-3 * 0.96 ** (at / 2000))
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("at", [0, 1, 100_000])
def test_recipe_never_raises_a_learning_rate_below_its_floor(at: int) -> None:
    assert float(step.schedule("recipe", 1e-8, 100)(jnp.asarray(at))) <= 1e-8 * (1 + 1e-5)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'linear'.*'recipe' or 'cosine'"):
        step.schedule("linear", 1e-3, 100)  # type: ignore[arg-type]


def test_split_parts_trainable_parameters_from_other_state() -> None:
    _, params, rest = step.split(Level(0.25))
    assert sorted(map(float, jax.tree.leaves(params))) == [0.0, 0.25]
    assert [leaf.dtype for leaf in jax.tree.leaves(rest)] == [jnp.int32]


def output(reconstruction: Any) -> Output:
    activations = jnp.array([[0.8, 0.3], [0.95, 0.1]])
    return Output(jnp.zeros((2, 2, 4)), activations, reconstruction, ())


@pytest.mark.core
def test_example_losses_are_each_example_s_margin_and_reconstruction_loss() -> None:
    images = jnp.stack([jnp.zeros((3, 3, 1)), jnp.ones((3, 3, 1))])
    margin, reconstruction = step.example_losses(
        output(jnp.full((2, 3, 3, 1), 0.5)), images, jnp.eye(2), losses.Config()
    )
    # Equation 4 by hand: example 0 is of class 0, example 1 of class 1.
    first = 0.1**2 + 0.5 * 0.2**2
    second = 0.8**2 + 0.5 * 0.85**2
    np.testing.assert_allclose(margin, [first, second], rtol=1e-5)
    np.testing.assert_allclose(reconstruction, [WEIGHT * 9 * 0.25] * 2, rtol=1e-5)


def test_the_spread_loss_takes_the_margin_of_the_step() -> None:
    network = Level(0.2)  # activations 0.9, 0.1, 0.1; the label is 1
    config = losses.Config(kind="spread", margin_steps=10)
    advance, state = make(network, loss=config)
    advance = jax.jit(advance)
    for at, margin in ((0, 0.2), (5, 0.55), (10, 0.9), (50, 0.9)):
        now = state._replace(step=jnp.asarray(at, jnp.int32))
        _, metrics = advance(now, *on_device(flat_images([10, 20])))
        expected = (margin + 0.8) ** 2 + margin**2
        assert float(metrics["classification_loss"]) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_is_of_the_logits_where_the_network_has_them() -> None:
    config, images = losses.Config(kind="cross_entropy"), jnp.zeros((2, 3, 3, 1))
    logits = jnp.array([[2.0, 0.0], [0.0, 0.0]])
    for given, x in ((logits, 2.0), (None, 0.5)):
        found, _ = step.example_losses(
            output(None)._replace(logits=given), images, jnp.eye(2), config
        )
        assert float(found[0]) == pytest.approx(math.log(1 + math.exp(-x)), rel=1e-5)


def test_without_a_decoder_the_reconstruction_loss_is_zero() -> None:
    images = jnp.zeros((2, 3, 3, 1))
    _, reconstruction = step.example_losses(output(None), images, jnp.eye(2), losses.Config())
    assert reconstruction.tolist() == [0, 0]


def make(network: Any, optimizer: Any = None, **changes: Any) -> tuple[Any, step.State]:
    """A step, and the state before the first."""
    optimizer = optimizer or optax.sgd(RATE)
    graph, params, rest = step.split(network)
    options = {
        "num_classes": network.num_classes,
        "limit": 0,
        "loss": losses.Config(),
        "key": jax.random.key(0),
    }
    state = step.State(params, rest, optimizer.init(params), jnp.zeros((), jnp.int32))
    return step.make_step(graph, optimizer, **{**options, **changes}), state


def on_device(data: Any, chosen: Any = slice(2)) -> tuple[jax.Array, jax.Array]:
    """The first two examples, or others."""
    return jnp.asarray(data["image"][chosen]), jnp.asarray(data["label"][chosen])


@pytest.mark.core
def test_steps_are_gradient_steps_on_the_mean_loss_of_their_batches() -> None:
    levels = np.array([0, 51, 102, 153, 204])
    advance, state = make(Level(0.2))
    advance = jax.jit(advance)
    expected = 0.2
    for batch in ([3, 0], [4, 2], [3, 0]):
        targets = levels[batch] / 255
        loss = WEIGHT * 16 * np.mean((expected - targets) ** 2)
        gradient = WEIGHT * 16 * 2 * np.mean(expected - targets)
        state, metrics = advance(state, *on_device(flat_images(levels), batch))
        # Predicted is class 0 by 0.9, 0.1, 0.1; the label is 1.
        assert float(metrics["classification_loss"]) == pytest.approx(
            0.8**2 + 0.5 * 0.8**2, rel=1e-5
        )
        assert float(metrics["reconstruction_loss"]) == pytest.approx(loss, rel=1e-5)
        assert float(metrics["loss"]) == pytest.approx(0.96 + loss, rel=1e-5)
        assert float(metrics["accuracy"]) == 0
        expected -= RATE * gradient
        assert float(state.params["level"][...]) == pytest.approx(expected, rel=1e-6)
    assert int(state.step) == 3
    assert int(state.rest["seen"][...]) == 3


def test_accuracy_is_the_share_of_right_predictions() -> None:
    data = {**flat_images([10, 20, 30, 40]), "label": np.array([0, 1, 0, 0], np.int32)}
    advance, state = make(Level(0.2))
    _, metrics = jax.jit(advance)(state, *on_device(data))
    assert float(metrics["accuracy"]) == 0.5


@pytest.mark.core
@pytest.mark.parametrize("limit", [0, 2])
def test_shifts_depend_on_the_step_alone(limit: int) -> None:
    data = digits(4)
    bright = {"image": data["image"] | np.uint8(128), "label": data["label"] % 3}
    advance, state = make(Level(0.2), limit=limit)
    advance = jax.jit(advance)

    def loss(at: int) -> float:
        now = state._replace(step=jnp.asarray(at, jnp.int32))
        return float(advance(now, *on_device(bright))[1]["reconstruction_loss"])

    # All see the same two images; only their shifts differ.
    found = [loss(at) for at in (0, 2, 4, 0, 2, 4)]
    assert found[:3] == found[3:]
    assert len(set(found)) == (3 if limit else 1)


def test_compiled_equals_uncompiled() -> None:
    data = digits(4)
    data["label"] %= 3
    advance, state = make(Level(0.2), limit=2)
    eager, compiled = (
        function(state, *on_device(data)) for function in (advance, jax.jit(advance))
    )
    assert jax.tree.structure(eager) == jax.tree.structure(compiled)
    for ours, theirs in zip(jax.tree.leaves(eager), jax.tree.leaves(compiled), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert float(compiled[0].params["level"][...]) != 0.2


def test_the_step_leaves_its_input_as_it_was() -> None:
    advance, state = make(Level(0.2))
    before = jax.tree.map(np.asarray, state)
    jax.jit(advance)(state, *on_device(flat_images([1, 2, 3, 4])))
    assert_same_bits(state, before)
