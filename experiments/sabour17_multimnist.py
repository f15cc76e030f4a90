"""Two overlapping digits: a capsule network against its CNN control (Sabour 2017, Mazzia 2021).

Claim: CapsNet names both of two overlapping digits but for 5.2 % of the pictures, a CNN of twice
its size but for 8.1 %, and the decoder draws each digit by itself. Efficient-CapsNet has 5.1 %
error with 155 thousand parameters, each digit counted by itself.
Source: Sabour, Frosst and Hinton 2017, "Dynamic routing between capsules", section 6; Mazzia,
Salvetti and Chiaberge 2021, "Efficient-CapsNet: capsule network with self-attention routing".
Protocol: MultiMNIST with digits moved by up to 4 pixels, pictures made anew in every epoch; those
of the last 5,000 training digits choose the epoch; one picture of each of the 10,000 test digits
(the paper: 1,000). Efficient-CapsNet in its MULTI_MNIST form against a CNN of the same four
convolutions and as many parameters (154 thousand, without the decoder). Both are also trained on
single digits, moved as far, and tested on two: the two most active classes are what they say. Two
networks differ only if McNemar's test on the same pictures says so. By their strides and kernels,
those of the published form, the capsules see the upper left 29 x 29 of the 36 x 36 pixels, the CNN
33 x 33: digits that are moved far to the right or down are cut. Differences from the papers: 6
epochs of 55,000 pictures (there 60 million) and 2 of single digits, Adam at 0.002 falling along a
cosine, one seed. Two more capsule networks have 2 and 12 epochs of pairs: what longer training, on
newly made pairs, is worth.
Expected: before the runs, the capsules' exact match above the CNN's (not seen); each reconstruction
nearer to its own digit than to the other and than the whole picture is (seen, but not of capsules
trained on single digits alone).
Time: on 2 cores 100 minutes, on one 34 to 38 for a network on pairs (85 with 12 epochs) and 12 on
single digits; on a GPU 5 (``full``: a day).

    python -m experiments.sabour17_multimnist --preset laptop
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from capsjax import data, figures
from capsjax.__main__ import use_huge_pages
from capsjax.analysis.statistics import mean_interval
from capsjax.data import made, multi_mnist, translated_mnist
from capsjax.models import baselines, capsnet, efficient_capsnet
from capsjax.serial import to_json
from capsjax.training.settings import Settings
from experiments import separation, study, training
from experiments.comparison import compared
from experiments.study import Brief, Line, Results, Study

CAPSULES, CNN = "capsules", "CNN"
PAIRS, SINGLES, FEWER, MORE = "pairs", "single digits", "fewer pairs", "more pairs"
# Of both digits, by the paper; of each by Mazzia.
PUBLISHED = {CAPSULES: 0.052, CNN: 0.081}


@dataclass(frozen=True)
class Config:
    """What is trained.

    Attributes:
        networks: by our names, the network's and its choices.
        epochs: of those trained on pairs.
        single_epochs: of those trained on single digits.
        fewer_epochs: of one more training of the first network on pairs.
        more_epochs: of yet another: the two tell what longer training is worth.
        batch_size: of a step.
        limit: on so many training digits; None is all but the validation ones.
        validation: so many training digits choose the epoch.
        seed: of all.
        test_images: to test on; None is all.
        shown: pictures whose reconstructions are kept.
    """

    networks: tuple[tuple[str, str, Any], ...] = (
        (CAPSULES, "efficient_capsnet", efficient_capsnet.MULTI_MNIST),
        (
            CNN,
            "efficient_cnn",
            replace(baselines.EFFICIENT, features=(32, 64, 64, 128, 18), strides=(1, 1, 2, 2, 1)),
        ),
    )
    epochs: int = 6
    single_epochs: int = 2
    fewer_epochs: int = 2
    more_epochs: int = 12
    batch_size: int = 128
    limit: int | None = None
    validation: int = 5000
    seed: int = 0
    test_images: int | None = None
    shown: int = 6


PRESETS = {
    "smoke": Config(
        networks=(
            (
                CAPSULES,
                "efficient_capsnet",
                replace(
                    efficient_capsnet.MULTI_MNIST,
                    features=(4, 4, 4, 8),
                    strides=(2, 1, 2, 1),
                    primary_kernel=3,
                    decoder_widths=(8,),
                ),
            ),
        ),
        epochs=1,
        single_epochs=1,
        fewer_epochs=1,
        more_epochs=1,
        batch_size=16,
        limit=32,
        validation=16,
        test_images=100,
        shown=2,
    ),
    "laptop": Config(),
    "full": Config(
        networks=(
            (CAPSULES, "capsnet", capsnet.Config()),
            (CNN, "sabour_cnn_pooled", baselines.SABOUR_POOLED),
        ),
        epochs=1000,
        single_epochs=50,
        fewer_epochs=300,
        more_epochs=3000,
    ),
}


def run(config: Config, study: Study) -> None:
    """Every network on pairs, then on single digits, then the first on fewer and on more pairs."""
    jobs = [(PAIRS, config.epochs, *network) for network in config.networks]
    jobs += [(SINGLES, config.single_epochs, *network) for network in config.networks]
    jobs.append((FEWER, config.fewer_epochs, *config.networks[0]))
    jobs.append((MORE, config.more_epochs, *config.networks[0]))
    for seen, epochs, name, model, choices in jobs:
        chosen = training.settings(
            _dataset(seen),
            model,
            model_config=choices,
            epochs=epochs,
            batch_size=config.batch_size,
            limit=config.limit,
            validation=config.validation,
            seed=config.seed,
        )
        study.run(
            f"{seen}_{name}".replace(" ", "_").lower(),
            partial(_one, seen, name, chosen, config),
            seed=config.seed,
            config={"test_images": config.test_images, **to_json(chosen)},
        )


def _dataset(seen: str) -> data.Dataset:
    """Pairs, or single digits that are moved as far on as large a canvas."""
    if seen != SINGLES:
        return data.find("multi_mnist")
    shift, pad = multi_mnist.PAPER.shift, multi_mnist.PAPER.pad
    return made.translated(translated_mnist.Config(shift=shift, pad=pad))


def _one(seen: str, name: str, chosen: Settings, config: Config, folder: Path) -> dict[str, Any]:
    trained = training.train(chosen, _dataset(seen), folder)
    start = time.monotonic()
    told = {
        "network": name,
        "seen": seen,
        **trained.metrics,
        "encoder_parameters": training.encoder_parameters(trained.run.model),
        "pictures": trained.metrics["steps"] * config.batch_size,
    }
    if seen == SINGLES:
        single, _ = training.test(trained.run, _some(_dataset(seen), config))
        told |= {"single_error": single["test_error"]}
    arrays = _some(_dataset(PAIRS), config)
    tested, evaluation = training.test(trained.run, arrays, reconstruct=True)
    told |= {**tested, "digit_error": evaluation.digit_error}
    prediction = evaluation.prediction
    if prediction.reconstructions is not None:
        told["squared_errors"] = separation.squared_errors(prediction, arrays)
        told["shown"] = separation.kept(prediction, arrays, config.shown)
    seconds = trained.metrics["training_seconds"] + time.monotonic() - start
    return {**told, "seconds": seconds}


def _some(dataset: data.Dataset, config: Config) -> data.Arrays:
    return training.first(dataset.load("test"), config.test_images)


def _of(results: Results, seen: str) -> dict[str, dict[str, Any]]:
    """Metrics of what was trained on the one or the other, by network."""
    metrics = [result["metrics"] for result in results.values()]
    by_name = {each["network"]: each for each in metrics if each["seen"] == seen}
    return {name: by_name[name] for name in PUBLISHED if name in by_name}


def draw(results: Results) -> dict[str, Figure]:
    """Errors beside the papers', validation error by epoch, and what the decoder makes of pairs."""
    runs = {
        f"{name}, trained on {seen}": metrics
        for seen in (PAIRS, SINGLES)
        for name, metrics in _of(results, seen).items()
    }
    if not runs:
        return {}
    pictures = {
        "errors": figures.errors(
            [each["test_error"] for each in runs.values()],
            [each["test_error_interval_95"] for each in runs.values()],
            list(runs),
            references={"paper, CapsNet": PUBLISHED[CAPSULES], "paper, CNN": PUBLISHED[CNN]},
            label="pictures of which not both digits were named (%)",
        )
    }
    pairs = _of(results, PAIRS)
    if pairs:
        epochs = max(each["epochs"] for each in pairs.values())
        pictures["learning"] = figures.curves(
            1 + np.arange(epochs),
            {name: 100 * np.array(each["validation_errors"]) for name, each in pairs.items()},
            xlabel="epoch",
            ylabel="validation error, both digits (%)",
        )
    for seen in (PAIRS, SINGLES):
        if shown := _of(results, seen).get(CAPSULES, {}).get("shown"):
            name = f"reconstructions_{seen}".replace(" ", "_")
            pictures[name] = separation.sheet(shown, f"Test pictures, trained on {seen}")
    return pictures


