"""Every form of the depth experiment, and lines and pictures of results by hand."""

from typing import Any

import numpy as np
import pytest

from experiments import depth, study, training


@pytest.mark.parametrize("name", depth.FORMS)
def test_a_form_is_what_its_name_says(name: str) -> None:
    form = depth.FORMS[name]
    model = depth._settings(depth.PRESETS["laptop"], form, seed=3).model_config
    assert len(model.hidden) + 1 == int(name[0])
    everything = name.endswith("all")
    assert model.routing.bias == ("bias" in name or everything)
    assert model.hidden_normalise == ("normalised" in name or everything)
    assert model.hidden_residual == ("residual" in name or everything)
    assert model.hidden_balanced == ("balanced" in name or everything)


def result(form: str, wrong: np.ndarray, seed: int = 0) -> dict[str, Any]:
    layers = int(form[0])
    parts = ["convolution", "primary", *(f"hidden.{n}" for n in range(layers - 1)), "classes"]
    error = float(wrong.mean())
    return {
        "seed": seed,
        "metrics": {
            "form": form,
            "steps": 624,
            "test_error": error,
            "test_error_interval_95": [error, error],
            "test_images": len(wrong),
            "wrong": training.packed(wrong),
            "parts": parts,
            "gradient_norms": {part: {"first": 0.0, "spans": [0.0]} for part in parts},
            "dead_share": [0.5] * (layers + 1),
            "still_share": [0.25] * (layers + 1),
            "coefficient_deviation": [0.25] * (layers - 1) + [1e-8 if layers == 1 else 0.25],
            "image_share": [0.75] * layers,
        },
    }


def some(count: int) -> np.ndarray:
    return np.arange(100) < count


def test_lines_compare_forms_with_the_plain_one_of_their_depth() -> None:
    results = {
        "c": result("4 layers", some(90)),
        "a": result("1 layer", some(5)),
        "b": result("4 layers, bias", some(6)),
    }
    one, four, biased = depth.lines(results)
    assert one.ours.startswith(
        "5.00 % (5.00 to 5.00), one seed; dead capsules by layer 50, 50 %, still "
    )
    assert "still ones 25, 25 %" in one.ours
    assert one.ours.endswith("1e-08 of the even share, - % of their variance")
    assert biased.why.startswith(
        "fewer errors than 4 layers: -84.00 points, one seed (only this wrong 0"
    )
    assert four.why.startswith(
        "more errors than 1 layer: +85.00 points, one seed (only this wrong 85"
    )
    assert four.ours.endswith(
        "0.25, 0.25, 0.25, 0.25 of the even share, 75, 75, 75, 75 % of their variance"
    )


def test_several_seeds_are_one_line() -> None:
    seeds = {str(seed): result("4 layers", some(40 + seed), seed) for seed in range(3)}
    (line,) = depth.lines(seeds)
    assert line.ours.startswith(study.shares([0.4, 0.41, 0.42]))
    assert "reduced network" in line.why  # there is no network of one layer to compare with


def test_pictures_cope_with_missing_runs_and_with_no_gradient() -> None:
    assert depth.draw({}) == {}
    assert depth.lines({}) == []
    pictures = depth.draw({"c": result("4 layers", some(90)), "a": result("1 layer", some(5))})
    assert set(pictures) == {"errors", "gradients", "dead", "still", "coefficients"}
    axis = pictures["gradients"].axes[0]
    (line,) = axis.lines
    np.testing.assert_array_equal(line.get_ydata(), [-12] * 6)
    names = [label.get_text() for label in axis.get_xticklabels()]
    assert names == ["convolution", "primary", *(f"capsules {n}" for n in (1, 2, 3)), "classes"]
