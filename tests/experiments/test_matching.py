"""Matching networks: an epoch of a long training is the end of a short one, and which is chosen."""

from dataclasses import replace

import numpy as np
import pytest
from flax import nnx

from capsjax import data
from capsjax.models import baselines
from capsjax.training import run
from experiments import matching, training
from tests.training.small import assert_same_bits, digits, parameters

CONFIG = baselines.Config(
    features=(4, 4), kernel_sizes=(5, 3), strides=(4, 2), pools=(1, 1), hidden=(), dropout=0.0,
    normalisation="batch",
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset():
    train = digits(48)
    return data.from_arrays(train["image"], train["label"], class_names=tuple("0123456789"))


def settings(dataset, **options):
    chosen = {"epochs": 3, "schedule": "recipe", "batch_size": 8, "validation": 16, **options}
    return training.settings(dataset, "efficient_cnn", model_config=CONFIG, **chosen)


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    return matching.train(settings(dataset), dataset, folder), folder


def test_every_epoch_is_the_end_of_a_training_of_so_many(dataset, trained, tmp_path):
    metrics, folder = trained
    chosen = settings(dataset)
    assert metrics["epochs"] == 3
    for epoch in (1, 3):
        short = replace(chosen, training=replace(chosen.training, epochs=epoch))
        once = run.fit(short, dataset, tmp_path / str(epoch))
        errors = [entry["error"] for entry in once.history if entry["split"] == "validation"]
        assert metrics["validation_errors"][:epoch] == errors
        kept = matching.load(folder, epoch, chosen).model
        state = nnx.state(kept, nnx.Param)
        assert_same_bits(nnx.to_pure_dict(state), nnx.to_pure_dict(once.state.params))
    first, last = (parameters(matching.load(folder, epoch, chosen).model) for epoch in (1, 3))
    with pytest.raises(AssertionError):
        assert_same_bits(first, last)


def test_what_was_trained_is_not_trained_again_and_may_go_on(dataset, trained, monkeypatch):
    metrics, folder = trained
    monkeypatch.setattr(run, "fit", None)
    assert matching.train(settings(dataset), dataset, folder) == metrics
    # It was left before the second epoch's end.
    first = metrics["validation_errors"][0]
    stopped = matching.train(settings(dataset), dataset, folder, until=first)
    assert (stopped["epochs"], stopped["validation_errors"]) == (1, [first])


def test_a_lost_epoch_is_trained_anew_from_its_checkpoint(dataset, trained):
    metrics, folder = trained
    path = matching.weights_of(folder, 3)
    before = path.read_bytes()
    path.unlink()
    again = matching.train(settings(dataset), dataset, folder)
    assert again["validation_errors"] == metrics["validation_errors"]
    loaded = matching.load(folder, 3, settings(dataset)).model
    path.write_bytes(before)
    same = matching.load(folder, 3, settings(dataset)).model
    assert_same_bits(parameters(loaded), parameters(same))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schedule": "cosine"}, "schedule is 'cosine', whose end depends on the number of epochs"),
        ({"loss": {"kind": "spread"}}, "margin_steps is None, half of all steps"),
    ],
)
def test_choices_that_depend_on_the_number_of_epochs_are_refused(dataset, options, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        matching.train(settings(dataset, **options), dataset, tmp_path / "run")


def test_the_match_is_at_the_lowest_error_that_all_reach():
    courses = {"good": [0.05, 0.03, 0.015, 0.01], "poor": [0.08, 0.02, 0.04]}
    wanted = matching.lowest_of_all(courses.values())
    assert wanted == 0.02
    assert {name: matching.nearest(errors, wanted) for name, errors in courses.items()} == {
        "good": 3,
        "poor": 2,
    }
    assert matching.nearest([0.25, 0.75, 0.25], 0.5) == 1  # of equal ones the first
    assert isinstance(matching.nearest(np.array([0.1]), 0.5), int)