def lines(results: Results) -> list[Line]:
    """Of the report."""
    found = []
    pairs, singles = _of(results, PAIRS), _of(results, SINGLES)
    others = [_of(results, seen) for seen in (FEWER, MORE)]
    for name, metrics in pairs.items():
        where = f"{name} of {metrics['encoder_parameters']:,} parameters"
        made_of = f"{metrics['pictures']:,} pictures in training, there 60 million"
        for other in (by_name[name] for by_name in others if name in by_name):
            made_of += f"; trained with {other['pictures']:,} it is {_exact(other)}"
        found += [
            Line(
                f"{where}, not both digits named",
                study.share(PUBLISHED[name]) + (" (reported)" if name == CNN else ""),
                _exact(metrics),
                _told(_against(name, pairs), made_of),
                _brief(pairs) if name == CAPSULES and CNN in pairs else None,
            ),
            Line(
                f"{where}, each digit by itself",
                "5.1 % (Efficient-CapsNet, reported)" if name == CAPSULES else "not given",
                f"{_each(metrics)}, one seed",
                "half as strict: of two digits one may be right",
            ),
        ]
    for seen, by_name in ((PAIRS, pairs), (SINGLES, singles)):
        errors = by_name.get(CAPSULES, {}).get("squared_errors")
        if errors and errors["reconstruction"] is not None:
            found.append(
                Line(
                    f"each digit reconstructed, trained on {seen}: mean squared error",
                    "shown, not measured",
                    f"{errors['reconstruction']:.4f} (of the {errors['digits']:,} digits of "
                    f"{errors['digits_shown']:,} that were named)",
                    f"in its place the whole picture has {errors['picture']:.4f}, nothing "
                    f"{errors['blank']:.4f}, the other digit {errors['other']:.4f}",
                )
            )
    for name, metrics in singles.items():
        found.append(
            Line(
                f"{name} trained on single digits, tested on two: not both named",
                "not given",
                _exact(metrics),
                _told(
                    _against(name, singles),
                    f"{study.share(metrics['single_error'])} error on single digits",
                    f"{_each(metrics)} of each of two",
                    "guessing has 97.78 %",
                ),
            )
        )
    return found


