"""All routings in one network: error, time of a step, memory, calibration.

Claim: none; each routing was published in a network of its own, beside others' numbers. Here the
network, the images and their order are the same; the routing differs, and what it brings along.
Source: of each algorithm, the papers that ``capsjax routings`` names.
Protocol: Efficient-CapsNet's convolutions and its 16 primary capsules on MNIST, without decoder,
with each of the eight routings from the same seeds, in its default choices and with margin loss.
Exceptions: self-routing's activations sum to 1 over classes, which suits its paper's negative
log-likelihood and no margins. EM and variational Bayes fit Gaussians of 16 dimensions to 16
children, and learn badly in their default choices (one training of each shows it). So ``TUNED`` has
their variances, EM's inverse temperature, first weights and learning rate, the best on held-out
images of about 15 short trainings each (10,000 images); variational Bayes, whose activations all
start on the same side of a half, also has the spread loss, which asks for differences alone. The
others keep their defaults and were not tuned. One epoch of 50,000 images, tested once. Every
routing is compared with ``uniform``, which couples all alike, by the differences of each seed's two
errors (Student) and by McNemar's test of every seed, at a level shared by the comparisons. Time and
memory are those of the compiled training step, measured in turns (on one core, beside a training on
the other), so that what else the machine does meets all alike. The expected calibration error takes
the largest activation for a confidence, in 15 bins; a margin loss is content with 0.9, so that up
to 0.1 of it may be the loss's doing and not the routing's.
Expected: before the last runs (EM and variational Bayes had been tuned), errors of about 1 %, most
of them not told apart from ``uniform``, those of the Gaussian ones larger; times that differ
little, since the convolutions take most.
Time: on 2 cores 1 hour (26 trainings of 4 to 5 minutes); on a GPU 10 minutes (``full``: 3
hours).

    python -m experiments.routing_shootout --preset laptop
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from capsjax import data, figures, models, routing
from capsjax.__main__ import use_huge_pages
from capsjax.analysis.statistics import Calibration, expected_calibration_error, mean_interval
from capsjax.models import efficient_capsnet
from capsjax.routing import em, variational_bayes
from capsjax.serial import to_json
from capsjax.training.settings import Settings
from experiments import step_cost, study, training
from experiments.comparison import Metrics, against, drawn_by
from experiments.study import Brief, Line, Results, Study

LOSSES: dict[str, dict[str, Any]] = {
    "self_routing": {"kind": "negative_log_likelihood"},
    "variational_bayes": {"kind": "spread"},
}


class Tuned(NamedTuple):
    """What a routing needs to learn from 16 children: its choices, first weights, Adam's rate."""

    routing: Any
    weights_stddev: float | None = None
    learning_rate: float | None = None


TUNED = {
    "em": Tuned(em.Config(final_inverse_temperature=0.72, minimum_variance=2.0), 1.0, 0.005),
    "variational_bayes": Tuned(variational_bayes.Config(scale=0.1), 0.1, 0.005),
}
NOTES = {
    "em": "tuned for 16 children on held-out images, unlike the others; ",
    "variational_bayes": "tuned for 16 children on held-out images, unlike the others, loss too; ",
    "self_routing": "another loss than the others'; ",
}
CONTROL, COST, DEFAULT = "uniform", "cost", "default"
MARKERS = "os^DvPXp"

# A bin with fewer predictions is not drawn.
FEW = 20


@dataclass(frozen=True)
class Config:
    """What is trained and measured.

    Attributes:
        routings: their names.
        seeds: of each.
        defaults: of which of the tuned ones the default choices are trained, too, from one seed.
        epochs: of each training.
        batch_size: of a step.
        limit: on so many training images; None is all but the validation images.
        validation: so many training images choose the epoch.
        test_images: test on the first so many; None is all.
        rounds: in each of which every routing's step is timed.
        model: the network's choices; its own routing keeps the choices that it has there.
    """

    routings: tuple[str, ...] = tuple(routing.ALGORITHMS)
    seeds: tuple[int, ...] = (0, 1, 2)
    defaults: tuple[str, ...] = tuple(TUNED)
    epochs: int = 1
    batch_size: int = 64
    limit: int | None = 50_000
    validation: int = 5000
    test_images: int | None = None
    rounds: int = 20
    model: efficient_capsnet.Config = efficient_capsnet.Config(decoder="none")


