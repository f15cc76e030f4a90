"""Training: what a step sees, what is validated and kept, what is refused, what stops it."""

import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import data, models
from capsjax.data.dataset import Made
from capsjax.models import efficient_capsnet
from capsjax.training import loop, metric_log
from capsjax.training.checkpoint import Checkpoints
from capsjax.training.evaluation import evaluate
from tests.conftest import bare
from tests.training.small import (
    WEIGHT,
    Level,
    Pair,
    assert_same_bits,
    compiled_once,
    digits,
    flat_images,
    narrow_network,
    pairs_of,
    parameters,
)

TINY = {"batch_size": 2, "validation": 2, "shift": 0, "schedule": "recipe"}


def fit(network: Any, data: Any, workdir: Path | None = None, **changes: Any) -> loop.Result:
    return loop.fit(network, data, loop.Config(**{**TINY, **changes}), workdir=workdir)


def entries(result: loop.Result, split: str) -> list[dict[str, Any]]:
    return [entry for entry in result.history if entry["split"] == split]


def images_seen(result: loop.Result, levels: np.ndarray) -> list[int]:
    """Which image each step of one image saw, read off its reconstruction loss."""
    known = WEIGHT * 16 * (levels / 255) ** 2
    losses = np.array([entry["reconstruction_loss"] for entry in entries(result, "train")])
    distance = np.abs(losses[:, None] - known)
    assert (distance.min(1) < 1e-6).all()
    return distance.argmin(1).tolist()


# What a step sees


@pytest.fixture(scope="module")
def watched() -> tuple[loop.Result, np.ndarray]:
    """Three epochs of one image a step; the learning rate is so small that nothing moves."""
    levels = np.arange(20, 250, 10)
    result = fit(
        Level(), flat_images(levels), epochs=3, batch_size=1, validation=3, learning_rate=1e-12
    )
    return result, levels


@pytest.mark.core
def test_every_epoch_covers_every_training_image_once(watched: Any) -> None:
    seen = images_seen(*watched)
    assert len(seen) == 60
    for epoch in range(3):
        assert sorted(seen[20 * epoch : 20 * (epoch + 1)]) == list(range(20))


def test_the_order_is_new_in_every_epoch(watched: Any) -> None:
    seen = images_seen(*watched)
    orders = {tuple(seen[20 * epoch : 20 * (epoch + 1)]) for epoch in range(3)}
    assert len(orders) == 3
    assert tuple(range(20)) not in orders


@pytest.mark.core
def test_the_last_images_are_never_trained_on(watched: Any) -> None:
    assert not {20, 21, 22} & set(images_seen(*watched))


@pytest.mark.core
def test_the_last_images_are_the_validation_set() -> None:
    # Class 0 is predicted; of the last four labels three are something else.
    data = {**flat_images(range(10)), "label": np.array([0] * 6 + [1, 0, 2, 1])}
    result = fit(Level(), data, epochs=1, validation=4, learning_rate=1e-12)
    assert entries(result, "validation") == [{"step": 3, "split": "validation", "error": 0.75}]
    assert result.validation_error == 0.75


def test_a_limit_takes_the_first_images_only() -> None:
    levels = np.arange(20, 250, 10)
    result = fit(
        Level(),
        flat_images(levels),
        epochs=2,
        batch_size=1,
        validation=3,
        limit=4,
        learning_rate=1e-12,
    )
    assert sorted(images_seen(result, levels)) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_an_incomplete_batch_is_left_out() -> None:
    result = fit(Level(), flat_images(range(9)), epochs=2, batch_size=3)
    assert [entry["step"] for entry in entries(result, "train")] == [1, 2, 3, 4]
    assert result.steps == 4


