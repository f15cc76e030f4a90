"""That no image beyond the budget is used, and what is said of the results."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import data
from capsjax.training import loop
from capsjax.training.step import State, split
from experiments import data_efficiency, study, training
from tests.experiments.made_up import result

SMOKE = data_efficiency.PRESETS["smoke"]


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """What each training was given and what was tested, without training anything."""
    calls = []

    def fit(model, arrays, config, *, validation):
        _, params, rest = split(model)
        state = State(jax.tree.map(lambda x: x + 1000, params), rest, None, jnp.int32(3))
        entry = {"split": "train", "loss": 0.5, "accuracy": 0.75}
        calls.append({"arrays": arrays, "validation": validation, "config": config})
        return loop.Result(model, 0.0, [entry], state, 3, 1.0, 10.0)

    def test(trained, arrays):
        params = jax.tree.leaves(nnx.state(trained.model, nnx.Param))
        calls[-1] |= {"tested": params, "images": len(arrays["label"])}
        return {"test_error": 0.5}, None

    monkeypatch.setattr(loop, "fit", fit)
    monkeypatch.setattr(training, "test", test)
    one = study.Study("data_efficiency", "smoke", tmp_path / "results", tmp_path / "runs")
    data_efficiency.run(SMOKE, one)
    assert list(one.found) == ["capsules-2-seed-0", "cnn-2-seed-0"]
    return calls


def test_no_image_beyond_the_budget_is_used(seen):
    capsules, cnn = seen
    shown = Counter(image.tobytes() for image in capsules["arrays"]["image"])
    assert len(shown) == 10 * 2
    assert max(shown.values()) - min(shown.values()) <= 1
    assert sum(shown.values()) == SMOKE.steps * SMOKE.batch_size
    pairs = zip(capsules["arrays"]["image"], capsules["arrays"]["label"], strict=True)
    distinct = {image.tobytes(): int(label) for image, label in pairs}
    assert Counter(distinct.values()) == dict.fromkeys(range(10), 2)
    whole = {image.tobytes() for image in data.load("mnist", "train")["image"]}
    assert set(shown) <= whole
    assert {image.tobytes() for image in capsules["validation"]["image"]} <= set(shown)
    assert capsules["config"].shift == 0
    for key in ("image", "label"):
        assert (capsules["arrays"][key] == cnn["arrays"][key]).all()
    assert capsules["config"].seed == cnn["config"].seed


def test_the_last_parameters_are_tested_on_other_images(seen):
    for call in seen:
        assert all(float(leaf.min()) > 500 for leaf in call["tested"])
        assert call["images"] == SMOKE.test_images


def test_one_pass_shows_every_image_equally_often():
    arrays = {"image": np.arange(5), "label": np.arange(5)}
    found = data_efficiency.repeated(arrays, 12)
    assert Counter(found["label"].tolist()) == {0: 3, 1: 3, 2: 2, 3: 2, 4: 2}
    assert (found["image"] == found["label"]).all()


def results():
    """Of two sizes, three seeds; the CNN's last seed of the larger size is missing."""
    found = {}
    for size, errors in ((10, {"capsules": 90, "cnn": 100}), (30, {"capsules": 60, "cnn": 50})):
        for name, count in errors.items():
            for seed in range(3):
                own = {"network": name, "images_per_class": size, "last_training_error": 0.01}
                found[f"{name}-{size}-seed-{seed}"] = result(seed, count + seed % 2, **own)
    del found["cnn-30-seed-2"]
    return found


def test_every_size_has_a_line_that_says_which_is_better():
    small, large = data_efficiency.lines(results())
    assert small.what == "10 images a class, capsules against CNN"
    assert "capsules 9.03 %" in small.ours
    assert "seeds 10.00, 10.10, 10.00" in small.ours
    assert "capsules: fewer errors than the CNN: -1.00 points" in small.why
    assert "of 3 seeds" in small.why
    assert "capsules: more errors than the CNN: +1.00 points" in large.why
    assert "of 2 seeds" in large.why


def test_missing_runs_leave_gaps():
    one = {"capsules-10-seed-0": results()["capsules-10-seed-0"]}
    (line,) = data_efficiency.lines(one)
    assert "CNN" not in line.ours
    assert set(data_efficiency.draw(one)) == {"errors"}
    assert set(data_efficiency.draw(results())) == {"errors", "difference"}
    assert data_efficiency.lines({}) == []


def test_how_many_images_have_the_cnns_error_is_read_between_the_measured_numbers():
    found = {}
    # A quarter of the errors with four times the images: a half with twice as many.
    for size, errors in ((10, {"capsules": 400, "cnn": 800}), (40, {"capsules": 100, "cnn": 200})):
        for name, count in errors.items():
            own = {"network": name, "images_per_class": size, "last_training_error": 0.0}
            found[f"{name}-{size}-seed-0"] = result(0, count, **own)
    *_, line = data_efficiency.lines(found)
    assert line.ours == "20 for 40"
