"""Networks taken where they are equally good, and the weights of every epoch."""

import pytest

from capsjax import data
from capsjax.models import baselines
from experiments import epochs, training


def test_networks_are_matched_where_the_worst_is_at_its_best() -> None:
    errors = {"quick": [0.6, 0.24, 0.2, 0.1], "slow": [0.5, 0.3, 0.25, 0.4]}
    assert epochs.match(errors) == (0.25, {"quick": 2, "slow": 3})


def test_the_first_epochs_may_be_left_out() -> None:
    errors = {"quick": [0.5, 0.25, 0.1], "slow": [0.6, 0.2, 0.25, 0.3]}
    assert epochs.match(errors, first=3) == (0.25, {"quick": 3, "slow": 3})
    assert epochs.match(errors, first=4) == (0.25, {"quick": 3, "slow": 3})  # one has but three


def test_of_epochs_that_are_equally_near_the_first_is_taken() -> None:
    errors = {"up_and_down": [0.75, 0.25, 0.75, 0.25], "level": [0.5, 0.5, 0.5, 0.5]}
    assert epochs.match(errors) == (0.5, {"up_and_down": 1, "level": 1})


@pytest.mark.parametrize("errors", [{}, {"untrained": []}])
def test_there_must_be_epochs_to_choose_from(errors: dict) -> None:
    with pytest.raises(ValueError, match="expected some of every network"):
        epochs.match(errors)


def test_every_epoch_s_network_can_be_had_again(tmp_path) -> None:
    digits = data.find("mnist")
    chosen = training.settings(
        digits,
        "hinton_cnn",
        model_config=baselines.Config(
            features=(2,), kernel_sizes=(5,), strides=(4,), pools=(1,), hidden=(), dropout=0.5
        ),
        epochs=3,
        batch_size=40,
        learning_rate=0.02,
        limit=400,
        validation=200,
    )
    trained = epochs.train(chosen, digits, tmp_path)
    held_out = {name: values[-200:] for name, values in digits.load("train").items()}
    errors = [epochs.after(epoch, chosen, tmp_path).evaluate(held_out).error for epoch in (1, 2, 3)]
    assert errors == trained.metrics["validation_errors"]
    assert len(set(errors)) == 3  # each of its own epoch
    with pytest.raises(ValueError, match=r"4\.safetensors is missing"):
        epochs.after(4, chosen, tmp_path)
