"""One pass with a trace against a pass for every number of iterations, and the report."""

from dataclasses import replace

import numpy as np

from capsjax import data, models
from capsjax.models import capsnet
from capsjax.routing import dynamic
from capsjax.training.evaluation import predict
from experiments import routing_iterations
from experiments.extrapolation import traced
from tests.experiments.made_up import result

MODEL = capsnet.Config(features=2, kernel_size=11, primary_types=1, class_dim=4, decoder=False)


def network(iterations):
    """With votes long enough for the iterations to matter."""
    config = replace(MODEL, routing=dynamic.Config(num_iterations=iterations))
    made = models.create("capsnet", config=config, rngs=0)
    weights = made.classes.votes.weights
    weights[...] = 30 * weights[...]
    return made


def test_one_pass_says_what_every_number_of_iterations_says():
    images = data.load("mnist", "test")["image"][:70]
    original = network(3)
    said, polarised = traced(original, images, 4)
    assert said.shape == (70, 4)
    for count in (1, 4):
        assert (said[:, count - 1] == predict(network(count), images).labels).all()
    assert (said[:, 0] != said[:, 3]).any()
    assert original.classes.routing.config.num_iterations == 3
    # All couplings are a tenth at first, and never grow more alike.
    np.testing.assert_allclose(polarised[0], 0.1, rtol=1e-6)
    assert (np.diff(polarised) > 0).all()


def results(*forms):
    """Three seeds of each form; with 3 iterations fewest are wrong."""
    found = {}
    for form in forms:
        for seed in range(3):
            own = {"form": form, "training_losses": [0.5, 0.1]}
            if "iteration" in form:
                own |= {
                    "errors_by_iterations": [0.04, 0.03, 0.02],
                    "changed_by_iterations": [0.0, 0.01, 0.025],
                    "polarisation_by_iterations": [0.1, 0.2, 0.35],
                }
            errors = (20 if form == "3 iterations" else 30) + seed
            found[f"{form}-seed-{seed}"] = result(seed, errors, **own)
    return found


def test_every_form_is_compared_with_the_recommended_one():
    found = {line.what: line for line in routing_iterations.lines(results("uniform", *ITERATED))}
    worse = found["reduced CapsNet, 1 iteration, test error"]
    assert worse.paper == "0.34 % ± 0.032"
    assert "more errors than 3 iterations: +1.00 points" in worse.why
    control = found["reduced CapsNet, uniform, test error"]
    assert control.why.startswith(
        "the same function as 1 iteration; not told apart from 1 iteration: "
    )
    assert "more errors than 3 iterations" in control.why
    others = found["trained with 3 iterations, tested with others"]
    assert others.ours == "test error with 1: 4.00 %, 2: 3.00 %, 3: 2.00 %"
    assert "2.50 % of the classes change" in others.why
    assert "from 0.10 to 0.35" in others.why
    loss = next(line for what, line in found.items() if what.startswith("training loss"))
    assert loss.ours == "1 iteration 0.1000; 3 iterations 0.1000; uniform 0.1000"


ITERATED = ("1 iteration", "3 iterations")


def test_missing_runs_leave_gaps():
    alone = results("uniform")
    assert len(routing_iterations.lines(alone)) == 2
    assert set(routing_iterations.draw(alone)) == {"loss", "errors"}
    assert set(routing_iterations.draw(results(*ITERATED))) == {
        *("loss", "errors", "errors_by_iterations"),
        *("changed_by_iterations", "polarisation_by_iterations"),
    }
    assert routing_iterations.lines({}) == []