@pytest.mark.core
def test_streamed_images_give_the_bits_of_those_held_on_the_device(tmp_path: Path) -> None:
    config = loop.Config(**TINY | {"batch_size": 8, "epochs": 2, "shift": 2})
    held, streamed = (
        loop.fit(narrow_network(), digits(26), config, feed=feed) for feed in ("device", "stream")
    )
    assert_same_bits(streamed.state, held.state)
    # One that was stopped after the first epoch goes on from the checkpoint, streaming.
    first = replace(config, epochs=1, schedule="recipe")
    loop.fit(narrow_network(), digits(26), first, workdir=tmp_path, feed="stream")
    second = replace(config, schedule="recipe")
    resumed = loop.fit(narrow_network(), digits(26), second, workdir=tmp_path, feed="stream")
    assert_same_bits(resumed.state, held.state)


def test_made_pictures_are_new_in_every_epoch_and_validated_on_their_own() -> None:
    levels = np.arange(20, 250, 10)

    def example(key: Any, base: Any, index: Any, variant: Any, config: Any) -> dict[str, Any]:
        # A level of the epoch's own; 7 stands for validation, which is made with variant 0.
        held_out = base["label"].shape[0] == 3
        image = jnp.where(held_out, 7, base["image"][index] // 2 + variant.astype(jnp.uint8))
        return {"image": image.astype(jnp.uint8), "label": base["label"][index]}

    made = Made(example, None)
    config = loop.Config(**TINY | {"epochs": 2, "batch_size": 1, "validation": 3})
    result = loop.fit(Level(), flat_images(levels), replace(config, learning_rate=1e-12), made=made)
    shown = [levels[:20] // 2 + epoch for epoch in range(2)]
    for epoch in range(2):
        known = np.sort(WEIGHT * 16 * (shown[epoch] / 255) ** 2)
        losses = entries(result, "train")[20 * epoch : 20 * (epoch + 1)]
        found = np.sort([entry["reconstruction_loss"] for entry in losses])
        np.testing.assert_allclose(found, known, rtol=1e-4)


def test_a_given_validation_set_takes_the_place_of_the_last_images() -> None:
    levels = np.arange(20, 250, 10)
    changes = {"batch_size": 1, "epochs": 1, "validation": 9, "learning_rate": 1e-12}
    config = loop.Config(**TINY | changes)
    own = flat_images(np.array([7, 8]))
    result = loop.fit(Level(), flat_images(levels), config, validation=own)
    assert sorted(images_seen(result, levels)) == list(range(len(levels)))
    assert own["label"].tolist() == [1, 1]
    assert result.validation_error == 1.0  # Level predicts class 0
    zeros = {**own, "label": np.zeros(2, np.int32)}
    assert loop.fit(Level(), flat_images(levels), config, validation=zeros).validation_error == 0


@pytest.mark.core
@pytest.mark.parametrize("feed", ["device", "stream"])
def test_pairs_are_trained_and_validated_as_sets(feed: Any) -> None:
    # The last two are validated: one right, one half right.
    pairs = pairs_of([(0, 1)] * 4 + [(2, 1), (2, 3)], [(1, 0)] * 4 + [(1, 2), (2, 1)])
    config = loop.Config(**TINY | {"epochs": 2, "learning_rate": 1e-12})
    result = loop.fit(Pair(), pairs, config, feed=feed)
    assert [entry["error"] for entry in entries(result, "validation")] == [0.5, 0.5]
    for entry in entries(result, "train"):
        assert entry["accuracy"] == 1
        expected = WEIGHT * 16 * (0.2**2 + 0.8**2)
        assert entry["reconstruction_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_recipe_reaches_training_and_validation() -> None:
    shapes = []

    class Spy(Level):
        def __call__(self, images: Any, targets: Any = None) -> Any:
            shapes.append((targets is None, images.shape[1:]))
            return super().__call__(images, targets)

    images = np.zeros((6, 32, 32, 3), np.uint8)
    images[..., :16, :] = 200
    data = {"image": images, "label": np.ones(6, np.int32)}
    fit(Spy(), data, epochs=1, recipe="cifar10_sabour")
    assert set(shapes) == {(False, (24, 24, 3)), (True, (24, 24, 3))}


@pytest.mark.core
def test_clipping_and_decay_change_the_optimizer_s_gradient() -> None:
    levels = [255] * 6
    plain = fit(Level(0.5), flat_images(levels), epochs=1)
    same = fit(Level(0.5), flat_images(levels), epochs=1, gradient_clip=1e9, weight_decay=1e-3)
    # No part has two axes, and the gradient is far shorter: nothing changes.
    np.testing.assert_array_equal(same.state.params["level"][...], plain.state.params["level"][...])
    # Adam's first step does not know a gradient's length, unless it is as small as its epsilon.
    clipped = fit(Level(0.5), flat_images(levels), epochs=1, gradient_clip=1e-12)
    moved = float(clipped.state.params["level"][...]) - 0.5
    assert 0 < moved < 0.01 * (float(plain.state.params["level"][...]) - 0.5)


def test_a_feed_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="feed is 'disk', expected 'auto', 'device' or 'stream'"):
        bare(loop.fit)(narrow_network(), digits(26), loop.Config(**TINY), feed="disk")
    made = data.find("rotated_mnist").made
    with pytest.raises(ValueError, match="pictures that are made on the device cannot be streamed"):
        loop.fit(narrow_network(), digits(26), loop.Config(**TINY), feed="stream", made=made)


def test_the_seed_decides_the_order() -> None:
    levels = np.arange(20, 250, 10)
    options = {"epochs": 1, "batch_size": 1, "validation": 3, "learning_rate": 1e-12}
    orders = [
        images_seen(fit(Level(), flat_images(levels), seed=seed, **options), levels)
        for seed in (0, 1)
    ]
    assert orders[0] != orders[1]


# What is validated and kept


@pytest.fixture(scope="module")
def climb(tmp_path_factory: pytest.TempPathFactory) -> tuple[loop.Result, Path]:
    """The level climbs from 0 to 1 by about 0.1 a step: right only where it is in the middle.

    Of its five epochs of two steps, the second and the third end between 1/3 and 2/3.
    """
    workdir = tmp_path_factory.mktemp("climb")
    data = flat_images([255] * 6)
    data["label"][4:] = 1
    return fit(Level(), data, workdir, epochs=5, learning_rate=0.1), workdir


@pytest.mark.core
def test_the_best_parameters_by_validation_error_are_returned(climb: Any) -> None:
    result, _ = climb
    errors = [entry["error"] for entry in entries(result, "validation")]
    assert errors[0] == errors[-1] == 1
    assert min(errors) == 0
    assert result.validation_error == 0
    assert 1 / 3 < float(result.model.level[...]) < 2 / 3
    assert float(result.state.params["level"][...]) > 2 / 3
    epoch = int(result.model.seen[...]) // 2
    assert errors[epoch - 1] == 0


@pytest.mark.core
def test_the_checkpoint_called_best_holds_the_returned_parameters(climb: Any) -> None:
    result, workdir = climb
    checkpoints = Checkpoints(workdir / "checkpoints")
    assert checkpoints.latest == 10
    restored = loop.restore(Level(), loop.Config(**TINY), checkpoints, checkpoints.best)
    checkpoints.close()
    assert_same_bits(parameters(restored), parameters(result.model))


def test_every_epoch_is_shown_once_as_it_is_then(
    tmp_path: Path,
) -> None:
    data, shown = flat_images([255] * 6), []

    def look(epoch: int, network: Any) -> None:
        shown.append((epoch, int(network.seen[...]), float(network.level[...])))
        network.level[...] = jnp.zeros(())  # of a copy

    for epochs in (2, 4):
        config = loop.Config(**{**TINY, "epochs": epochs, "learning_rate": 0.1})
        loop.fit(Level(), data, config, workdir=tmp_path, each_epoch=look)
    alone = [fit(Level(), data, epochs=epochs, learning_rate=0.1) for epochs in (1, 2, 3, 4)]
    levels = [float(result.state.params["level"][...]) for result in alone]
    assert shown == list(zip((1, 2, 3, 4), (2, 4, 6, 8), levels, strict=True))


def test_the_history_is_what_is_on_disk(climb: Any) -> None:
    result, workdir = climb
    assert metric_log.read(workdir / "metrics.jsonl") == result.history
    assert [entry["step"] for entry in entries(result, "train")] == list(range(1, 11))
    assert [entry["step"] for entry in entries(result, "validation")] == [2, 4, 6, 8, 10]
    names = {"step", "split", "loss", "classification_loss", "reconstruction_loss", "accuracy"}
    assert set(result.history[0]) == names
    assert result.steps == 10


def test_time_and_speed_are_measured(climb: Any) -> None:
    result, _ = climb
    assert 0 < result.seconds < math.inf
    assert 0 < result.images_per_second < math.inf


def test_without_a_work_directory_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(Level(), flat_images(range(6)), epochs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.core
def test_the_given_network_is_left_as_it_is() -> None:
    network = Level(0.25)
    before = jax.tree.map(np.asarray, parameters(network))
    result = fit(network, flat_images([255] * 6), epochs=2, learning_rate=0.1)
    assert_same_bits(parameters(network), before)
    assert float(result.model.level[...]) != 0.25


def test_training_in_another_thread_works(tmp_path: Path) -> None:
    results: list[loop.Result] = []
    thread = threading.Thread(
        target=lambda: results.append(fit(Level(), flat_images(range(6)), tmp_path, epochs=1))
    )
    thread.start()
    thread.join()
    assert results[0].steps == 2


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_every_precision_reaches_training_and_validation(precision: str) -> None:
    seen = []

    class Spy(Level):
        def __call__(self, images: Any, targets: Any = None) -> Any:
            seen.append((targets is None, jax.config.jax_default_matmul_precision))
            return super().__call__(images, targets)

    fit(Spy(), flat_images(range(6)), epochs=1, precision=precision)
    assert {(at, str(value)) for at, value in seen} == {(True, precision), (False, precision)}


def test_more_epochs_compile_nothing_more() -> None:
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: compiled.append(name)
    )
    counts = []
    try:
        for epochs in (2, 1, 4):
            compiled.clear()
            fit(Level(), flat_images(range(6)), epochs=epochs)
            counts.append(sum("backend_compile" in name for name in compiled))
    finally:
        jax.monitoring.clear_event_listeners()
    assert counts[1] >= 1
    assert counts[2] == counts[1]


# Real digits


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory) -> loop.Result:
    with compiled_once(tmp_path_factory.getbasetemp() / "compiled"):
        return fit(
            narrow_network(),
            digits(64),
            epochs=120,
            batch_size=32,
            validation=32,
            learning_rate=5e-3,
        )


@pytest.mark.core
def test_32_real_digits_are_learnt_without_error(overfitted: loop.Result) -> None:
    network = nnx.merge(
        nnx.graphdef(overfitted.model), overfitted.state.params, overfitted.state.rest
    )
    assert evaluate(network, digits(32)).errors == 0
    losses = [entry["loss"] for entry in entries(overfitted, "train")]
    assert losses[-1] < 0.3 * losses[0]


# What is refused


@pytest.mark.core
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"validation": 0}, "validation is 0"),
        ({"shift": -1}, "shift is -1"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"learning_rate": math.inf}, "learning_rate is inf"),
        ({"recipe": "mnist"}, "unknown recipe 'mnist', expected one of: mnist_sabour"),
        ({"weight_decay": -1.0}, "weight_decay is -1"),
        ({"gradient_clip": 0.0}, "gradient_clip is 0"),
        ({"gradient_clip": math.inf}, "gradient_clip is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, f"seed is {2**32}"),
        ({"limit": 0}, "limit is 0"),
        ({"schedule": "linear"}, "schedule is 'linear'"),
        ({"precision": "low"}, "precision is 'low'"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        loop.Config(**changes)


@pytest.mark.core
def test_fewer_images_than_a_batch_are_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"6 images less 2 .* leave 4.*one batch of 5"):
        fit(Level(), flat_images(range(6)), batch_size=5)
    with pytest.raises(ValueError, match=r"6 images less 9 .* leave 0.*one batch of 2"):
        fit(Level(), flat_images(range(6)), validation=9)


def test_a_limit_below_one_batch_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"limit is 2, fewer than one batch of 3: raise limit"):
        fit(Level(), flat_images(range(6)), limit=2, batch_size=3)


