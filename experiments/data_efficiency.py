"""Few training images: capsules against a CNN of as many parameters.

Claim: capsule networks need a fraction of the images that convolutional networks need, for the same
error or a lower one (reported, without a common number).
Source: Jiménez-Sánchez, Albarqouni and Mateus 2018, "Capsule networks against medical imaging data
challenges", which says so of several data sets, MNIST among them, and of larger networks than ours.
Protocol: Efficient-CapsNet without its decoder (161,824 parameters; the decoder would add 1.4
million that the CNN has not) and the CNN of the same convolutions (172,778), each with its own loss
(margin, cross-entropy). From 10 to 1,000 training images a class, drawn by the seed, the same for
both networks, which see them in the same order for the same number of steps. No image beyond these
is used, nor one made of them: no shifts, no validation images, a fixed schedule, and the parameters
of the last step are tested. Networks are compared by the differences of each seed's two errors
(Student) and by McNemar's test of every seed. ``full`` trains longer, on 10 seeds, and has the
network with its decoder as well.
Expected: errors fall from about a third to about 1.6 % in both; which is lower is the question.
Time: on 2 cores 50 minutes (50 trainings of 2 minutes, one a core); on a GPU 10 minutes (``full``:
4 hours).

    python -m experiments.data_efficiency --preset laptop
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from capsjax import data, figures
from capsjax.__main__ import use_huge_pages
from capsjax.analysis.statistics import mean_interval
from capsjax.data import subsets
from capsjax.models import baselines, count_parameters, efficient_capsnet
from capsjax.serial import to_json
from capsjax.training import loop
from capsjax.training.run import Run
from capsjax.training.settings import Settings
from capsjax.training.step import split
from experiments import study, training
from experiments.comparison import Metrics, Paired, paired_by_seed, told
from experiments.study import Brief, Line, Results, Study

CAPSULES, CNN, DECODER = "capsules", "cnn", "capsules_with_decoder"
# Images a class in README.
_TOLD = (30, 1000)
TITLES = {CAPSULES: "capsules", CNN: "CNN", DECODER: "capsules with decoder"}

# The last steps whose losses a result holds the mean of.
_LAST = 50


@dataclass(frozen=True)
class Config:
    """What is trained.

    Attributes:
        per_class: training images of each class.
        seeds: each draws its own training images.
        steps: of every training, whatever it has to learn from.
        batch_size: of a step.
        shift: largest shift of a training image in pixels.
        test_images: test on the first so many; None is all.
        capsules: choices of the capsule network.
        cnn: those of the CNN.
        decoder: those of a capsule network with a decoder; None leaves it out.
    """

    per_class: tuple[int, ...] = (10, 30, 100, 300, 1000)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    steps: int = 700
    batch_size: int = 32
    shift: int = 0
    test_images: int | None = None
    capsules: efficient_capsnet.Config = efficient_capsnet.Config(decoder="none")
    cnn: baselines.Config = baselines.EFFICIENT
    decoder: efficient_capsnet.Config | None = None


PRESETS = {
    "smoke": Config(
        per_class=(2,),
        seeds=(0,),
        steps=3,
        batch_size=8,
        test_images=200,
        capsules=efficient_capsnet.Config(features=(2, 2, 2, 8), decoder="none"),
        cnn=baselines.Config(
            features=(2, 4),
            kernel_sizes=(5, 3),
            strides=(2, 2),
            pools=(1, 1),
            padding="VALID",
            normalisation="batch",
            hidden=(),
            dropout=0.0,
        ),
    ),
    "laptop": Config(),
    "full": Config(
        seeds=tuple(range(10)), steps=5000, batch_size=64, decoder=efficient_capsnet.Config()
    ),
}


def run(config: Config, study: Study) -> None:
    """Every network on every number of images, from every seed."""
    networks = {
        CAPSULES: ("efficient_capsnet", config.capsules),
        CNN: ("efficient_cnn", config.cnn),
    }
    if config.decoder is not None:
        networks[DECODER] = ("efficient_capsnet", config.decoder)
    dataset = data.find("mnist")
    for per_class in config.per_class:
        for seed in config.seeds:
            for name, (model, choices) in networks.items():
                chosen = training.settings(
                    dataset,
                    model,
                    model_config=choices,
                    epochs=1,
                    batch_size=config.batch_size,
                    shift=config.shift,
                    validation=1,
                    seed=seed,
                )
                kept = {
                    "images_per_class": per_class,
                    "steps": config.steps,
                    "test_images": config.test_images,
                    **to_json(chosen),
                }
                study.run(
                    f"{name}-{per_class}-seed-{seed}",
                    partial(_one, config, name, per_class, chosen),
                    seed=seed,
                    config=kept,
                )


def _one(config: Config, name: str, per_class: int, chosen: Settings, folder: Path) -> Metrics:
    """Train on the budget alone, and test once; a minute's work keeps nothing in its folder."""
    del folder
    dataset = data.find("mnist")
    budget = subsets.few_shot(dataset.load("train"), per_class, chosen.training.seed)
    network = chosen.create()
    result = loop.fit(
        network,
        repeated(budget, config.steps * config.batch_size),
        chosen.training,
        # ``fit`` asks for one; it is of the budget, and nothing is chosen by it.
        validation={key: value[:1] for key, value in budget.items()},
    )
    graph, *_ = split(network)
    last = nnx.merge(graph, result.state.params, result.state.rest, copy=True)
    shown = training.first(dataset.load("test"), config.test_images)
    tested, _ = training.test(Run(last, chosen), shown)
    steps = [entry for entry in result.history if entry["split"] == "train"]
    return {
        "network": name,
        "images_per_class": per_class,
        "parameters": count_parameters(last),
        "steps": result.steps,
        "images_per_second": round(result.images_per_second, 1),
        "last_training_loss": float(np.mean([entry["loss"] for entry in steps[-_LAST:]])),
        "last_training_error": float(np.mean([1 - e["accuracy"] for e in steps[-_LAST:]])),
        **tested,
    }


