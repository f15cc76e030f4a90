"""What the dimensions of a capsule mean, and whether poses move with the image (Sabour 2017).

Claim: each of a class capsule's 16 dimensions means something: scale, thickness, skew, width, shift
(figure 4). Poses are equivariant, activations invariant (Sabour 2017; Hinton 2018), and a pose can
be manipulated linearly.
Source: Sabour, Frosst and Hinton 2017, "Dynamic routing between capsules", section 5.1; Hinton,
Sabour and Frosst 2018, "Matrix capsules with EM routing", section 1; measures: capsjax.analysis.
Protocol: (1) MNIST: each dimension of the class capsule of test digits moved from -0.25 to 0.25 in
steps of 0.05 and decoded; thickness, width, height, skew and shift of what is drawn are measured,
and their slope over the whole range in units of their spread between test digits of a class names
the dimension, if it is at least ``threshold``. The same along the directions of random rotations
is the control. (2) synthetic affNIST and rendered toys (synthetic too): factors told by ridge
regression from half of the test images, R2 on the other half; equivariance and invariance errors
under one known change at a time; a CNN of about as many parameters beside. (3) a digit at two
places: the poses' mean, and beyond, decoded, against the true picture, beside a reconstruction of
the true picture and a mixture of the two pictures' pixels. Held-out training images choose the
epoch; all figures are of test images; one seed. Differences from the paper: Efficient-CapsNet for
CapsNet, few epochs; the paper shows pictures and measures nothing.
Expected: before the runs, nearly all dimensions have a name, and random directions too (seen); R2
of most parameters above 0.8 (not seen). After so few epochs on moved digits the decoder draws their
places and little else; R2 is above 0.8 for shifts alone and low for all else, toys' views too, and
a CNN's layer tells as much.
Time: on 2 cores 40 minutes in all; on a GPU 4 (``full``: an hour).

    python -m experiments.capsule_dimensions --preset laptop
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from capsjax import data
from capsjax.__main__ import use_huge_pages
from capsjax.models import baselines, capsnet, efficient_capsnet
from capsjax.serial import to_json
from capsjax.training.settings import Settings
from experiments import dimension_report, study, training
from experiments.pose_features import changed, listen, probed
from experiments.pose_images import (
    digit_factors,
    digit_pairs,
    drawn,
    toy_factors,
    toy_pairs,
    toys,
)
from experiments.pose_measures import dimensions, interpolated
from experiments.study import Line, Results, Study

_NETWORKS = {
    efficient_capsnet.Config: "efficient_capsnet",
    capsnet.Config: "capsnet",
    baselines.Config: "efficient_cnn",
}
# The published networks' convolutions with one stride more, for larger images.
_AFFINE = efficient_capsnet.Config(strides=(1, 1, 2, 2))
_AFFINE_CNN = baselines.Config(
    features=(32, 64, 64, 128, 32),
    kernel_sizes=(5, 3, 3, 3, 3),
    strides=(1, 1, 2, 2, 2),
    pools=(1,) * 5,
    padding="VALID",
    normalisation="batch",
    hidden=(),
    dropout=0.0,
)
# The published form for smallNORB, but for the decoder, whose convolutions take 15 times as long,
# and for the normalisation: the CNN's, for each image by itself would take the light out.
_TOYS = efficient_capsnet.Config(kernel_sizes=(7, 3, 3, 3), strides=(2, 1, 1, 2))
_TOYS_CNN = baselines.Config(
    features=(32, 64, 64, 128, 32),
    kernel_sizes=(7, 3, 3, 3, 3),
    strides=(2, 1, 1, 2, 2),
    pools=(1,) * 5,
    padding="VALID",
    normalisation="batch",
    hidden=(),
    dropout=0.0,
)
_TINY = efficient_capsnet.Config(
    features=(8,), kernel_sizes=(9,), strides=(4,), class_dim=4, decoder_widths=(8,)
)
_TINY_CNN = baselines.Config(
    features=(4,), kernel_sizes=(9,), strides=(8,), pools=(1,), hidden=(), dropout=0.0
)


@dataclass(frozen=True)
class Config:
    """What is trained and measured.

    Attributes:
        mnist: the network whose dimensions are named.
        affine: the one that sees synthetic affNIST.
        affine_cnn: the CNN beside it.
        toys: the one that sees rendered toys.
        toys_cnn: the CNN beside it; None leaves it out.
        mnist_epochs: of the first.
        affine_epochs: of the next two.
        toys_epochs: of the last two.
        batch_size: of a step.
        limit: of digits on so many training images; None is all but the validation images.
        validation: so many training images of digits choose the epoch.
        toys_train: training images of each of 25 toys, of which a fifth chooses the epoch.
        toys_test: test images of each of 25 other toys, for error and probes.
        tested: on so many test images of digits for the error; None is all.
        images: test images of digits for the measures, drawn with the seed (the first half of
            MNIST's is the easier one).
        pairs: test digits that are changed.
        toy_pairs: views of each of the 25 test toys that are changed.
        digits: test digits whose capsules are perturbed, and interpolated.
        threshold: a dimension whose strongest property changes by less, in its spreads, from -0.25
            to 0.25, has no name.
        rotations: random ones of a class capsule's dimensions, to compare these with.
        shown: class of the digit in the pictures.
        seed: of everything.
    """

    mnist: Any = efficient_capsnet.Config()
    affine: Any = _AFFINE
    affine_cnn: Any = _AFFINE_CNN
    toys: Any = _TOYS
    toys_cnn: Any = _TOYS_CNN
    mnist_epochs: int = 3
    affine_epochs: int = 2
    toys_epochs: int = 15
    batch_size: int = 128
    limit: int | None = None
    validation: int = 5000
    toys_train: int = 480
    toys_test: int = 160
    tested: int | None = None
    images: int = 5000
    pairs: int = 2000
    toy_pairs: int = 32
    digits: int = 500
    threshold: float = 0.5
    rotations: int = 10
    shown: int = 5
    seed: int = 0


PRESETS = {
    "smoke": Config(
        mnist=_TINY,
        affine=_TINY,
        affine_cnn=_TINY_CNN,
        toys=_TINY,
        toys_cnn=None,
        mnist_epochs=1,
        affine_epochs=1,
        toys_epochs=1,
        batch_size=16,
        limit=16,
        validation=16,
        toys_train=1,
        toys_test=1,
        tested=200,
        images=200,
        pairs=200,
        toy_pairs=1,
        digits=20,
        rotations=2,
    ),
    "laptop": Config(),
    "full": Config(
        mnist=capsnet.Config(),
        mnist_epochs=50,
        affine_epochs=50,
        toys_epochs=100,
        images=10_000,
        pairs=10_000,
        toy_pairs=162,
        toys_train=972,
        toys_test=162,
        digits=5000,
    ),
}


def run(config: Config, study: Study) -> None:
    """A network on each data set, each measured as soon as it is trained."""
    digits = ("tested", "images", "pairs", "digits", "threshold", "rotations", "shown")
    views = ("toys_train", "toys_test", "toy_pairs")
    jobs: list[tuple[str, str, Any, int, tuple[str, ...], Callable[..., dict[str, Any]]]] = [
        ("mnist_capsules", "mnist", config.mnist, config.mnist_epochs, digits, _mnist),
        ("affine_capsules", "affine_mnist", config.affine, config.affine_epochs, digits, _affine),
        ("affine_cnn", "affine_mnist", config.affine_cnn, config.affine_epochs, digits, _affine),
        ("toys_capsules", "toy_norb", config.toys, config.toys_epochs, views, _toys),
        ("toys_cnn", "toy_norb", config.toys_cnn, config.toys_epochs, views, _toys),
    ]
    for name, dataset, model, epochs, measures, work in jobs:
        if model is None:
            continue
        chosen = training.settings(
            data.find(dataset),
            _NETWORKS[type(model)],
            model_config=model,
            epochs=epochs,
            batch_size=config.batch_size,
            limit=None if work is _toys else config.limit,
            # Of toys one of five of each kind, all its images.
            validation=5 * config.toys_train if work is _toys else config.validation,
            # A shifted toy would have black bars, which no test image has.
            **({"shift": 0} if work is _toys else {}),
            seed=config.seed,
        )
        measured = {each: getattr(config, each) for each in measures}
        study.run(
            name,
            partial(work, config, chosen),
            seed=config.seed,
            config={**to_json(chosen), "measured": measured},
        )


class _Tested(NamedTuple):
    """A network that was trained, and tested once.

    Attributes:
        metrics: of both.
        network: with its best parameters.
        arrays: the test images, on which it is measured further.
        since: when all but training began.
    """

    metrics: dict[str, Any]
    network: Any
    arrays: data.Arrays
    since: float

    def result(self, **measured: Any) -> dict[str, Any]:
        """All metrics, and the seconds that they took."""
        seconds = self.metrics["training_seconds"] + time.monotonic() - self.since
        return {**self.metrics, **measured, "seconds": seconds}


def _tested(config: Config, chosen: Settings, folder: Path) -> _Tested:
    start = time.monotonic()
    dataset = data.find(chosen.dataset)
    if dataset.name == "toy_norb":
        dataset = toys(config.toys_train, config.toys_test, config.seed)
    rendering = time.monotonic() - start
    trained = training.train(chosen, dataset, folder)
    since = time.monotonic() - rendering
    if dataset.name == "toy_norb":
        arrays = dataset.load("test")
        metrics, _ = training.test(trained.run, arrays)
    else:
        arrays = _digits(dataset.name)
        metrics, _ = training.test(trained.run, training.first(arrays, config.tested))
        which = drawn(config.images, config.seed)
        arrays = {name: values[which] for name, values in arrays.items()}
    own = {"encoder_parameters": training.encoder_parameters(trained.run.model)}
    return _Tested({**trained.metrics, **own, **metrics}, trained.run.model, arrays, since)


@lru_cache(maxsize=1)
def _digits(name: str) -> data.Arrays:
    """Test images; those that are made take seconds."""
    return data.load(name, "test")


def _mnist(config: Config, chosen: Settings, folder: Path) -> dict[str, Any]:
    tested = _tested(config, chosen, folder)
    found = dimensions(
        tested.network,
        tested.arrays,
        count=config.digits,
        shown=config.shown,
        threshold=config.threshold,
        rotations=config.rotations,
        seed=config.seed,
    )
    return tested.result(**found)


def _affine(config: Config, chosen: Settings, folder: Path) -> dict[str, Any]:
    tested = _tested(config, chosen, folder)
    said = listen(tested.network, tested.arrays["image"])
    measured = {
        "probes": probed(said, tested.arrays["label"], digit_factors(tested.arrays)),
        **changed(tested.network, digit_pairs(config.pairs, config.seed)),
    }
    if said.poses is not None:
        measured["interpolation"] = interpolated(
            tested.network, count=config.digits, shown=config.shown, seed=config.seed
        )
    return tested.result(**measured)


def _toys(config: Config, chosen: Settings, folder: Path) -> dict[str, Any]:
    tested = _tested(config, chosen, folder)
    said = listen(tested.network, tested.arrays["image"])
    return tested.result(
        probes=probed(said, tested.arrays["label"], toy_factors(tested.arrays)),
        **changed(tested.network, toy_pairs(config.toy_pairs, config.seed)),
    )


def draw(results: Results) -> dict[str, Figure]:
    """Perturbed digits, names of dimensions, tables of probes and errors, interpolated digits."""
    return dimension_report.draw({name: result["metrics"] for name, result in results.items()})


def lines(results: Results) -> list[Line]:
    """Of the report."""
    return dimension_report.lines({name: result["metrics"] for name, result in results.items()})


if __name__ == "__main__":
    use_huge_pages()
    study.main("capsule_dimensions")