@pytest.mark.parametrize(("schedule", "rate"), [("recipe", 1e-3), ("cosine", 2e-3)])
def test_each_schedule_has_a_learning_rate_of_its_own(schedule: Any, rate: float) -> None:
    assert loop.Config(schedule=schedule).peak_learning_rate == rate
    assert loop.Config(schedule=schedule, learning_rate=0.5).peak_learning_rate == 0.5


def test_a_limit_beyond_the_images_is_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"limit is 5.*6 images less 2.*leave 4"):
        fit(Level(), flat_images(range(6)), limit=5)


@pytest.mark.core
def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels out of range.*3 classes"):
        fit(Level(), flat_images(range(6), label=3))


def test_images_of_another_shape_than_the_network_s_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 1\), expected .*\(28, 28, 1\)"):
        fit(narrow_network(), flat_images(range(6)))


def test_a_work_directory_below_a_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"file/run cannot be written \(Not a directory\)"):
        fit(Level(), flat_images(range(6)), tmp_path / "file" / "run")


@pytest.mark.core
def test_a_recipe_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"4x4, recipe 'mnist_sabour' is made for 28x28"):
        fit(Level(), flat_images(range(6)), recipe="mnist_sabour")
    made = Made(lambda *arguments: {}, None)
    config = loop.Config(**TINY, recipe="mnist_sabour")
    with pytest.raises(ValueError, match=r"made anew in every epoch.*leave recipe at None"):
        loop.fit(Level(), flat_images(range(6)), config, made=made, validation=None)