def _brief(pairs: dict[str, dict[str, Any]]) -> Brief:
    return Brief(
        f"pairs of overlapping digits not both named, {pairs[CAPSULES]['encoder_parameters']:,} "
        "parameters, against a CNN",
        " against ".join(study.share(PUBLISHED[name]) for name in (CAPSULES, CNN)),
        " against ".join(study.error([pairs[name]]) for name in (CAPSULES, CNN)),
    )


def _against(name: str, networks: dict[str, dict[str, Any]]) -> str:
    if name == CNN or CNN not in networks:
        return ""
    # Of pairs and of single digits.
    return compared(networks[name], networks[CNN], CNN, comparisons=2)


def _told(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _exact(metrics: dict[str, Any]) -> str:
    return f"{study.share(metrics['test_error'], metrics['test_error_interval_95'])}, one seed"


def _each(metrics: dict[str, Any]) -> str:
    """Error of each digit by itself; its interval takes the two of a picture together."""
    pictures, some = metrics["test_images"], metrics["test_errors"]
    both = round(2 * pictures * metrics["digit_error"]) - some
    wrong = np.repeat([0, 0.5, 1], [pictures - some, some - both, both])
    return study.share(*mean_interval(wrong.tolist()))


if __name__ == "__main__":
    use_huge_pages()
    study.main("sabour17_multimnist")