PRESETS = {
    "smoke": Config(
        routings=("self_routing", "uniform"),
        seeds=(0,),
        defaults=(),
        batch_size=16,
        limit=32,
        validation=16,
        test_images=100,
        rounds=2,
        model=efficient_capsnet.Config(features=(2, 2, 2, 8), decoder="none"),
    ),
    "laptop": Config(),
    "full": Config(seeds=(0, 1, 2, 3, 4), epochs=50, batch_size=128, limit=None),
}


def run(config: Config, study: Study) -> None:
    """What a step of each costs, then every routing from every seed, then some as they were."""
    first = {name: _settings(config, name, config.seeds[0]) for name in config.routings}
    study.run(
        COST,
        partial(_cost, config, first),
        seed=config.seeds[0],
        config={
            "rounds": config.rounds,
            "routings": {name: to_json(chosen) for name, chosen in first.items()},
        },
    )
    trainings = [
        (f"{name}-seed-{seed}", name, seed, _settings(config, name, seed))
        for seed in config.seeds
        for name in config.routings
    ]
    trainings += [
        (
            f"{name}-{DEFAULT}",
            name,
            config.seeds[0],
            _settings(config, name, config.seeds[0], default=True),
        )
        for name in config.defaults
    ]
    for title, name, seed, chosen in trainings:
        study.run(
            title,
            partial(_one, config, name, chosen),
            seed=seed,
            config={"test_images": config.test_images, **to_json(chosen)},
        )


def _settings(config: Config, name: str, seed: int, *, default: bool = False) -> Settings:
    tuned = Tuned(name) if default else TUNED.get(name, Tuned(name))
    loss = None if default else LOSSES.get(name)
    chosen = models.chosen_routing(config.model, tuned.routing)
    return training.settings(
        data.find("mnist"),
        "efficient_capsnet",
        model_config=replace(
            config.model,
            routing=drawn_by(seed, chosen),
            weights_stddev=tuned.weights_stddev,
        ),
        loss=loss,
        epochs=config.epochs,
        batch_size=config.batch_size,
        limit=config.limit,
        validation=config.validation,
        learning_rate=tuned.learning_rate,
        seed=seed,
    )


def _one(config: Config, name: str, chosen: Settings, folder: Path) -> Metrics:
    dataset = data.find("mnist")
    metrics, _, evaluation = training.train_and_test(
        chosen, dataset, folder, limit=config.test_images
    )
    said = evaluation.prediction
    labels = training.first(dataset.load("test"), config.test_images)["label"]
    # An activation may round to a little more than 1.
    found = expected_calibration_error(
        np.clip(said.activations.max(1), 0, 1), said.labels == labels
    )
    bins = {
        "counts": found.counts.tolist(),
        "confidence": [None if np.isnan(each) else float(each) for each in found.confidence],
        "accuracy": [None if np.isnan(each) else float(each) for each in found.accuracy],
    }
    return {
        "routing": name,
        "loss": chosen.training.loss.kind,
        **metrics,
        "expected_calibration_error": found.error,
        "calibration": bins,
    }


def _cost(config: Config, chosen: dict[str, Settings], folder: Path) -> Metrics:
    del folder
    return {"batch_size": config.batch_size, "steps": step_cost.measure(chosen, config.rounds)}


def _routings(results: Results) -> dict[str, dict[int, Metrics]]:
    """Metrics of what is compared, by routing and seed, the lowest mean error first."""
    found: dict[str, dict[int, Metrics]] = {}
    for run, result in sorted(results.items(), key=lambda item: item[1]["seed"]):
        if run != COST and not run.endswith(DEFAULT):
            found.setdefault(result["metrics"]["routing"], {})[result["seed"]] = result["metrics"]
    return dict(sorted(found.items(), key=lambda item: np.mean(_errors(item[1]))))


def _errors(runs: dict[int, Metrics]) -> list[float]:
    return [each["test_error"] for each in runs.values()]


def _interval(runs: dict[int, Metrics]) -> tuple[float, float]:
    """Over seeds, or Wilson's of the only one."""
    low, high = (
        mean_interval(_errors(runs))[1] or next(iter(runs.values()))["test_error_interval_95"]
    )
    return low, high


def _steps(results: Results) -> dict[str, Metrics]:
    """What a step costs, by routing."""
    return results[COST]["metrics"]["steps"] if COST in results else {}


def draw(results: Results) -> dict[str, Figure]:
    """Errors, errors against the time of a step, and how right each is at what confidence."""
    found, steps = _routings(results), _steps(results)
    pictures = {}
    if found:
        pictures["errors"] = figures.errors(
            [float(np.mean(_errors(runs))) for runs in found.values()],
            [_interval(runs) for runs in found.values()],
            list(found),
        )
        pictures["calibration"] = _calibration(found)
    both = [name for name in found if name in steps]
    if both:
        pictures["error_by_time"] = _error_by_time(
            {name: found[name] for name in both},
            {name: 1e3 * steps[name]["step_seconds"] for name in both},
        )
    return pictures


