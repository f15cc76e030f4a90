"""Viewpoints never seen in training: capsules against CNNs as good on familiar ones (Hinton 2018).

Claim: matched on familiar viewpoints, matrix capsules make about 30 % fewer errors on novel
azimuths and elevations than a CNN (13.5 % for 20.0 % and 12.3 % for 17.8 %; reported); on
smallNORB's own split they make 45 % fewer than the state of the art before them (small network:
2.2 %; the CNN: 5.2 %).
Source: Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing", sections 4 and 5.1.
Protocol: trained on a third of the azimuths (300 to 40 degrees) or elevations (30 to 40) of one
half's toys, tested on all viewpoints of the other half's; random 32x32 crops of 48x48, central in
testing. One training toy of each category is held out: each network is taken from its best epoch
there, and each of two that are compared from the epoch, the third or later, whose error there is
nearest to the lowest that both reach.
There is no smallNORB here: toy_norb, in the same layout, is synthetic. Two networks differ only if
McNemar's test on the same images says so, at a level that all comparisons share; that images of one
toy are no independent ones is seen from the ratio's interval, for which the 25 toys are drawn anew.
Beside the paper's CNN are Efficient-CapsNet and a CNN of its convolutions. Forms of EM are first
trained alike for an epoch, and their held-out errors and the time of a step compared: one
iteration, and three with the gradient of the last one alone, which is fast, and with the unrolled
one.
Differences from the paper: matched on held-out toys (there on test images); the small network,
batch-normalised, its costs means over children, with temperatures and a least variance of our own;
one iteration of EM, an M step with equal coupling, since three learn more slowly and take twice the
time (the forms' line; of eleven forms this one had the lowest held-out error so soon); 16 epochs
(3 with the own split); one seed. ``full`` has the large network, so too, but with the paper's three
iterations, differentiated through the last one alone, and with parent types that do not compete for
a child, as in the authors' code.
Expected: about as many errors on novel viewpoints as either CNN makes, and on the own split more
than the paper's CNN; before the runs we had expected no more than that makes.
Time: on 2 cores 2 hours in all, no run more than 50 minutes; on a GPU 10 minutes (``full``: a
day). The weights of all epochs are kept in the work directory, about 1 GB.

    python -m experiments.hinton18_viewpoint --preset laptop
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from capsjax import data, models
from capsjax.__main__ import use_huge_pages
from capsjax.models import baselines, efficient_capsnet
from capsjax.routing import em
from capsjax.routing.convergence import Loop
from capsjax.serial import to_json
from capsjax.training.settings import Settings
from experiments import epochs, step_cost, study, training, viewpoints
from experiments.hinton18_report import PAIRS, draw, lines, matched
from experiments.study import Study

__all__ = ["PRESETS", "Config", "draw", "lines", "run"]


@dataclass(frozen=True)
class Network:
    """One of those that are compared.

    Attributes:
        model: its name.
        config: its choices.
        batch_size: of a step.
        learning_rate: largest one.
    """

    model: str
    config: Any
    batch_size: int = 64
    learning_rate: float = 1e-3


# EM's inverse temperature reaches 0.05 of its final value in one iteration and 0.14 in three: with
# one the final value is higher, so that activations can move as far.
ONE_ITERATION = em.Config(
    num_iterations=1, cost="mean", final_inverse_temperature=8.0, minimum_variance=0.03
)
THREE_ITERATIONS = em.Config(
    num_iterations=3,
    cost="mean",
    final_inverse_temperature=1.5,
    minimum_variance=0.03,
    loop=Loop(gradient="last_iteration"),
)


def _matrix_capsules(model: str, routing: em.Config) -> Network:
    form = replace(models.find(model).config, normalise=True, competition="type", routing=routing)
    return Network(model, form, 32, 3e-3)


# The strides of its form for smallNORB, the layers of its CNN, so that these two have the same
# convolutions; no decoder, which cannot draw standardised images.
_EFFICIENT = replace(
    efficient_capsnet.SMALLNORB, activation="relu", normalisation="batch", decoder="none"
)
_EFFICIENT_CNN = replace(baselines.EFFICIENT, kernel_sizes=(7, 3, 3, 3, 3), strides=(2, 1, 1, 2, 1))
OTHERS = {
    "efficient_capsnet": Network("efficient_capsnet", _EFFICIENT),
    "hinton_cnn": Network("hinton_cnn", baselines.HINTON),
    "efficient_cnn": Network("efficient_cnn", _EFFICIENT_CNN),
}


@dataclass(frozen=True)
class Config:
    """What is trained.

    Attributes:
        dataset: "toy_norb", or "smallnorb" where it is at hand.
        few: some of toy_norb's views only, rendered in a second.
        networks: by their names in the report.
        splits: "azimuth" and "elevation" (familiar viewpoints to train on), "own" (all).
        epochs: with familiar viewpoints.
        own_epochs: with the data set's own split.
        checked: forms of EM that are trained alike on familiar azimuths; none leaves that out.
        checked_epochs: of each of these.
        rounds: in each of which a step of every one of these is timed.
        recipe: what is done to an image.
        seed: of all networks.
    """

    dataset: str = "toy_norb"
    few: bool = False
    networks: Mapping[str, Network] = field(
        default_factory=lambda: {
            "matrix_capsules": _matrix_capsules("matrix_capsules_small", ONE_ITERATION),
            **OTHERS,
        }
    )
    splits: tuple[str, ...] = (*viewpoints.FACTORS, viewpoints.OWN)
    epochs: int = 16
    own_epochs: int = 3
    checked: Mapping[str, em.Config] = field(
        default_factory=lambda: {
            "one iteration": ONE_ITERATION,
            "three, the last one's gradient": THREE_ITERATIONS,
            "three, unrolled gradient": replace(THREE_ITERATIONS, loop=Loop(gradient="unrolled")),
        }
    )
    checked_epochs: int = 1
    rounds: int = 8
    recipe: str = "smallnorb_hinton"
    seed: int = 0


def _smoke() -> Config:
    tiny = _matrix_capsules("matrix_capsules_small", ONE_ITERATION)
    shape = replace(
        tiny.config, features=2, primary_types=1, types=(2,), kernel_sizes=(3,), strides=(2,)
    )
    cnn = replace(baselines.HINTON, features=(2, 2), hidden=(4,))
    return Config(
        few=True,
        networks={
            "matrix_capsules": replace(tiny, config=shape, batch_size=10),
            "hinton_cnn": Network("hinton_cnn", cnn, batch_size=10),
        },
        splits=("azimuth", viewpoints.OWN),
        epochs=2,
        own_epochs=1,
        checked={"three, the last one's gradient": THREE_ITERATIONS},
        checked_epochs=1,
        rounds=1,
    )


PRESETS = {
    "smoke": _smoke(),
    "laptop": Config(),
    "full": Config(
        dataset="smallnorb",
        networks={
            "matrix_capsules": _matrix_capsules("matrix_capsules", THREE_ITERATIONS),
            **OTHERS,
        },
        epochs=300,
        own_epochs=300,
        checked={},
    ),
}


def run(config: Config, study: Study) -> None:
    """Forms of EM; all networks on each split; pairs of them matched where views are novel."""
    dataset = viewpoints.few() if config.few else viewpoints.find(config.dataset)
    if config.checked:
        chosen = _settings(config, dataset, "matrix_capsules", "azimuth")
        forms = {
            name: replace(
                chosen,
                model_config=replace(chosen.model_config, routing=routing),
                training=replace(chosen.training, epochs=config.checked_epochs),
            )
            for name, routing in config.checked.items()
        }
        study.run(
            "em_forms",
            partial(_em_forms, forms, config.rounds, dataset),
            seed=config.seed,
            config={
                "rounds": config.rounds,
                "forms": {name: to_json(settings) for name, settings in forms.items()},
            },
        )
    for split in config.splits:
        jobs = {name: _settings(config, dataset, name, split) for name in config.networks}
        errors = {}
        for name, chosen in jobs.items():
            found = study.run(
                f"{split}-{name}",
                partial(_one, split, name, chosen, dataset),
                seed=config.seed,
                config=to_json(chosen),
            )
            if found is not None:
                errors[name] = found["validation_errors"]
        if split == viewpoints.OWN:
            continue
        for pair in PAIRS:
            if not set(pair) <= set(errors):
                continue
            match = matched({name: errors[name] for name in pair})
            for name, epoch in match.epochs.items():
                folder = study.folder(f"{split}-{name}")
                study.run(
                    f"{split}-{name}-epoch-{epoch}",
                    partial(_after, epoch, split, name, jobs[name], dataset, folder),
                    seed=config.seed,
                    config={"epoch": epoch, "training": to_json(jobs[name])},
                )


def _settings(config: Config, dataset: data.Dataset, name: str, split: str) -> Settings:
    network = config.networks[name]
    return training.settings(
        dataset,
        network.model,
        model_config=network.config,
        epochs=config.own_epochs if split == viewpoints.OWN else config.epochs,
        batch_size=network.batch_size,
        learning_rate=network.learning_rate,
        recipe=config.recipe,
        seed=config.seed,
    )


def _one(
    split: str, name: str, chosen: Settings, dataset: data.Dataset, folder: Path
) -> dict[str, Any]:
    """Train a network, and test it as it was after its best epoch."""
    # Of the own split no epoch is matched.
    train = training.train if split == viewpoints.OWN else epochs.train
    trained = train(chosen, viewpoints.shown(dataset, split), folder)
    start = time.monotonic()
    tested = viewpoints.measure(trained.run, dataset.load("test"), split)
    errors = trained.metrics["validation_errors"]
    return {
        "split": split,
        "network": name,
        "dataset": dataset.name,
        "iterations": getattr(
            getattr(chosen.model_config, "routing", None), "num_iterations", None
        ),
        "epoch": len(errors) - errors[::-1].index(min(errors)),  # of equal ones the last, as in fit
        **trained.metrics,
        **tested,
        "seconds": trained.metrics["training_seconds"] + time.monotonic() - start,
    }


def _after(
    epoch: int,
    split: str,
    name: str,
    chosen: Settings,
    dataset: data.Dataset,
    trained: Path,
    folder: Path,
) -> dict[str, Any]:
    """Test a network as it was after an epoch."""
    del folder
    network = epochs.after(epoch, chosen, trained)
    tested = viewpoints.measure(network, dataset.load("test"), split)
    return {"split": split, "network": name, "dataset": dataset.name, "epoch": epoch, **tested}


def _em_forms(
    forms: Mapping[str, Settings], rounds: int, dataset: data.Dataset, folder: Path
) -> dict[str, Any]:
    """Train forms of EM alike, as long, from the same parameters; nothing is tested."""
    start = time.monotonic()
    familiar = viewpoints.shown(dataset, "azimuth")
    costs = step_cost.measure(forms, rounds)
    found = [
        {
            "form": name,
            **costs[name],
            **training.train(settings, familiar, folder / str(number)).metrics,
        }
        for number, (name, settings) in enumerate(forms.items())
    ]
    return {"forms": found, "seconds": time.monotonic() - start}


if __name__ == "__main__":
    use_huge_pages()
    study.main("hinton18_viewpoint")
