"""Capsule layers on capsule layers: dead capsules, gradients, couplings (Mitterreiter 2023).

Claim: capsule networks do not scale: no parse tree is built (couplings hardly depend on the image),
and gradients vanish on their way down, so that many capsules starve. Of Peer 2021: a bias in the
routing helps deep ones to train (both reported).
Source: Mitterreiter, Koch, Giesen and Laue 2023, "Why capsule neural networks do not scale:
challenging the dynamic parse-tree assumption"; Peer, Stabinger and Rodriguez-Sanchez 2021,
"Limitation of capsule networks".
Protocol: capsnet with fewer features and types and without a decoder on MNIST, 1, 2 and 4 routed
layers, hidden ones of 16 capsules of 16 dimensions, 3 iterations; the first 40,000 training images
twice. The plain form starts every layer from weights as large as the published class capsules';
then one change at a time: a bias, batch-normalised poses, residual connections (they need two
hidden layers of a size), balanced initial weights; and all together. The last 5,000 training images
choose the epoch, and 1,000 of them are looked at after training: capsules of a mean length below
0.01 are dead (before the normalisation, where there is one, which makes them as long as others),
those whose pose varies over images by less than a hundredth of its length are still. Coefficients'
standard deviation over images is in units of the even share, 1 / parents, and the rest of their
variance is the same for all images. Gradients are of every step in training. Forms differ only if
McNemar's test on the same test images says so.
Expected: before the runs, squashing squares what is short, layer by layer, to a first gradient of
0, so that the plain form of 4 layers, and the residual one, stay at chance with dead capsules; what
keeps votes from vanishing (bias, normalisation, balanced weights) lets it learn. Seen: so it is,
but residual connections suffice as well, and all changes together stay at chance with no capsule
dead and large gradients: normalised poses and residual sums are longer than balanced weights are
made for, and hidden capsules are long whatever the image (0.76 to 0.89 on average).
Time: on 2 cores 40 minutes in all (5 to 7 for a form on one); on a GPU 5 in all (``full``: a day).

    python -m experiments.depth --preset laptop
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from capsjax import data, figures
from capsjax.__main__ import use_huge_pages
from capsjax.models import capsnet
from capsjax.routing import dynamic
from capsjax.training.settings import Settings
from experiments import layers_seen, study, training
from experiments.comparison import Metrics, against
from experiments.study import Brief, Line, Results, Study

# A gradient of 0 in a logarithmic picture.
_LEAST = 1e-12
# Of coefficients over images, in even shares.
_LEAST_DEVIATION = 1e-6


class Form(NamedTuple):
    """A network: how many routed layers, and what was changed."""

    depth: int
    bias: bool = False
    normalise: bool = False
    residual: bool = False
    balanced: bool = False


FORMS = {
    "1 layer": Form(1),
    "1 layer, bias": Form(1, bias=True),
    "2 layers": Form(2),
    "2 layers, bias": Form(2, bias=True),
    "2 layers, normalised": Form(2, normalise=True),
    "2 layers, balanced": Form(2, balanced=True),
    "4 layers": Form(4),
    "4 layers, bias": Form(4, bias=True),
    "4 layers, normalised": Form(4, normalise=True),
    "4 layers, residual": Form(4, residual=True),
    "4 layers, balanced": Form(4, balanced=True),
    "4 layers, all": Form(4, bias=True, normalise=True, residual=True, balanced=True),
}
PLAIN = "1 layer"
# In README.
_TOLD = (PLAIN, "4 layers", "4 layers, bias", "4 layers, normalised")
_PLAIN = (PLAIN, "2 layers", "4 layers")
_VANISH = "gradients vanish and capsules starve (reported, no number)"
_PAPER = {
    "1 layer": "couplings hardly depend on the image (reported, no number)",
    "2 layers": _VANISH,
    "4 layers": _VANISH,
    "2 layers, bias": "learns better than without (Peer 2021; reported, no number)",
    "4 layers, bias": "learns better than without (Peer 2021; reported, no number)",
}


@dataclass(frozen=True)
class Config:
    """What is trained.

    Attributes:
        forms: names of ``FORMS``.
        seeds: one network of each form each.
        capsules: of a hidden layer.
        iterations: of routing.
        epochs: of each.
        batch_size: of a step.
        limit: on so many training images; None is all but the validation images.
        validation: so many training images choose the epoch.
        looked_at: so many of these, the last ones, show coefficients and dead capsules.
        tested: on so many test images; None is all.
        model: the network's choices, but for what the forms change.
    """

    forms: tuple[str, ...] = tuple(FORMS)
    seeds: tuple[int, ...] = (0,)
    capsules: int = 16
    iterations: int = 3
    epochs: int = 2
    batch_size: int = 128
    limit: int | None = 40_000
    validation: int = 5000
    looked_at: int = 1000
    tested: int | None = None
    model: capsnet.Config = capsnet.Config(features=64, primary_types=8, decoder=False)


PRESETS = {
    "smoke": Config(
        forms=("1 layer", "2 layers, normalised"),
        capsules=4,
        iterations=1,
        epochs=1,
        batch_size=16,
        limit=32,
        validation=16,
        looked_at=16,
        tested=100,
        model=capsnet.Config(
            features=2, kernel_size=11, primary_types=1, class_dim=4, decoder=False
        ),
    ),
    "laptop": Config(),
    "full": Config(
        seeds=(0, 1, 2),
        capsules=32,
        epochs=50,
        limit=None,
        looked_at=5000,
        model=capsnet.Config(decoder=False),
    ),
}


def run(config: Config, study: Study) -> None:
    """Every form, seed by seed."""
    for seed in config.seeds:
        for name in config.forms:
            chosen = _settings(config, FORMS[name], seed)
            study.run(
                f"{name.replace(',', '').replace(' ', '-')}-seed-{seed}",
                partial(_one, name, chosen, config.looked_at, config.tested),
                seed=seed,
                config={
                    **training.choices(chosen, config.tested),
                    "looked_at": config.looked_at,
                },
            )


def _settings(config: Config, form: Form, seed: int) -> Settings:
    model = replace(
        config.model,
        hidden=(config.capsules,) * (form.depth - 1),
        hidden_balanced=form.balanced,
        hidden_normalise=form.normalise,
        hidden_residual=form.residual,
        routing=dynamic.Config(num_iterations=config.iterations, bias=form.bias),
    )
    return training.settings(
        data.find("mnist"),
        "capsnet",
        model_config=model,
        epochs=config.epochs,
        batch_size=config.batch_size,
        limit=config.limit,
        validation=config.validation,
        seed=seed,
        layer_metrics=True,
    )


def _one(
    name: str, chosen: Settings, count: int, tested: int | None, folder: Path
) -> dict[str, Any]:
    dataset = data.find("mnist")
    metrics, trained, _ = training.train_and_test(chosen, dataset, folder, limit=tested)
    held_out = dataset.load("train")["image"][-count:]
    return {
        "form": name,
        **metrics,
        "parts": layers_seen.parts(trained.history),
        "gradient_norms": layers_seen.gradient_norms(trained.history),
        **layers_seen.look(trained.run.model, held_out),
    }


def draw(results: Results) -> dict[str, Figure]:
    """Test errors; and of the deepest forms gradients, dead capsules and couplings by layer."""
    found = _in_order(results)
    if not found:
        return {}
    deepest = max(len(each["dead_share"]) for each in found)
    deep: dict[str, dict[str, Any]] = {}
    for each in found:
        if len(each["dead_share"]) == deepest:
            deep.setdefault(each["form"], each)
    names = ["primary", *(f"capsules {n + 1}" for n in range(deepest - 2)), "classes"]
    first = {
        name: np.log10([max(each["gradient_norms"][p]["first"], _LEAST) for p in each["parts"]])
        for name, each in deep.items()
    }
    dead, still = (
        {name: 100 * np.array(each[f"{kind}_share"]) for name, each in deep.items()}
        for kind in ("dead", "still")
    )
    varying = {name: np.array(each["coefficient_deviation"]) for name, each in deep.items()}
    about = f"log10 of the gradient's norm, first {layers_seen.FIRST_STEPS} steps"
    errors = figures.errors(
        [each["test_error"] for each in found],
        [each["test_error_interval_95"] for each in found],
        [_title(each) for each in found],
    )
    # From about 1 % to chance.
    errors.axes[0].set_xscale("log")
    errors.axes[0].set_xlim(0.5, 110)
    errors.axes[0].xaxis.set_major_formatter("{x:g}")
    return {
        "errors": errors,
        "gradients": _by_layer(["convolution", *names], first, about),
        "dead": _by_layer(names, dead, "dead capsules (%)", percent=True),
        "still": _by_layer(names, still, "capsules that no image moves (%)", percent=True),
        "coefficients": _by_layer(
            names[1:], varying, "coefficients' deviation over images,\nin even shares"
        ),
    }


def _by_layer(
    names: list[str], series: dict[str, Any], ylabel: str, *, percent: bool = False
) -> Figure:
    """Curves over layers, from the images on."""
    figure = figures.curves(range(len(names)), series, xlabel="layer", ylabel=ylabel)
    axis = figure.axes[0]
    axis.set_xticks(range(len(names)), names)
    if percent:
        axis.set_ylim(-3, 103)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def lines(results: Results) -> list[Line]:
    """Of the report."""
    found = _in_order(results)
    made = []
    for form in dict.fromkeys(each["form"] for each in found):
        seeds = [each for each in found if each["form"] == form]
        one = seeds[0]
        dead, still = (
            ", ".join(f"{100 * share:.0f}" for share in one[f"{kind}_share"])
            for kind in ("dead", "still")
        )
        norms = [one["gradient_norms"][part]["first"] for part in one["parts"]]
        varying = ", ".join(f"{value:.2g}" for value in one["coefficient_deviation"])
        # Of a variance that is rounding there is no share to tell.
        by_image = ", ".join(
            f"{100 * share:.0f}" if deviation > _LEAST_DEVIATION else "-"
            for share, deviation in zip(
                one["image_share"], one["coefficient_deviation"], strict=True
            )
        )
        ours = (
            f"{study.errors(seeds)}; dead capsules by layer {dead} %, still ones {still} %; first "
            f"gradients from {norms[-1]:.1e} (classes) to {norms[0]:.1e} (convolution); "
            f"coefficients' deviation over images {varying} of the even share, {by_image} % of "
            "their variance"
        )
        paper = _PAPER.get(form, "not in the paper")
        # With a change against without it; the plain ones against a single layer.
        plain = PLAIN if form in _PLAIN else form.partition(",")[0]
        why = _against(form, plain, found)
        brief = None
        if form in _TOLD:
            # What a paper says of a single layer is about its couplings.
            said = "none" if form == PLAIN else paper
            brief = Brief(
                f"small CapsNet, capsules in {form}, test error", said, study.error(seeds)
            )
        made.append(Line(f"small CapsNet, {form}, test error", paper, ours, why, brief))
    return made


def _in_order(results: Results) -> list[Metrics]:
    """The runs' metrics with their seeds, in the order of the forms."""
    found = [{**result["metrics"], "seed": result["seed"]} for result in results.values()]
    order = list(FORMS)
    return sorted(found, key=lambda each: (order.index(each["form"]), each["seed"]))


def _title(each: dict[str, Any]) -> str:
    return each["form"] if each["seed"] == 0 else f"{each['form']}, seed {each['seed']}"


def _against(form: str, plain: str, found: list[Metrics]) -> str:
    """Whether a form differs from another on the same test images."""
    own, other = ({e["seed"]: e for e in found if e["form"] == name} for name in (form, plain))
    about = (
        f"a reduced network, {next(iter(own.values()))['steps']:,} steps on MNIST; the weights' "
        "first size and what is measured are ours, the paper's were not seen"
    )
    if form == PLAIN:
        return about
    others = {each["form"] for each in found} - {PLAIN}
    return against(own, other, plain, comparisons=len(others)) or about


if __name__ == "__main__":
    use_huge_pages()
    study.main("depth")