def test_parts_that_do_not_belong_together_are_refused() -> None:
    pairs = pairs_of([(0, 1)] * 4, [(0, 1)] * 4)
    with pytest.raises(ValueError, match=r"training set has arrays of shapes .*'sources'.*same"):
        loop.fit(Pair(), pairs, loop.Config(**TINY), validation=flat_images(range(6)))


# What stops it


@pytest.mark.core
def test_nan_in_a_parameter_stops_at_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"nan at step 1;.*no checkpoint yet"):
        fit(Level(math.nan), flat_images(range(6)), tmp_path)


def test_nan_that_no_loss_shows_is_never_saved(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"parameter is NaN or infinite at step 2"):
        fit(Level(unused=math.nan), flat_images(range(6)), tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest is None
    checkpoints.close()


@pytest.mark.core
def test_a_diverging_run_names_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    # Adam's first step has the length of the learning rate; its square overflows in step 2.
    with pytest.raises(FloatingPointError, match=r"inf at step 2;.*checkpoint of step 1 is kept"):
        fit(
            Level(),
            flat_images([255] * 6),
            tmp_path,
            epochs=3,
            learning_rate=1e30,
            checkpoint_every=1,
        )
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest == 1
    kept = loop.restore(Level(), loop.Config(**TINY), checkpoints, 1)
    checkpoints.close()
    assert math.isfinite(float(kept.level[...]))
    logged = metric_log.read(tmp_path / "metrics.jsonl")
    assert [entry["step"] for entry in logged] == [1]
    assert all(math.isfinite(entry["loss"]) for entry in logged)


def test_a_network_is_trained_in_training_mode_and_given_back_in_that_of_testing() -> None:
    # With normalisations: their running statistics, or those of the batch.
    config = efficient_capsnet.Config(features=(2, 2, 2, 8), decoder="none")
    network = models.create("efficient_capsnet", config=config, rngs=0)
    few, options = digits(32), loop.Config(epochs=1, batch_size=8, validation=8)
    first = loop.fit(network, few, options).model
    network.eval()
    again = loop.fit(network, few, options).model
    chex.assert_trees_all_equal(nnx.state(first), nnx.state(again))
    images = digits(5, "test")["image"]
    said = evaluate(first, {"image": images, "label": np.zeros(5, int)}).prediction.activations
    np.testing.assert_allclose(first(jnp.asarray(images) / 255).activations, said, atol=1e-5)