def _error_by_time(found: dict[str, dict[int, Metrics]], milliseconds: dict[str, float]) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for number, (name, runs) in enumerate(sorted(found.items())):
        mean, (low, high) = 100 * np.mean(_errors(runs)), _interval(runs)
        axis.errorbar(
            milliseconds[name],
            mean,
            yerr=np.clip([[mean - 100 * low], [100 * high - mean]], 0, None),
            fmt=MARKERS[number % len(MARKERS)],
            color=figures.COLORS[number % len(figures.COLORS)],
            capsize=3,
            label=name,
        )
    axis.set(xlabel="milliseconds of a training step", ylabel="test error (%)")
    axis.margins(x=0.15)
    axis.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _calibration(found: dict[str, dict[int, Metrics]]) -> Figure:
    """The share that is right in each bin of confidence, all seeds together."""
    together = {name: _pooled(list(runs.values())) for name, runs in sorted(found.items())}
    return figures.calibration(together, fewest=FEW)


def _pooled(runs: list[Metrics]) -> Calibration:
    """Of all seeds' predictions together."""
    bins = [each["calibration"] for each in runs]
    counts = np.array([each["counts"] for each in bins])

    def mean(name: str) -> np.ndarray:
        values = np.array([each[name] for each in bins], float)
        sums = np.where(counts > 0, counts * values, 0).sum(0)
        return sums / np.where(counts.sum(0) > 0, counts.sum(0), np.nan)

    confidence, accuracy = mean("confidence"), mean("accuracy")
    return Calibration(_calibration_error(runs), counts.sum(0), confidence, accuracy)


def _calibration_error(runs: list[Metrics]) -> float:
    """Mean over seeds; of all seeds together gaps of one could hide those of another."""
    return float(np.mean([each["expected_calibration_error"] for each in runs]))


def lines(results: Results) -> list[Line]:
    """Of the report: one for each routing, the lowest error first."""
    found, steps = _routings(results), _steps(results)
    lines = []
    for name, runs in found.items():
        calibration = _pooled(list(runs.values()))
        sure = float(np.average(np.nan_to_num(calibration.confidence), weights=calibration.counts))
        ours = (
            f"{study.shares(_errors(runs))}; calibration error {calibration.error:.3f}, mean "
            f"confidence {sure:.2f}"
        )
        if name in steps:
            ours += (
                f"; a step {1e3 * steps[name]['step_seconds']:.0f} ms with "
                f"{steps[name]['temporaries_bytes'] / 2**20:.1f} MiB of temporaries"
            )
        loss = next(iter(runs.values()))["loss"].replace("_", " ")
        why = NOTES.get(name, "") + _against_control(runs, found.get(CONTROL), len(found) - 1)
        if loss == "margin":
            why += "; up to 0.1 of the calibration error may be the margin loss's"
        else:
            why += "; a loss that asks for other confidences than the margin loss does"
        brief = None if lines else _brief(found)
        lines.append(Line(f"{name} ({loss})", "none", ours, why, brief))
    for run, result in sorted(results.items()):
        if run.endswith(DEFAULT):
            metrics = result["metrics"]
            error = study.share(metrics["test_error"], metrics["test_error_interval_95"])
            loss = metrics["loss"].replace("_", " ")
            lines.append(
                Line(
                    f"{metrics['routing']}, default choices ({loss})",
                    "none",
                    f"{error}, one seed",
                    "not tuned: why its other line is",
                )
            )
    return lines


def _brief(found: dict[str, dict[int, Metrics]]) -> Brief:
    means = {name: float(np.mean(_errors(runs))) for name, runs in found.items()}
    each = ", ".join(f"{name} {100 * mean:.2f}" for name, mean in means.items())
    one = next(iter(next(iter(found.values())).values()))
    return Brief(
        f"Efficient-CapsNet with {len(found)} routings, {study.for_epochs(one['epochs'])}, means "
        "of seeds (whether they differ stands in the long table)",
        "none",
        f"{each} %",
    )


def _against_control(
    runs: dict[int, Metrics], control: dict[int, Metrics] | None, comparisons: int
) -> str:
    if control is None:
        return ""
    if runs is control:
        return "the control: all couplings are the same"
    return against(runs, control, CONTROL, comparisons=comparisons)


if __name__ == "__main__":
    use_huge_pages()
    study.main("routing_shootout")
