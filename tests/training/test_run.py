"""Run directories: what training writes there, what is read back, what is refused."""

import gc
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx

import capsjax
from capsjax import data, models, serial
from capsjax.models import capsnet
from capsjax.routing import (
    ALGORITHMS,
    convergence,
    dynamic,
    em,
    inverted_attention,
    random_coupling,
    self_attention,
    self_routing,
    uniform,
    variational_bayes,
)
from capsjax.training import Config, losses, metric_log, run
from tests.training.small import (
    NARROW,
    assert_same_bits,
    compiled_once,
    digits,
    do_damage,
    files_below,
    orbax_leftovers,
    parameters,
)

TRAINING = Config(
    epochs=2,
    batch_size=20,
    learning_rate=2e-3,
    schedule="recipe",
    validation=20,
    checkpoint_every=3,
)
SETTINGS = run.Settings(
    model="capsnet",
    dataset="digits",
    model_config=NARROW,
    training=TRAINING,
    image_shape=(28, 28, 1),
    class_names=tuple("0123456789"),
)


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    """80 digits to train on, 20 to validate, 50 to test."""
    splits = {"train": digits(100), "test": digits(50, "test")}
    return data.Dataset(
        name="digits",
        image_shape=(28, 28, 1),
        class_names=SETTINGS.class_names,
        sizes={"train": 100, "test": 50},
        source="",
        licence="",
        origin="",
        read=splits.__getitem__,
    )


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with compiled_once(tmp_path_factory.getbasetemp() / "compiled"):
        yield


def train(dataset: data.Dataset, workdir: Path, settings: run.Settings = SETTINGS) -> Any:
    return run.train(settings, dataset, workdir, command="capsjax train", progress=False)


