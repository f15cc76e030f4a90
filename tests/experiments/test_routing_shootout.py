"""What is said of the routings' results."""

import numpy as np

from experiments import routing_shootout
from tests.experiments.made_up import result

COST = {
    "seed": 0,
    "metrics": {
        "batch_size": 64,
        "steps": {"em": {"step_seconds": 0.125, "temporaries_bytes": 3 * 2**20}},
    },
}


def results():
    bins = {"counts": [0, 1000], "confidence": [None, 0.9], "accuracy": [None, 0.975]}
    own = {"loss": "margin", "expected_calibration_error": 0.075, "calibration": bins}
    found = {
        f"{name}-seed-{seed}": result(seed, errors + seed, routing=name, **own)
        for name, errors in (("em", 30), ("uniform", 20))
        for seed in range(3)
    }
    return {"cost": COST, **found}


def test_the_lowest_error_comes_first_and_the_control_is_named():
    control, em = routing_shootout.lines(results())
    assert control.what == "uniform (margin)"
    assert control.why.startswith("the control")
    assert "a step" not in control.ours
    assert "3.10 %" in em.ours
    assert em.ours.endswith(
        "calibration error 0.075, mean confidence 0.90; a step 125 ms with 3.0 MiB of temporaries"
    )
    assert em.why.startswith(
        "tuned for 16 children on held-out images, unlike the others; more err"
    )


def test_bins_of_all_seeds_are_drawn_together():
    found = results()
    other = {"counts": [0, 1000], "confidence": [None, 0.9], "accuracy": [None, 0.675]}
    found["em-seed-2"]["metrics"]["calibration"] = other
    figure = routing_shootout.draw(found)["calibration"]
    drawn = {line.get_label(): line for line in figure.axes[0].get_lines()}
    em = drawn["em (calibration error 0.075)"]
    np.testing.assert_allclose(em.get_xdata(), [0.9])
    np.testing.assert_allclose(em.get_ydata(), [(0.975 + 0.975 + 0.675) / 3])


def test_missing_runs_leave_gaps():
    found = results()
    assert set(routing_shootout.draw(found)) == {"errors", "calibration", "error_by_time"}
    assert set(routing_shootout.draw({"cost": COST})) == set()
    assert routing_shootout.lines({"cost": COST}) == []
    del found["cost"], found["uniform-seed-2"]
    assert set(routing_shootout.draw(found)) == {"errors", "calibration"}
    (em,) = [line for line in routing_shootout.lines(found) if line.what.startswith("em")]
    assert "of 2 seeds" in em.why


def test_default_choices_have_a_line_and_are_compared_with_nothing():
    found = results()
    before, drawn = routing_shootout.lines(found), routing_shootout.draw(found)["errors"]
    found["em-default"] = result(0, 490, routing="em", loss="margin")
    *others, last = routing_shootout.lines(found)
    assert others == before
    assert last.what == "em, default choices (margin)"
    assert last.ours.startswith("49.00 % (")
    now = routing_shootout.draw(found)["errors"]
    ticks = [each.axes[0].get_yticklabels() for each in (drawn, now)]
    assert [label.get_text() for label in ticks[0]] == [label.get_text() for label in ticks[1]]