def repeated(arrays: data.Arrays, count: int) -> data.Arrays:
    """So many examples: all of them in turn, as often as it takes.

    One pass over these, in a random order, is a training of a fixed number of steps, whatever the
    number of images.
    """
    indices = np.arange(count) % len(arrays["label"])
    return {key: value[indices] for key, value in arrays.items()}


def _sizes(results: Results) -> list[int]:
    return sorted({result["metrics"]["images_per_class"] for result in results.values()})


def _of(results: Results, name: str, per_class: int) -> dict[int, Metrics]:
    """A network's metrics on so many images, by seed."""
    return {
        result["seed"]: result["metrics"]
        for result in sorted(results.values(), key=lambda each: each["seed"])
        if (result["metrics"]["network"], result["metrics"]["images_per_class"])
        == (name, per_class)
    }


def _compared(results: Results, name: str, per_class: int) -> Paired | None:
    """A network against the CNN, of the seeds that both were trained from."""
    return paired_by_seed(*(_of(results, each, per_class) for each in (name, CNN)))


def draw(results: Results) -> dict[str, Figure]:
    """Test error by number of images, and the networks' difference."""
    sizes = _sizes(results)
    if not sizes:
        return {}
    names = [name for name in TITLES if any(_of(results, name, size) for size in sizes)]
    means: dict[str, list[float]] = {}
    ends: dict[str, list[tuple[float, float]]] = {}
    for name in names:
        means[TITLES[name]], ends[TITLES[name]] = [], []
        for size in sizes:
            errors = [100 * each["test_error"] for each in _of(results, name, size).values()]
            mean, interval = mean_interval(errors, high=100) if errors else (np.nan, None)
            means[TITLES[name]].append(mean)
            ends[TITLES[name]].append(interval or (np.nan, np.nan))
    xlabel = "training images of each class"
    pictures = {
        "errors": figures.curves(
            sizes, means, spreads=ends, xlabel=xlabel, ylabel="test error (%)", logarithmic=True
        )
    }
    for which in ("major", "minor"):
        getattr(pictures["errors"].axes[0].yaxis, f"set_{which}_formatter")("{x:g}")
    differences: dict[str, list[float]] = {}
    bands: dict[str, list[tuple[float, float]]] = {}
    for name in names:
        found = [_compared(results, name, size) for size in sizes]
        if name == CNN or not any(found):
            continue
        title = f"{TITLES[name]} less CNN"
        differences[title] = [100 * each.difference if each else np.nan for each in found]
        ends_of = [each.interval() if each else None for each in found]
        bands[title] = [
            (100 * each[0], 100 * each[1]) if each else (np.nan, np.nan) for each in ends_of
        ]
    if differences:
        figure = figures.curves(
            sizes, differences, spreads=bands, xlabel=xlabel, ylabel="difference (points)"
        )
        figure.axes[0].set_xscale("log")
        figure.axes[0].axhline(0, color=figures.GREY, linewidth=1)
        pictures["difference"] = figure
    for figure in pictures.values():
        figure.axes[0].set_xticks(sizes, [f"{size:,}" for size in sizes])
        figure.axes[0].xaxis.set_minor_locator(NullLocator())
    return pictures