@pytest.fixture(scope="module")
def trained(dataset: data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    workdir = tmp_path_factory.mktemp("runs") / "new" / "run"
    return (*train(dataset, workdir), workdir)


def test_the_directory_holds_what_the_design_names(trained: Any) -> None:
    workdir = trained[-1]
    assert sorted(path.name for path in workdir.iterdir()) == [
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "summary.json",
    ]


def test_the_summary_says_everything_and_is_on_disk(trained: Any) -> None:
    result, evaluation, summary, workdir = trained
    assert run.finished(workdir, SETTINGS) == json.loads(json.dumps(summary))
    written = json.loads((workdir / "summary.json").read_text())
    assert len(written.pop("sha256")) == 64
    assert written == json.loads(json.dumps(summary))
    assert written["test_error"] == evaluation.error == evaluation.errors / 50
    low, high = written["test_error_interval_95"]
    assert 0 <= low <= written["test_error"] <= high <= 1
    assert written["test_images"] == 50
    assert written["test_errors"] == evaluation.errors
    assert written["validation_error"] == result.validation_error
    assert (written["steps"], written["epochs"], written["seed"]) == (8, 2, 0)
    assert written["precision"] == "default"
    assert written["command"] == "capsjax train"
    assert 0 < written["seconds"] < math.inf
    assert 0 < written["images_per_second"] < math.inf
    assert {"capsjax", "jax", "jaxlib", "flax", "optax", "numpy"} <= set(written["versions"])
    assert written["versions"]["capsjax"] == capsjax.__version__
    for name in ("python", "platform", "finished", "commit", "dirty", "model", "dataset"):
        assert name in written
    # By hand: 3x3 convolutions 1 -> 8 -> 2 x 8 with biases; 12 * 12 * 2 capsules of 8 to 10 of 16;
    # the decoder 160 -> 16 -> 784.
    encoder = (9 * 8 + 8) + (9 * 8 * 16 + 16) + 288 * 8 * 160
    assert written["parameters"] == encoder + (160 * 16 + 16) + (16 * 784 + 784)


def test_the_test_images_are_evaluated_with_reconstructions(trained: Any) -> None:
    evaluation = trained[1]
    assert evaluation.total == 50
    assert evaluation.confusion.sum() == 50
    assert evaluation.prediction.reconstructions.shape == (50, 28, 28, 1)


def test_the_same_settings_give_the_same_bits(
    trained: Any, dataset: data.Dataset, tmp_path: Path
) -> None:
    again = train(dataset, tmp_path)
    assert_same_bits(again[0].state, trained[0].state)
    assert again[0].history == trained[0].history
    assert metric_log.read(tmp_path / "metrics.jsonl") == trained[0].history
    assert again[1].error == trained[1].error


@pytest.mark.skipif(not hasattr(nnx, "set_graph_mode"), reason="a Flax without two modes")
def test_nnx_s_tree_mode_gives_the_same_bits(
    trained: Any, dataset: data.Dataset, tmp_path: Path
) -> None:
    with nnx.set_graph_mode(False):
        again = train(dataset, tmp_path)
        assert not nnx.set_graph_mode.current_value()
    losses = [entry["loss"] for entry in again[0].history if entry["split"] == "train"]
    assert len(losses) == 8
    assert again[0].history == trained[0].history
    assert_same_bits(again[0].state, trained[0].state)


def test_a_loaded_run_has_the_best_parameters_and_predicts_alike(trained: Any) -> None:
    result, evaluation, _, workdir = trained
    loaded = capsjax.load(workdir)
    assert loaded.settings == SETTINGS
    assert_same_bits(parameters(loaded.model), parameters(result.model))
    images = digits(50, "test")["image"]
    found = loaded.predict(images, reconstruct=True)
    np.testing.assert_array_equal(found.activations, evaluation.prediction.activations)
    np.testing.assert_array_equal(found.reconstructions, evaluation.prediction.reconstructions)
    assert loaded.evaluate(digits(50, "test")).error == evaluation.error
    assert capsjax.load(str(workdir)).settings == SETTINGS


def test_a_loaded_run_refuses_images_of_a_wrong_dtype(trained: Any) -> None:
    with pytest.raises(ValueError, match=r"float64.*expected uint8"):
        capsjax.load(trained[-1]).predict(np.zeros((1, 28, 28, 1)))


def test_training_a_finished_run_again_changes_no_parameter(
    trained: Any, dataset: data.Dataset
) -> None:
    again = train(dataset, trained[-1])
    assert_same_bits(again[0].state, trained[0].state)
    assert again[1].error == trained[1].error


def test_a_directory_left_by_a_kill_before_its_config_can_be_trained_in(
    trained: Any, dataset: data.Dataset, tmp_path: Path
) -> None:
    (tmp_path / "config.partial").write_text('{"mod')
    assert train(dataset, tmp_path)[0].steps == 8


# What is refused before anything is trained

CHANGES = {
    "training.seed": ({"training": replace(TRAINING, seed=3)}, "0", "3"),
    "training.batch_size": ({"training": replace(TRAINING, batch_size=10)}, "20", "10"),
    "training.limit": ({"training": replace(TRAINING, limit=40)}, "None", "40"),
    "training.loss.reduction": (
        {"training": replace(TRAINING, loss=losses.Config(reduction="official"))},
        "'paper'",
        "'official'",
    ),
    "model_config.features": ({"model_config": replace(NARROW, features=9)}, "8", "9"),
    "model_config.decoder_widths": (
        {"model_config": replace(NARROW, decoder_widths=(16, 4))},
        r"\[16\]",
        r"\[16, 4\]",
    ),
    "model_config.routing.num_iterations": (
        {"model_config": replace(NARROW, routing=dynamic.Config(num_iterations=2))},
        "3",
        "2",
    ),
    "model_config.routing.loop.gradient": (
        {
            "model_config": replace(
                NARROW, routing=dynamic.Config(loop=convergence.Loop(gradient="last_iteration"))
            )
        },
        "'unrolled'",
        "'last_iteration'",
    ),
    "dataset": ({"dataset": "other"}, "'digits'", "'other'"),
    "training.epochs": ({"training": replace(TRAINING, epochs=1)}, "2", "1"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_of_another_config_is_refused_with_the_difference_named(
    trained: Any, dataset: data.Dataset, name: str
) -> None:
    changes, there, here = CHANGES[name]
    before = (trained[-1] / "config.json").read_bytes()
    said = rf"another config \({name} is {there} there and {here} here\)"
    with pytest.raises(ValueError, match=said):
        train(dataset, trained[-1], replace(SETTINGS, **changes))
    assert (trained[-1] / "config.json").read_bytes() == before


def test_all_differences_are_named(trained: Any, dataset: data.Dataset) -> None:
    other = replace(
        SETTINGS,
        training=replace(TRAINING, seed=3, shift=1),
        model_config=replace(NARROW, class_dim=4),
    )
    with pytest.raises(ValueError, match="another config") as error:
        train(dataset, trained[-1], other)
    for name in ("training.seed", "training.shift", "model_config.class_dim"):
        assert name in str(error.value)
    assert "training.epochs" not in str(error.value)


def test_another_routing_is_named_with_the_choices_that_only_one_has(
    trained: Any, dataset: data.Dataset
) -> None:
    other = replace(SETTINGS, model_config=replace(NARROW, routing=self_attention.Config()))
    with pytest.raises(ValueError, match="another config") as error:
        train(dataset, trained[-1], other)
    said = str(error.value)
    assert "routing.algorithm is 'dynamic' there and 'self_attention' here" in said
    assert "routing.num_iterations is 3 there and None here" in said
    assert "routing.prior is None there and True here" in said


def test_a_run_is_finished_for_its_own_settings_only(trained: Any, tmp_path: Path) -> None:
    longer = replace(SETTINGS, training=replace(TRAINING, epochs=3))
    assert run.finished(trained[-1], longer) is None
    assert run.finished(tmp_path, SETTINGS) is None
    for other in ("{}", '{"settings": 5}'):
        (tmp_path / "summary.json").write_text(other)
        assert run.finished(tmp_path, SETTINGS) is None


def test_a_summary_that_has_changed_is_refused_and_one_without_a_checksum_is_of_before(
    trained: Any, tmp_path: Path
) -> None:
    good, path = (trained[-1] / "summary.json").read_text(), tmp_path / "summary.json"
    values = json.loads(good)
    errors = values["test_errors"]
    changed = good.replace(f'"test_errors": {errors}', f'"test_errors": {errors + 1}')
    assert changed != good
    for broken in ("", "[]", good[:-9], changed, good.replace('"sha256"', '"sha257"')):
        path.write_text(broken)
        with pytest.raises(ValueError, match=f"^{path} is damaged.*remove it"):
            run.finished(tmp_path, SETTINGS)
    del values["sha256"]
    path.write_text(json.dumps(values))
    assert run.finished(tmp_path, SETTINGS) == values


def test_the_summary_is_written_after_all_is_drawn(dataset: data.Dataset, tmp_path: Path) -> None:
    class DiskFullError(OSError):
        pass

    def draw(result: Any, evaluation: Any) -> None:
        assert evaluation.total == 50
        assert result.steps == 8
        raise DiskFullError

    with pytest.raises(DiskFullError):
        run.train(SETTINGS, dataset, tmp_path, command="", progress=False, draw=draw)
    assert run.finished(tmp_path, SETTINGS) is None


def test_a_directory_of_other_things_is_refused(dataset: data.Dataset, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        train(dataset, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_directory_that_cannot_be_made_is_named(dataset: data.Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises((ValueError, OSError), match=rf"{workdir}.*") as error:
            train(dataset, workdir)
        assert "Not a directory" in str(error.value)


def test_test_labels_beyond_the_classes_are_refused_before_training(
    dataset: data.Dataset, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, class_names=tuple("0123"))
    with pytest.raises(ValueError, match=r"labels out of range.*0 to 9.*4 classes"):
        train(dataset, tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.core
def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    for workdir in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=r"not a run directory.*config\.json"):
            capsjax.load(workdir)


def test_loading_makes_nothing_in_a_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a run directory"):
        capsjax.load(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_checkpoint_yet_is_refused(trained: Any, tmp_path: Path) -> None:
    shutil.copy(trained[-1] / "config.json", tmp_path)
    with pytest.raises(ValueError, match="no checkpoint yet"):
        capsjax.load(tmp_path)


def config_with(**changes: Any) -> str:
    return json.dumps({**serial.to_json(SETTINGS), **changes})


BROKEN = {
    "no JSON": "{",
    "nothing": "",
    "a list": "[]",
    "a number": "5",
    "no model": "{}",
    "an unknown model": config_with(model="capsnot"),
    "an unknown field": config_with(color="red"),
    "a field missing": json.dumps({"model": "capsnet"}),
    "training a number": config_with(training=5),
    "training a list": config_with(training=[]),
    "an unknown training field": config_with(training={"epoch": 3}),
    "a value out of range": config_with(training={"epochs": 0}),
    "a value of a wrong type": config_with(training={"epochs": "3"}),
}


@pytest.mark.core
@pytest.mark.parametrize("what", BROKEN)
def test_a_config_that_does_not_fit_is_a_value_error(tmp_path: Path, what: str) -> None:
    (tmp_path / "config.json").write_text(BROKEN[what])
    with pytest.raises(ValueError, match=r"config\.json|capsnot|epochs"):
        capsjax.load(tmp_path)


def test_a_config_of_random_bytes_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match=r"config\.json"):
        capsjax.load(tmp_path)


@orbax_leftovers
@pytest.mark.parametrize("damage", ["overwritten", "truncated", "deleted"])
def test_damaged_checkpoints_are_a_value_error_to_load_and_to_resume(
    trained: Any, dataset: data.Dataset, tmp_path: Path, damage: str
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(trained[-1], workdir)
    for path in files_below(workdir / "checkpoints"):
        do_damage(path, damage)
    with pytest.raises(ValueError, match="checkpoint"):
        capsjax.load(workdir)
    with pytest.raises(ValueError, match="checkpoint"):
        train(dataset, workdir)
    gc.collect()


def test_a_config_of_another_network_than_the_checkpoints_is_a_value_error(
    trained: Any, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(trained[-1], workdir)
    other = replace(SETTINGS, model_config=replace(NARROW, class_dim=4))
    (workdir / "config.json").write_text(json.dumps(serial.to_json(other)))
    shapes = r"expected \S*weights\S* \(8, 10, 4, 288\), found \S*weights\S* \(8, 10, 16, 288\)"
    with pytest.raises(ValueError, match=f"not a checkpoint of this network.*{shapes}"):
        capsjax.load(workdir)
    gc.collect()


def test_a_data_set_that_divides_itself_chooses_the_validation_images(
    dataset: data.Dataset, tmp_path: Path
) -> None:
    seen = []

    def divide(arrays: data.Arrays) -> tuple[data.Arrays, data.Arrays]:
        parts = [{key: value[part] for key, value in arrays.items()} for part in PARTS]
        seen.append(arrays)
        return parts[0], parts[1]

    result, *_ = train(replace(dataset, divide=divide), tmp_path / "run")
    assert len(seen[0]["label"]) == 100
    steps = 60 // SETTINGS.training.batch_size * SETTINGS.training.epochs
    assert result.steps == steps


PARTS = (slice(60), slice(60, 100))


def test_training_does_not_read_the_test_split(dataset: data.Dataset, tmp_path: Path) -> None:
    read = []

    def watch(split: str) -> data.Arrays:
        read.append(split)
        return dataset.read(split)

    run.fit(SETTINGS, replace(dataset, read=watch), tmp_path / "run")
    assert read == ["train"]


# Configs as JSON


@pytest.mark.core
@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        run.Settings("capsnet", "a/b.npz", capsnet.Config(), Config(), (32, 40, 3), ("x", "y")),
        run.Settings(
            "capsnet",
            "mnist",
            capsnet.Config(
                decoder=False,
                decoder_widths=(),
                padding="SAME",
                semantics="official",
                routing=dynamic.Config(num_iterations=1, semantics="official", leaky=True),
            ),
            Config(
                limit=7,
                precision="highest",
                recipe="mnist_sabour",
                weight_decay=2e-7,
                gradient_clip=1.5,
                loss=losses.Config(kind="spread", margin_steps=9),
            ),
            (28, 28, 1),
            ("0", "ü"),
        ),
    ],
)
def test_settings_survive_json(settings: run.Settings) -> None:
    text = json.dumps(serial.to_json(settings))
    found = serial.from_json(run.Settings, json.loads(text), {"model_config": capsnet.Config})
    assert found == settings
    assert hash(found.training) == hash(settings.training)


LOOP = convergence.Loop(gradient="implicit", tolerance=1e-4, max_iterations=50)
CHOICES = {
    "dynamic": dynamic.Config(
        num_iterations=5,
        bias=True,
        loop=convergence.Loop(gradient="last_iteration", unroll=2, checkpoint=True),
    ),
    "em": em.Config(semantics="official", minimum_variance=0.25, loop=LOOP),
    "variational_bayes": variational_bayes.Config(covariance="full", strength=0.5, loop=LOOP),
    "self_attention": self_attention.Config(prior=False),
    "self_routing": self_routing.Config(),
    "inverted_attention": inverted_attention.Config(num_iterations=1, loop=LOOP),
    "uniform": uniform.Config(),
    "random_coupling": random_coupling.Config(seed=2**32 - 1),
}


@pytest.mark.core
@pytest.mark.parametrize("name", ALGORITHMS)
def test_settings_with_any_routing_survive_json(name: str) -> None:
    for config in (ALGORITHMS[name].Config(), CHOICES[name]):
        settings = replace(SETTINGS, model_config=replace(NARROW, routing=config))
        values = json.loads(json.dumps(serial.to_json(settings)))
        assert values["model_config"]["routing"]["algorithm"] == name
        found = serial.from_json(run.Settings, values, {"model_config": capsnet.Config})
        assert found == settings
        assert type(found.model_config.routing) is type(config)
        assert hash(found.model_config) == hash(settings.model_config)


def test_a_routing_as_json_is_its_name_and_its_choices() -> None:
    values = serial.to_json(replace(NARROW, routing=CHOICES["em"]))
    assert values["routing"] == {
        "algorithm": "em",
        "num_iterations": 3,
        "semantics": "official",
        "final_inverse_temperature": 0.01,
        "minimum_variance": 0.25,
        "cost": "sum",
        "loop": {
            "gradient": "implicit",
            "tolerance": 1e-4,
            "max_iterations": 50,
            "unroll": 8,
            "checkpoint": False,
        },
    }


BAD_ROUTINGS: dict[str, tuple[Any, str]] = {
    "an unknown algorithm": ({"algorithm": "dynamics"}, r"unknown routing 'dynamics'.*dynamic, em"),
    "a module that is none": ({"algorithm": "json"}, "json is no routing"),
    "no algorithm": ({"num_iterations": 3}, r"config\.json.*routing has no algorithm"),
    "an algorithm of no name": ({"algorithm": 5}, "name is 5, expected a string"),
    "another algorithm's field": ({"algorithm": "em", "leaky": True}, "unknown fields: leaky"),
    "a value out of range": ({"algorithm": "em", "num_iterations": 0}, "num_iterations is 0"),
    "a loop out of range": ({"algorithm": "em", "loop": {"unroll": -1}}, "unroll is -1"),
    "a loop that is none": ({"algorithm": "em", "loop": 3}, r"config\.json.*3 is no .*Loop"),
    "a name alone": ("em", "routing is 'em', expected an instance"),
}


@pytest.mark.core
@pytest.mark.parametrize("what", BAD_ROUTINGS)
def test_a_config_with_a_bad_routing_is_a_value_error_that_names_it(
    tmp_path: Path, what: str
) -> None:
    values, message = BAD_ROUTINGS[what]
    config = serial.to_json(SETTINGS)
    config["model_config"]["routing"] = values
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        capsjax.load(tmp_path)


@pytest.mark.core
def test_a_recipe_s_images_are_what_the_network_takes(dataset: data.Dataset) -> None:
    options = {"name": "mnist", "model": "capsnet", "model_config": NARROW}
    training = replace(TRAINING, recipe="translated_mnist_sabour")
    found = run.settings_for(dataset, training=training, **options)
    assert (found.image_shape, found.shape_of_data) == ((40, 40, 1), (28, 28, 1))
    assert found.create().image_shape == (40, 40, 1)
    values = json.loads(json.dumps(serial.to_json(found)))
    assert serial.from_json(run.Settings, values, {"model_config": capsnet.Config}) == found
    plain = run.settings_for(dataset, training=TRAINING, **options)
    assert (plain.image_shape, plain.shape_of_data) == ((28, 28, 1), (28, 28, 1))
    assert plain.classes_per_image == 1
    with pytest.raises(ValueError, match=r"images are 28x28, recipe 'cifar10_sabour'"):
        run.settings_for(dataset, training=replace(TRAINING, recipe="cifar10_sabour"), **options)


def test_made_data_sets_refuse_a_recipe_and_say_how_many_classes_they_show() -> None:
    options = {"name": "x", "model": "capsnet", "model_config": NARROW}
    multi = data.find("multi_mnist")
    assert run.settings_for(multi, training=TRAINING, **options).classes_per_image == 2
    rotated = data.find("rotated_mnist")
    assert run.settings_for(rotated, training=TRAINING, **options).classes_per_image == 1
    training = replace(TRAINING, recipe="mnist_sabour")
    with pytest.raises(ValueError, match=r"made anew in every epoch.*leave recipe at None"):
        run.settings_for(rotated, training=training, **options)


def test_lists_in_lists_survive_json() -> None:
    assert serial.from_json(tuple, json.loads("[[1, 2], [3]]")) == ((1, 2), (3,))


@pytest.mark.core
def test_an_unknown_field_is_a_type_error_that_names_it() -> None:
    with pytest.raises(TypeError, match="color"):
        serial.from_json(Config, {"epochs": 1, "color": "red"})


def test_a_value_out_of_range_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="epochs is 0"):
        serial.from_json(Config, {"epochs": 0})


@pytest.mark.core
def test_settings_create_the_network_of_their_seed() -> None:
    first, again = SETTINGS.create(), SETTINGS.create()
    other = replace(SETTINGS, training=replace(TRAINING, seed=1)).create()
    assert_same_bits(parameters(first), parameters(again))
    assert models.count_parameters(first) == models.count_parameters(other)
    kernels = [np.asarray(network.convolution.kernel[...]) for network in (first, other)]
    assert not np.array_equal(*kernels)


def test_the_commit_is_a_hash_or_none() -> None:
    found = run.commit()
    assert set(found) == {"commit", "dirty"}
    if found["commit"] is None:
        assert found["dirty"] is None
    else:
        assert len(found["commit"]) == 40
        assert isinstance(found["dirty"], bool)


def test_a_directory_in_which_nothing_was_saved_may_be_taken_over(
    dataset: data.Dataset, tmp_path: Path
) -> None:
    impossible = replace(SETTINGS, training=replace(TRAINING, batch_size=10_000))
    with pytest.raises(ValueError, match="fewer than one batch"):
        train(dataset, tmp_path / "run", impossible)
    assert train(dataset, tmp_path / "run")[0].steps == 8
