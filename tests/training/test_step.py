"""The training step and the learning-rate schedules, against formulas and by-hand gradients."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from capsjax import models
from capsjax.data import recipes
from capsjax.models import capsnet, efficient_capsnet
from capsjax.training import losses, step
from capsjax.training.config import Config
from capsjax.types import Output
from tests.conftest import bare_config
from tests.training.small import (
    WEIGHT,
    Level,
    Pair,
    assert_same_bits,
    digits,
    flat_images,
    pairs_of,
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


# Two classes in an image


def all_of(data: Any) -> list[jax.Array]:
    return [jnp.asarray(data[key]) for key in ("image", "label", "sources") if key in data]


@pytest.mark.core
def test_two_digits_are_each_compared_with_their_own_source() -> None:
    data = pairs_of([(0, 1), (2, 3)], [[1, 0], [2, 0]])
    advance, state = make(Pair(4, 0.3))
    state, metrics = jax.jit(advance)(state, *all_of(data))
    # By hand: sources of 0.2 and 0.8 in 16 pixels each, both losses added.
    expected = WEIGHT * 16 * (0.1**2 + 0.5**2)
    assert float(metrics["reconstruction_loss"]) == pytest.approx(expected, rel=1e-5)
    first, second = 0.5 * 240 / 255, 0.5 * 120 / 255
    # Equation 4: of the first image both are there, of the second the brighter one.
    both = (0.9 - first) ** 2 + (0.9 - second) ** 2
    one = (0.9 - first) ** 2 + 0.9**2 + 0.5 * (second - 0.1) ** 2
    assert float(metrics["classification_loss"]) == pytest.approx((both + one) / 2, rel=1e-5)
    assert float(metrics["accuracy"]) == 0.5
    # The gradient of the level: it lies between both sources.
    gradient = WEIGHT * 16 * 2 * (0.1 - 0.5)
    assert float(state.params["level"][...]) == pytest.approx(0.3 - RATE * gradient, rel=1e-5)


def test_without_sources_two_digits_are_reconstructed_in_one_image() -> None:
    data = pairs_of([(0, 1), (2, 3)], [[1, 0], [2, 0]])
    del data["sources"]
    advance, state = make(Pair(4, 0.0))
    _, metrics = jax.jit(advance)(state, *all_of(data))
    expected = WEIGHT * np.square(data["image"] / 255.0).sum() / 2
    assert float(metrics["reconstruction_loss"]) == pytest.approx(expected, rel=1e-5)


def test_two_digits_without_a_decoder_are_classified_only() -> None:
    data = pairs_of([(0, 1), (2, 3)], [[1, 0], [2, 0]])
    advance, state = make(Pair(4, decoder=False))
    _, metrics = jax.jit(advance)(state, *all_of(data))
    assert float(metrics["reconstruction_loss"]) == 0
    assert float(metrics["loss"]) == float(metrics["classification_loss"]) > 0


@pytest.mark.core
def test_sources_move_as_their_image_does() -> None:
    base = digits(4)["image"]
    data = {
        "image": base,
        "label": np.tile([[0, 1]], (4, 1)).astype(np.int32),
        "sources": np.stack([base, np.zeros_like(base)], axis=1),
    }
    seen: list[jax.Array] = []

    class Spy(Pair):
        def __call__(self, images: Any, targets: Any = None, **options: Any) -> Output:
            # A perfect reconstruction of the first source, if that is where the image is.
            rebuilt = jnp.stack([images, jnp.zeros_like(images)], axis=1)
            seen.append(targets)
            return Output(None, self.sureness[...] * images[:, 0, :4, 0], rebuilt, ())

    advance, state = make(Spy(4), limit=5)
    _, metrics = jax.jit(advance)(state, *all_of(data))
    assert float(metrics["reconstruction_loss"]) == 0
    assert seen[0].shape == (4, 2, 4)


# Recipes, decay, metrics of layers


@pytest.mark.core
def test_a_recipe_takes_the_place_of_shift_and_scale() -> None:
    images = jax.random.randint(jax.random.key(3), (2, 32, 32, 3), 0, 256).astype(jnp.uint8)
    advance, state = make(Level(0.2), limit=2, recipe="cifar10_sabour")
    _, metrics = jax.jit(advance)(state, images, jnp.array([0, 1]))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), 0), 2)
    train = recipes.RECIPES["cifar10_sabour"].train
    expected = np.stack([train(key, image) for key, image in zip(keys, images, strict=True)])
    assert expected.shape == (2, 24, 24, 3)
    loss = WEIGHT * np.square(0.2 - expected.astype(float)).sum() / 2
    assert float(metrics["reconstruction_loss"]) == pytest.approx(loss, rel=1e-4)


@pytest.mark.core
def test_decay_adds_its_share_of_matrices_and_leaves_vectors() -> None:
    params = {"kernel": jnp.full((2, 3), 4.0), "bias": jnp.full(3, 4.0)}
    gradients = jax.tree.map(jnp.ones_like, params)
    added, _ = step.decay(0.25).update(gradients, step.decay(0.25).init(params), params)
    np.testing.assert_array_equal(added["kernel"], 2.0)
    np.testing.assert_array_equal(added["bias"], 1.0)


def test_metrics_of_layers_are_there_when_asked_for() -> None:
    advance, state = make(Level(0.2), layer_metrics=True)
    _, metrics = jax.jit(advance)(state, *on_device(flat_images([51, 204])))
    # The level's gradient by hand, as above; the other parameter has none.
    gradient = WEIGHT * 16 * 2 * abs(0.2 - 0.5)
    assert float(metrics["gradient_norm/level"]) == pytest.approx(gradient, rel=1e-5)
    assert float(metrics["gradient_norm/unused"]) == 0


@pytest.mark.parametrize("name", ["efficient_capsnet", "capsnet"])
def test_bfloat16_computes_in_two_bytes_and_keeps_four(name: str) -> None:
    config = {
        "capsnet": capsnet.Config(features=8, primary_types=2, decoder_widths=(16,)),
        "efficient_capsnet": efficient_capsnet.Config(features=(4, 8, 8, 16), decoder_widths=(16,)),
    }[name]
    network = models.create(name, config=config, rngs=0)
    images, labels = on_device(digits(16), slice(16))
    whole, state = make(network)
    narrow, _ = make(network, compute_dtype="bfloat16")
    expected, wanted = jax.jit(whole)(state, images, labels)
    found, metrics = jax.jit(narrow)(state, images, labels)
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, expected)
    assert float(metrics["loss"]) == pytest.approx(float(wanted["loss"]), rel=0.03)
    assert float(metrics["loss"]) != float(wanted["loss"])
    text = jax.jit(narrow).lower(state, images, labels).as_text()
    # The network's; routing's own gradients work in four bytes.
    narrow_products = [
        line
        for line in text.splitlines()
        if "stablehlo.dot_general" in line and line.split("->")[0].count("xbf16>") == 2
    ]
    assert len(narrow_products) >= 8


def test_an_unknown_compute_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'float16', expected 'float32' or 'bfloat16'"):
        bare_config(Config, compute_dtype="float16")


def test_votes_at_once_of_no_image_are_refused() -> None:
    with pytest.raises(ValueError, match="votes_at_once is 0, expected at least 1"):
        bare_config(Config, votes_at_once=0)


def test_votes_of_a_few_images_at_a_time_need_less_memory_for_the_same_step() -> None:
    config = capsnet.Config(features=2, primary_types=16, decoder_widths=(8,))
    network = models.create("capsnet", config=config, rngs=0)
    batch = on_device(digits(64), slice(64))
    results, memory = [], []
    for size in (None, 8):
        advance, state = make(network, votes_at_once=size)
        compiled = jax.jit(advance).lower(state, *batch).compile()
        results.append(compiled(state, *batch))
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-6)
    assert memory[1] < memory[0] / 2
