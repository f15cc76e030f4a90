"""How many iterations of dynamic routing: training with 1, 3 and 5, testing with 1 to 20.

Claim: with 3 iterations of routing the training loss falls faster and further than with 1, and
more tend to overfit (Sabour 2017); critics find that routing does no better than equal or random
couplings, that more iterations seldom change a class, and that they polarise the couplings (Paik
2019).
Source: Sabour, Frosst and Hinton 2017, "Dynamic routing between capsules", section 4, table 1 and
appendix A; Paik, Kwak and Kim 2019, "Capsule networks need an improved routing algorithm".
Protocol: CapsNet on MNIST with a quarter of its features and of its primary capsules' types (288
capsules) and without its decoder, trained with 1, 3 and 5 iterations and with the two controls,
``uniform`` and ``random_coupling``, from the same seeds; the last 5,000 training images choose the
epoch. One pass with a trace over the test images then gives every number of iterations from 1 to
20, the trained one among them. Equal couplings are the same function as one iteration; the report
says whether the two trainings came to the same bits. Forms, and a network with its own number of
iterations and with the most, are compared by the differences of each seed's two errors (Student)
and by McNemar's test of every seed, at a level shared by all of them; training losses by the
differences of each seed's two losses.
Expected: the training loss is the lower the more iterations; no form's test error is told apart
from another's; with more iterations than it was trained with a network's couplings polarise and few
classes change. Its error rises in every seed, by less than three seeds tell.
Time: on 2 cores 40 minutes (15 trainings of 3 to 6 minutes, one a core); on a GPU 5 minutes
(``full``, of the published width and more epochs: 8 hours).

    python -m experiments.routing_iterations --preset laptop
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from capsjax import data, figures, routing
from capsjax.__main__ import use_huge_pages
from capsjax.analysis.statistics import mean_interval
from capsjax.models import capsnet
from capsjax.routing import dynamic
from capsjax.serial import to_json
from capsjax.training.settings import Settings
from experiments import study, training
from experiments.comparison import LEVEL, Metrics, against, drawn_by, spread
from experiments.extrapolation import traced
from experiments.study import Brief, Line, Results, Study

# Sabour 2017, table 1, without reconstruction.
PUBLISHED = {"1 iteration": "0.34 % ± 0.032", "3 iterations": "0.35 % ± 0.036"}
OTHERS = {
    "uniform": "often better than routing (Paik 2019)",
    "random coupling": "often better than routing (Paik 2019)",
}
RECOMMENDED, SAME = "3 iterations", "1 iteration"
_PUBLISHED_PARAMETERS = 6_804_224

# Parts of a training whose mean losses a result holds.
_PARTS = 40


@dataclass(frozen=True)
class Config:
    """What is trained and tested.

    Attributes:
        iterations: of training, a network each.
        controls: routings beside them.
        tested: with 1 to so many iterations.
        seeds: of each form.
        epochs: of each training.
        batch_size: of a step.
        limit: on so many training images; None is all but the validation images.
        validation: so many training images choose the epoch.
        test_images: test on the first so many; None is all.
        model: the network's choices.
    """

    iterations: tuple[int, ...] = (1, 3, 5)
    controls: tuple[str, ...] = ("uniform", "random_coupling")
    tested: int = 20
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 1
    batch_size: int = 64
    limit: int | None = None
    validation: int = 5000
    test_images: int | None = None
    model: capsnet.Config = capsnet.Config(features=64, primary_types=8, decoder=False)


PRESETS = {
    "smoke": Config(
        iterations=(3,),
        controls=("uniform",),
        tested=4,
        seeds=(0,),
        epochs=1,
        batch_size=16,
        limit=32,
        validation=16,
        test_images=100,
        model=capsnet.Config(
            features=2, kernel_size=11, primary_types=1, class_dim=4, decoder=False
        ),
    ),
    "laptop": Config(),
    "full": Config(epochs=50, batch_size=128, model=capsnet.Config(decoder=False)),
}


def run(config: Config, study: Study) -> None:
    """Every form from every seed."""
    forms: dict[str, Any] = {
        _title(count): dynamic.Config(num_iterations=count) for count in config.iterations
    }
    for control in config.controls:
        forms[control.replace("_", " ")] = routing.find(control).Config()
    for seed in config.seeds:
        for form, own in forms.items():
            chosen = training.settings(
                data.find("mnist"),
                "capsnet",
                model_config=replace(config.model, routing=drawn_by(seed, own)),
                epochs=config.epochs,
                batch_size=config.batch_size,
                limit=config.limit,
                validation=config.validation,
                seed=seed,
            )
            study.run(
                f"{form.replace(' ', '_')}-seed-{seed}",
                partial(_one, config, form, chosen),
                seed=seed,
                config={
                    "tested": config.tested,
                    "test_images": config.test_images,
                    **to_json(chosen),
                },
            )


def _title(iterations: int) -> str:
    return f"{iterations} iteration{'s' if iterations > 1 else ''}"


def _one(config: Config, form: str, chosen: Settings, folder: Path) -> Metrics:
    dataset = data.find("mnist")
    trained = training.train(chosen, dataset, folder)
    steps = [entry for entry in trained.history if entry["split"] == "train"]
    losses = np.array([entry["loss"] for entry in steps])
    start = time.monotonic()
    shown = training.first(dataset.load("test"), config.test_images)
    own = chosen.model_config.routing
    if isinstance(own, dynamic.Config):
        tested = _by_iteration(trained.run.model, shown, own.num_iterations, config.tested)
    else:
        tested, _ = training.test(trained.run, shown)
    return {
        "form": form,
        **trained.metrics,
        "seconds": trained.metrics["training_seconds"] + time.monotonic() - start,
        "training_losses": [
            float(part.mean()) for part in np.array_split(losses, min(_PARTS, len(losses)))
        ],
        **tested,
    }


def _by_iteration(network: Any, arrays: data.Arrays, own: int, tested: int) -> Metrics:
    """Errors with every number of iterations; the error proper is that of the trained number."""
    labels = arrays["label"]
    said, polarised = traced(network, arrays["image"], max(own, tested))
    return {
        **training.of_wrong(said[:, own - 1] != labels),
        "iterations": own,
        "errors_by_iterations": (said != labels[:, None]).mean(0).tolist(),
        "wrong_by_iterations": [training.packed(each) for each in (said != labels[:, None]).T],
        "changed_by_iterations": (said != said[:, own - 1 : own]).mean(0).tolist(),
        "polarisation_by_iterations": polarised.tolist(),
    }


def _forms(results: Results) -> dict[str, dict[int, Metrics]]:
    """Metrics by form and seed: first by iterations, then the controls."""
    found: dict[str, dict[int, Metrics]] = {}
    for result in sorted(results.values(), key=lambda each: each["seed"]):
        found.setdefault(result["metrics"]["form"], {})[result["seed"]] = result["metrics"]
    return dict(sorted(found.items(), key=lambda item: (item[0] in OTHERS, item[0])))


def _mean(runs: dict[int, Metrics], name: str) -> np.ndarray:
    """Mean over seeds of what a run holds a list of."""
    return np.mean([each[name] for each in runs.values()], axis=0)


def draw(results: Results) -> dict[str, Figure]:
    """Training loss, test error by form, and what more iterations do at test time."""
    forms = _forms(results)
    if not forms:
        return {}
    parts = min(len(each["training_losses"]) for runs in forms.values() for each in runs.values())
    loss = figures.curves(
        (1 + np.arange(parts)) / parts,
        {
            form: np.mean([each["training_losses"][:parts] for each in runs.values()], axis=0)
            for form, runs in forms.items()
        },
        xlabel="share of the training done",
        ylabel="training loss",
    )
    loss.axes[0].set_yscale("log")
    loss.axes[0].yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    for which in ("major", "minor"):
        getattr(loss.axes[0].yaxis, f"set_{which}_formatter")("{x:g}")
    errors = {form: [each["test_error"] for each in runs.values()] for form, runs in forms.items()}
    intervals = [
        mean_interval(values)[1] or next(iter(runs.values()))["test_error_interval_95"]
        for values, runs in zip(errors.values(), forms.values(), strict=True)
    ]
    pictures = {
        "loss": loss,
        "errors": figures.errors(
            [float(np.mean(values)) for values in errors.values()], intervals, list(errors)
        ),
    }
    iterated = {form: runs for form, runs in forms.items() if form not in OTHERS}
    for name, label, scale in (
        ("errors", "test error (%)", 100),
        ("changed", "classes that change (%)", 100),
        ("polarisation", "polarisation of the couplings", 1),
    ):
        if iterated:
            pictures[f"{name}_by_iterations"] = figures.curves_by_iteration(
                {
                    f"trained with {form.split()[0]}": scale * _mean(runs, f"{name}_by_iterations")
                    for form, runs in iterated.items()
                },
                ylabel=label,
            )
    return pictures


def lines(results: Results) -> list[Line]:
    """Of the report: a line for each form, then for the same networks tested with more."""
    forms = _forms(results)
    iterated = {form: runs for form, runs in forms.items() if form not in OTHERS}
    # Every other form with the recommended one, equal couplings also with one iteration; every
    # network with its own number of iterations and with the most.
    comparisons = len(forms) + len(iterated)
    found = [
        Line(
            f"CapsNet, {form}, test error",
            PUBLISHED.get(form, OTHERS.get(form, "none")),
            study.shares([each["test_error"] for each in runs.values()]),
            _against(form, forms, comparisons),
            _brief(form, forms),
        )
        for form, runs in forms.items()
    ]
    if forms:
        found.append(_losses(forms))
    return [*found, *(_tested(form, runs, comparisons) for form, runs in iterated.items())]


def _brief(form: str, forms: dict[str, dict[int, Metrics]]) -> Brief | None:
    """Of the controls, each against the recommended form."""
    if form not in (SAME, "random coupling") or RECOMMENDED not in forms:
        return None
    both = [list(forms[each].values()) for each in (form, RECOMMENDED)]
    published = [
        PUBLISHED[each].partition(" ±")[0] for each in (form, RECOMMENDED) if each in PUBLISHED
    ]
    return Brief(
        f"CapsNet, {form} against {RECOMMENDED}, {study.for_epochs(both[0][0]['epochs'])}",
        OTHERS.get(form) or " against ".join(published),
        " against ".join(study.error(each) for each in both),
    )


def _losses(forms: dict[str, dict[int, Metrics]]) -> Line:
    """Of the last part of the training."""
    last = {
        form: {seed: each["training_losses"][-1] for seed, each in runs.items()}
        for form, runs in forms.items()
    }
    said = [f"{form} {np.mean(list(values.values())):.4f}" for form, values in last.items()]
    level = LEVEL / max(1, len(forms) - 1)
    why = []
    for form, values in last.items():
        both = [seed for seed in values if seed in last.get(RECOMMENDED, {})]
        if form == RECOMMENDED or not both:
            continue
        mean, interval = spread([values[seed] - last[RECOMMENDED][seed] for seed in both], level)
        between = "one seed" if interval is None else "{:+.4f} to {:+.4f}".format(*interval)
        why.append(f"{form} {mean:+.4f} ({between})")
    return Line(
        f"training loss at the end (last of {_PARTS} parts)",
        "lower with 3 iterations than with 1 (CIFAR-10, reported)",
        "; ".join(said),
        f"less that of {RECOMMENDED} ({100 - 100 * level:.3g} %): {'; '.join(why)}" if why else "",
    )


def _tested(form: str, runs: dict[int, Metrics], comparisons: int) -> Line:
    """A form's networks with other numbers of iterations than their own."""
    errors, changed, polarised = (
        _mean(runs, f"{name}_by_iterations") for name in ("errors", "changed", "polarisation")
    )
    most = len(errors)
    shown = [count for count in (1, 2, 3, 5, 10, 20) if count <= most]
    tested = ", ".join(f"{count}: {study.share(errors[count - 1])}" for count in shown)
    longest = {
        seed: {**each, "test_error": each["errors_by_iterations"][-1],
               "wrong": each["wrong_by_iterations"][-1]}
        for seed, each in runs.items()
    }  # fmt: skip
    compared = against(longest, runs, "its own number", comparisons=comparisons)
    return Line(
        f"trained with {form}, tested with others",
        "classes seldom change, couplings polarise (Paik 2019)",
        f"test error with {tested}",
        f"with {most} in place of its own number {study.share(changed[-1])} of the classes change; "
        f"{compared}; the largest coupling of a capsule is {polarised[0]:.2f} with 1 and "
        f"{polarised[-1]:.2f} with {most}",
    )


def _against(form: str, forms: dict[str, dict[int, Metrics]], comparisons: int) -> str:
    """Whether a form differs from the recommended one."""
    runs = forms[form]
    note = ""
    if form == "uniform":
        other = forms.get(SAME, {})
        same = [
            runs[s]["training_losses"] == other[s]["training_losses"] for s in runs if s in other
        ]
        note = f"the same function as {SAME}; "
        if same and all(same):
            note += "trained, it comes to the same bits; "
        elif same:
            note += f"{against(runs, other, SAME, comparisons=comparisons)}; "
    if form == RECOMMENDED or RECOMMENDED not in forms:
        one = next(iter(runs.values()))
        return (
            f"{note}{one['parameters']:,} parameters (published, without decoder: "
            f"{_PUBLISHED_PARAMETERS:,}), {study.for_epochs(one['epochs'])}"
        )
    return note + against(runs, forms[RECOMMENDED], RECOMMENDED, comparisons=comparisons)


if __name__ == "__main__":
    use_huge_pages()
    study.main("routing_iterations")
