"""Adversarial images: capsules against a CNN of the same accuracy (Hinton, Sabour, Frosst 2018).

Claim: white-box attacks (FGSM, BIM), targeted or not, hurt capsules much less than a CNN: FGSM
never takes them below chance, and the CNN far below it from epsilon 0.2 on; against images made on
another CNN they have no advantage. An attack on their votes is stronger (Gu, Wu and Tresp 2021),
and the winning capsule's reconstruction tells many attacked images (Frosst, Sabour and Hinton
2018).
Source: Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing", section 6; Gu, Wu and
Tresp 2021, "Effective and efficient vote attack on capsule networks"; Frosst, Sabour and Hinton
2018, "DARCCC: detecting adversaries by reconstruction from class conditional capsules".
Protocol: Efficient-CapsNet and its CNN control, of about as many parameters, trained the same way
and taken from the epochs at which held-out images find them nearest to each other. Two hundred
test images are attacked, drawn with the seed, the same for both networks, pixels in [0, 1]: FGSM,
BIM (each step epsilon / steps), PGD from one random start (step 2.5 epsilon / steps) in L-inf and
L2, the vote attack, and FGSM and BIM images of a third network, the paper's CNN. FGSM and BIM raise
cross-entropy: of the CNN's logits, of the capsules' lengths, which are from 0 to 1 and so pull on
all rivals alike. PGD therefore raises the margin (the best other score less that of the class),
whose direction has no scale; "PGD on shares" has the vote attack's own loss, taken after the
routing. Targets are all wrong classes. Attacked images are not rounded to 8 bits. An image is told
where its reconstruction is farther away than those of 95 % of held-out images; images with random
signs of the same size say how much of that is the change itself.
Differences from the paper: its capsules are matrices with EM routing, its images smallNORB's
(``full`` adds toy_norb, which is synthetic).
Expected: before the runs, both networks fall, the order by epsilon says whether capsules fall
later. Seen: under their own gradient capsules fall later, and images of another network take no
more from them than PGD on the margin does. The vote attack, which goes around the routing, takes as
much as PGD takes from the CNN, far more than PGD with its loss after the routing: much of what
looks like strength is what the routing does to the gradient. FGSM and BIM are weak on capsules
beyond that, by their loss. Few attacks are told by reconstruction.
Time: on 2 cores 30 minutes (on one, trainings 2, 13 and 13, attacks 10 and 15); on a GPU 2 minutes
(``full``: 2 hours).

    python -m experiments.hinton18_adversarial --preset laptop
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from capsjax import data
from capsjax.__main__ import use_huge_pages
from capsjax.analysis.statistics import wilson_interval
from capsjax.models import baselines, efficient_capsnet
from capsjax.serial import to_json
from capsjax.training import run as runs
from capsjax.training.settings import Settings
from experiments import adversarial_report, epochs, study, training
from experiments.attacking import FGSM, Attack, Subject, counts, examples, reached, shaken
from experiments.study import Study

CAPSULES, CNN, SUBSTITUTE = "capsules", "cnn", "substitute"
_QUANTILE = 0.95
# PGD's steps together are so many times epsilon, so that it can cross the ball.
_REACH = 2.5
# In a picture, as far as a result's file stays small.
_SHOWN, _SHOWN_PIXELS = 10, 8000

ATTACKS = (
    "FGSM",
    "BIM",
    "PGD",
    "PGD in L2",
    "PGD on shares",
    "vote attack",
    "black-box FGSM",
    "black-box BIM",
)

draw, lines = adversarial_report.draw, adversarial_report.lines


@dataclass(frozen=True)
class Config:
    """What is trained and attacked.

    Attributes:
        datasets: on which.
        epochs: of capsules and CNN.
        substitute_epochs: of the CNN that is at hand for the black box.
        seed: of all three.
        batch_size: of a training step.
        limit: train on so many images; None is all but the validation images.
        validation: so many training images choose the epoch.
        tested: so many test images for the test errors and false alarms; None is all.
        attacked: so many test images.
        targeted: so many of them with all targets.
        held_out: so many of the validation images set the threshold of detection.
        at_once: images of one compiled call.
        epsilons: of attacks in L-inf.
        l2_epsilons: of those in L2.
        attacks: which; ``ATTACKS`` has their names.
        basic_steps: of BIM.
        pgd_steps: of PGD and the vote attack.
        shown: the one of ``epsilons`` of which some of BIM's images are kept for a picture.
        capsules: choices of the capsule network; None is its form for the data set.
        cnn: choices of the CNN that is attacked.
        substitute: of the one at hand.
    """

    datasets: tuple[str, ...] = ("mnist",)
    epochs: int = 3
    substitute_epochs: int = 1
    seed: int = 0
    batch_size: int = 128
    limit: int | None = None
    validation: int = 5000
    tested: int | None = None
    attacked: int = 200
    targeted: int = 30
    held_out: int = 1000
    at_once: int = 50
    epsilons: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3)
    l2_epsilons: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0)
    attacks: tuple[str, ...] = ATTACKS
    basic_steps: int = 10
    pgd_steps: int = 20
    shown: float = 0.2
    capsules: efficient_capsnet.Config | None = None
    cnn: baselines.Config = baselines.EFFICIENT
    substitute: baselines.Config = baselines.HINTON


_TINY_CNN = baselines.Config(
    features=(4,), kernel_sizes=(5,), strides=(4,), pools=(1,), hidden=(), dropout=0.0
)
PRESETS = {
    "smoke": Config(
        epochs=1,
        batch_size=16,
        limit=32,
        validation=16,
        tested=20,
        attacked=10,
        targeted=1,
        held_out=16,
        at_once=10,
        epsilons=(0.1, 0.3),
        attacks=("FGSM", "BIM", "vote attack", "black-box FGSM"),
        basic_steps=2,
        pgd_steps=2,
        shown=0.3,
        capsules=efficient_capsnet.Config(
            features=(2, 8), kernel_sizes=(5, 5), strides=(2, 2), decoder_widths=(8,)
        ),
        cnn=_TINY_CNN,
        substitute=_TINY_CNN,
    ),
    "laptop": Config(),
    "full": Config(
        datasets=("mnist", "toy_norb"),
        epochs=50,
        substitute_epochs=50,
        attacked=2000,
        targeted=500,
        at_once=200,
        pgd_steps=100,
    ),
}


def run(config: Config, study: Study) -> None:
    """Of each data set the three trainings, then the attacks on two of the networks."""
    for name in config.datasets:
        chosen = {each: _settings(config, name, each) for each in (CAPSULES, CNN, SUBSTITUTE)}
        trained = {
            network: study.run(
                f"{name}_{network}",
                partial(_train, network, settings, config.tested),
                seed=config.seed,
                config=to_json(settings),
            )
            for network, settings in chosen.items()
        }
        courses = {
            each: metrics["validation_errors"] for each, metrics in trained.items() if metrics
        }
        if set(courses) != set(chosen):
            continue
        at_hand = partial(_substitute, study.folder(f"{name}_{SUBSTITUTE}"), config.at_once)
        matched = epochs.match({each: courses[each] for each in (CAPSULES, CNN)})
        for network, epoch in matched.epochs.items():
            told = {"epoch": epoch, "validation_error": courses[network][epoch - 1]}
            folder = study.folder(f"{name}_{network}")
            study.run(
                f"{name}_{network}_attacked",
                partial(_attack, config, name, network, told, chosen[network], folder, at_hand),
                seed=config.seed,
                config={**told, **to_json(config)},
            )


def _settings(config: Config, name: str, network: str) -> Settings:
    capsules = config.capsules
    if capsules is None:
        norb = name == "toy_norb"
        capsules = efficient_capsnet.SMALLNORB if norb else efficient_capsnet.Config()
    model, choices = {
        CAPSULES: ("efficient_capsnet", capsules),
        CNN: ("efficient_cnn", config.cnn),
        SUBSTITUTE: ("hinton_cnn", config.substitute),
    }[network]
    return training.settings(
        data.find(name),
        model,
        model_config=choices,
        epochs=config.substitute_epochs if network == SUBSTITUTE else config.epochs,
        batch_size=config.batch_size,
        limit=config.limit,
        validation=config.validation,
        seed=config.seed,
    )


def _train(network: str, chosen: Settings, tested: int | None, folder: Path) -> dict[str, Any]:
    """The networks that are matched are tested where they match."""
    dataset = data.find(chosen.dataset)
    if network == SUBSTITUTE:
        metrics, *_ = training.train_and_test(chosen, dataset, folder, limit=tested)
    else:
        metrics = epochs.train(chosen, dataset, folder).metrics
        metrics = {**metrics, "seconds": metrics["training_seconds"]}
    held_out = chosen.training.validation
    return {"dataset": chosen.dataset, "network": network, "held_out": held_out, **metrics}


def _attack(
    config: Config,
    name: str,
    network: str,
    told: dict[str, Any],
    chosen: Settings,
    trained: Path,
    at_hand: Callable[[], Subject],
    folder: Path,
) -> dict[str, Any]:
    """All attacks on one network."""
    del folder
    subject = Subject(epochs.after(told["epoch"], chosen, trained).model, config.at_once)
    dataset = data.find(name)
    test = _floats(training.first(dataset.load("test"), config.tested))
    images, labels = _drawn(test, config.attacked, config.seed)
    clean, first = subject.says(test[0]), subject.says(images)
    threshold = None
    metrics: dict[str, Any] = {
        "dataset": name,
        "network": network,
        **told,
        **training.of_wrong(clean.labels != test[1]),
        "attacked_images": len(images),
        "gradients": subject.gradients(images, labels),
    }
    if clean.distances is not None:
        held_out, _ = _drawn(_floats(_validation(config, dataset)), config.held_out, config.seed)
        threshold = float(np.quantile(subject.says(held_out).distances, _QUANTILE))
        false = clean.distances > threshold
        noisy = [shaken(images, epsilon, config.seed) for epsilon in config.epsilons]
        metrics["detection"] = {
            "threshold": threshold,
            "held_out_images": len(held_out),
            "false_alarms": float(false.mean()),
            "false_alarms_interval_95": wilson_interval(int(false.sum()), len(false)),
            "clean_images": len(false),
            "shaken": [
                {"epsilon": epsilon, "told": float((said.distances > threshold).mean())}
                for epsilon, said in zip(config.epsilons, map(subject.says, noisy), strict=True)
            ],
        }
    count = partial(counts, labels, first.labels == labels, threshold)
    metrics["clean"] = count(first)
    metrics["attacks"], substitute = {}, at_hand()
    shown = min(_SHOWN, max(1, _SHOWN_PIXELS // images[0].size))
    for attack, how, of_another in _attacks(config, network):
        source = substitute if of_another else subject
        found = []
        for epsilon in config.l2_epsilons if how.kind == "l2" else config.epsilons:
            changed = source.attacked(how, images, labels, epsilon, seed=config.seed)
            said = subject.says(changed)
            found.append({"epsilon": epsilon, **count(said)})
            if attack == "BIM" and epsilon == config.shown:
                metrics["examples"] = examples(changed[:shown], labels, said, epsilon)
        metrics["attacks"][attack] = found
    few, theirs = images[: config.targeted], labels[: config.targeted]
    reach = partial(reached, subject, dataset.num_classes)
    metrics["targeted"] = {
        attack: [
            {"epsilon": epsilon, **reach(how, few, theirs, epsilon)} for epsilon in config.epsilons
        ]
        for attack, how, of_another in _attacks(config, network)
        if how.kind == "basic" and not of_another
    }
    return metrics


def _attacks(config: Config, network: str) -> list[tuple[str, Attack, bool]]:
    """Those asked for: names, what they are, and whether the images are the substitute's."""
    basic = Attack("basic", config.basic_steps, 1 / config.basic_steps)
    steps = (config.pgd_steps, _REACH / config.pgd_steps)
    known = [
        ("FGSM", FGSM, False),
        ("BIM", basic, False),
        ("PGD", Attack("linf", *steps, "margin"), False),
        ("PGD in L2", Attack("l2", *steps, "margin"), False),
        ("black-box FGSM", FGSM, True),
        ("black-box BIM", basic, True),
    ]
    if network == CAPSULES:
        known += [
            ("PGD on shares", Attack("linf", *steps, "shares"), False),
            ("vote attack", Attack("linf", *steps, "votes"), False),
        ]
    return [each for each in known if each[0] in config.attacks]


def _substitute(folder: Path, at_once: int) -> Subject:
    try:
        return Subject(runs.load(folder).model, at_once)
    except ValueError as error:
        raise ValueError(
            f"{error}; the attacks need all three networks: give the --workdir in which they were "
            "trained, or remove their results and train anew"
        ) from error


def _floats(arrays: data.Arrays) -> tuple[np.ndarray, np.ndarray]:
    return arrays["image"].astype(np.float32) / 255, arrays["label"]


def _validation(config: Config, dataset: data.Dataset) -> data.Arrays:
    """The images that training held out."""
    arrays = dataset.load("train")
    if dataset.divide is not None:
        return dataset.divide(arrays)[1]
    return {key: values[-config.validation :] for key, values in arrays.items()}


def _drawn(
    arrays: tuple[np.ndarray, np.ndarray], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """So many of them; data sets may be in the order of their classes."""
    which = np.random.default_rng(seed).permutation(len(arrays[0]))[:count]
    return arrays[0][which], arrays[1][which]


if __name__ == "__main__":
    use_huge_pages()
    study.main("hinton18_adversarial")