def lines(results: Results) -> list[Line]:
    """Of the report: one for each number of images, with a network against the CNN."""
    found = []
    comparisons = sum(
        _compared(results, name, size) is not None
        for name in (CAPSULES, DECODER)
        for size in _sizes(results)
    )
    for per_class in _sizes(results):
        for name in (CAPSULES, DECODER):
            own, other = (list(_of(results, each, per_class).values()) for each in (name, CNN))
            if not own:
                continue
            ours = f"{TITLES[name]} {study.shares([each['test_error'] for each in own])}"
            if other:
                ours += f"; CNN {study.shares([each['test_error'] for each in other])}"
            compared = _compared(results, name, per_class)
            found.append(
                Line(
                    f"{per_class:,} images a class, {TITLES[name]} against CNN",
                    "as good or better with fewer images (reported)",
                    ours,
                    ""
                    if compared is None
                    else _reason(name, compared, own, other, comparisons=comparisons),
                    _brief(per_class, own, other) if other and name == CAPSULES else None,
                )
            )
    for name in (CAPSULES, DECODER):
        if fractions := _fractions(results, name):
            listed = ", ".join(f"{images:.0f} for {size:,}" for size, images in fractions.items())
            found.append(
                Line(
                    f"images a class with which {TITLES[name]} have the CNN's mean error",
                    "a fraction (reported)",
                    listed,
                    "between the measured numbers along straight lines of both logarithms; of "
                    "means, so that it says nothing where the lines above do not tell the two "
                    "apart; their losses differ, too (margin, cross-entropy)",
                )
            )
    return found


def _brief(per_class: int, own: list[Metrics], other: list[Metrics]) -> Brief | None:
    if per_class not in _TOLD:
        return None
    return Brief(
        f"{per_class:,} training images a class, against a CNN",
        "as good or better (reported)",
        f"{study.error(own)} against {study.error(other)}",
    )


def _fractions(results: Results, name: str) -> dict[int, float]:
    """By the CNN's images a class, those with which a network has its error, if it has it."""
    own, other = (
        {
            size: float(np.mean([each["test_error"] for each in runs.values()]))
            for size in _sizes(results)
            if (runs := _of(results, form, size))
        }
        for form in (name, CNN)
    )
    sizes, errors = np.log(list(own)), np.log(list(own.values()))
    if len(own) < 2 or (np.diff(errors) >= 0).any():
        return {}
    return {
        size: float(np.exp(np.interp(-np.log(error), -errors, sizes)))
        for size, error in other.items()
        if errors[-1] <= np.log(error) <= errors[0]
    }


def _reason(
    name: str, compared: Paired, own: list[Metrics], other: list[Metrics], *, comparisons: int
) -> str:
    """Whether they differ, and how well each had learned what it was shown."""
    learned = [
        study.share(float(np.mean([each["last_training_error"] for each in runs])))
        for runs in (own, other)
    ]
    return (
        f"{TITLES[name]}: {told(compared, 'the CNN', comparisons=comparisons)}; of their last "
        f"{_LAST} training batches {learned[0]} and {learned[1]} were wrong"
    )


if __name__ == "__main__":
    use_huge_pages()
    study.main("data_efficiency")
