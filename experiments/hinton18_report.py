"""What is said and drawn of ``hinton18_viewpoint``, from its results alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from capsjax import figures
from experiments import epochs
from experiments.comparison import LEVEL, paired, told
from experiments.study import Brief, Line, Results, for_epochs, share
from experiments.viewpoints import FACTORS, OWN, ratio_interval

TITLES = {
    "matrix_capsules": "matrix capsules",
    "efficient_capsnet": "Efficient-CapsNet",
    "hinton_cnn": "CNN of Hinton 2018",
    "efficient_cnn": "CNN with Efficient-CapsNet's convolutions",
}
PAIRS = (
    ("matrix_capsules", "hinton_cnn"),
    ("matrix_capsules", "efficient_cnn"),
    ("efficient_capsnet", "efficient_cnn"),
)
# On smallNORB. Novel viewpoints and the familiar ones that they were matched on; the own split.
REPORTED = {
    "azimuth": {"matrix_capsules": (0.135, 0.037), "hinton_cnn": (0.200, 0.037)},
    "elevation": {"matrix_capsules": (0.123, 0.043), "hinton_cnn": (0.178, 0.043)},
}
PUBLISHED = {
    "matrix_capsules": "2.2 % on smallNORB (small network; large: 1.8 %)",
    "efficient_capsnet": "2.54 % on smallNORB (reported)",
    "hinton_cnn": "5.2 % on smallNORB",
    "efficient_cnn": "5.9 % on smallNORB (another CNN of 198 K parameters)",
}
ALONE = "one iteration of EM (equal coupling)"
NOT_THERE = "not in the paper"
Metrics = Mapping[str, Any]


def matched(errors: Mapping[str, Sequence[float]]) -> epochs.Match:
    """Where two networks are equally good on held-out toys.

    Args:
        errors: of each, after every epoch.

    Returns:
        Their epochs, not the first two: running statistics settle there.
    """
    return epochs.match(errors, first=3)


def lines(results: Results) -> list[Line]:
    """Of the report."""
    found = []
    comparisons = sum(bool(_matched(factor, results, pair)) for factor in FACTORS for pair in PAIRS)
    comparisons += sum(set(pair) <= set(_of(OWN, results)) for pair in PAIRS)
    for factor in FACTORS:
        best = _of(factor, results)
        for name, metrics in best.items():
            reported = REPORTED[factor].get(name)
            found.append(
                Line(
                    f"novel {factor}s of {_named(metrics)}, {TITLES[name]}, best epoch",
                    _reported(*reported) if reported else NOT_THERE,
                    f"novel {_error(metrics['novel'])}, familiar {_error(metrics['familiar'])}, "
                    f"one seed (intervals over images, of {_toys(metrics)} toys)",
                    f"{_described(metrics)}; "
                    f"{share(min(metrics['validation_errors']))} on held-out toys after epoch "
                    f"{metrics['epoch']} of {metrics['epochs']}",
                )
            )
        for pair in PAIRS:
            if of := _matched(factor, results, pair):
                what = f"novel {factor}s, matched"
                found.append(_ratio(what, "novel", of, best, REPORTED[factor], comparisons))
    own = _of(OWN, results)
    for name, metrics in own.items():
        found.append(
            Line(
                f"own split of {_named(metrics)}, {TITLES[name]}",
                PUBLISHED[name],
                f"{_error(metrics['all'])}, one seed (interval over images, of "
                f"{_toys(metrics)} toys)",
                f"{_described(metrics)}, epoch {metrics['epoch']} of {metrics['epochs']}, one toy "
                f"of each category held out, error there by epoch "
                f"{', '.join(f'{100 * error:.0f}' for error in metrics['validation_errors'])} %",
            )
        )
    for pair in PAIRS:
        if set(pair) <= set(own):
            of = {name: own[name] for name in pair}
            found.append(_ratio("own split", "all", of, own, {}, comparisons))
    if "em_forms" in results:
        found.append(_em_forms(results["em_forms"]["metrics"]))
    return found


def _of(split: str, results: Results) -> dict[str, Any]:
    """Metrics of the networks that are there, in the order of the titles."""
    names = {name: f"{split}-{name}" for name in TITLES}
    return {name: results[run]["metrics"] for name, run in names.items() if run in results}


def _matched(split: str, results: Results, pair: tuple[str, str]) -> dict[str, Any]:
    """Metrics of two networks where they are equally good; empty if one was not measured there."""
    best = _of(split, results)
    if not set(pair) <= set(best):
        return {}
    match = matched({name: best[name]["validation_errors"] for name in pair})
    runs = {name: f"{split}-{name}-epoch-{epoch}" for name, epoch in match.epochs.items()}
    if not set(runs.values()) <= set(results):
        return {}
    return {name: results[run]["metrics"] for name, run in runs.items()}


def _named(metrics: Metrics) -> str:
    name = metrics["dataset"]
    return f"{name} (synthetic)" if name == "toy_norb" else name


def _described(metrics: Metrics) -> str:
    """A network's size, and what a single iteration is: no parents are known before it."""
    equal = f", {ALONE}" if metrics.get("iterations") == 1 else ""
    return f"{metrics['parameters']:,} parameters{equal}"


def _toys(metrics: Metrics) -> int:
    return len(metrics["toys"]["values"])


def _error(part: Metrics) -> str:
    return share(part["test_error"], part["test_error_interval_95"])


def _reported(novel: float, familiar: float) -> str:
    return f"{100 * novel:.1f} %, familiar {100 * familiar:.1f} % (reported)"


def _ratio(
    what: str,
    part: str,
    pair: Mapping[str, Metrics],
    best: Mapping[str, Metrics],
    reported: Mapping[str, tuple[float, float]],
    comparisons: int,
) -> Line:
    """Errors of a capsule network for each of a CNN's."""
    first, second = pair.values()
    ratio, low, high = ratio_interval(first["toys"], second["toys"])
    paper = NOT_THERE
    if set(pair) <= set(reported):
        novel = [reported[name][0] for name in pair]
        paper = f"{novel[0] / novel[1]:.2f} (reported); about 30 % fewer"
    elif part == "all" and tuple(pair) == PAIRS[0]:
        paper = f"{2.2 / 5.2:.2f} (small network)"
    errors = " and ".join(_error(each[part]) for each in (first, second))
    why = [_paired(first, second, part, low <= 1 <= high, comparisons)]
    why += [
        f"{TITLES[name]} with {ALONE}, which is no routing by agreement: the paper's with three, "
        "which here learn more slowly (EM's forms), is not tested"
        for name in pair
        if best[name].get("iterations") == 1
    ]
    kept = ""
    if part == "novel":
        held_out = [
            f"{share(best[name]['validation_errors'][each['epoch'] - 1])} (epoch {each['epoch']})"
            for name, each in pair.items()
        ]
        familiar = " and ".join(share(each["familiar"]["test_error"]) for each in pair.values())
        apart = paired([first["familiar"]], [second["familiar"]])
        (test,) = apart.tests
        if apart.differs(LEVEL / comparisons):
            kept = ", where they do not match, so that the ratio is not the viewpoint's alone"
        lost = " and ".join(
            f"{100 * (each['novel']['test_error'] - each['familiar']['test_error']):.1f}"
            for each in pair.values()
        )
        why.append(
            f"on held-out toys {' and '.join(held_out)}; on familiar test views {familiar} (only "
            f"this wrong {test.only_first}, only that {test.only_second}){kept}; from familiar to "
            f"novel they lose {lost} points"
        )
    alone = f", {ALONE}," if best[next(iter(pair))].get("iterations") == 1 else ""
    brief = Brief(
        f"{what.removesuffix(', matched')} of rendered toys: errors of matrix capsules{alone} for "
        "each of a CNN of about the same held-out error"
        + (", not the same on familiar views" if kept else ""),
        paper.partition(";")[0],
        f"{ratio:.2f} ({low:.2f} to {high:.2f})",
    )
    return Line(
        f"{what}, errors of {TITLES[next(iter(pair))]} for each of {TITLES[list(pair)[1]]}",
        paper,
        f"{ratio:.2f} ({low:.2f} to {high:.2f} over {_toys(first)} toys): {errors}",
        "; ".join(why),
        brief if part == "novel" and tuple(pair) == PAIRS[0] else None,
    )


def _paired(first: Metrics, second: Metrics, part: str, either: bool, comparisons: int) -> str:
    """Whether two networks differ, on these images and, as far as the toys say, on others."""
    found = paired([first[part]], [second[part]])
    other = TITLES[second["network"]]
    said = f"on the same images {told(found, other, comparisons=comparisons)}"
    if found.differs(LEVEL / comparisons) and either:
        said += ", but on other toys it may be the other way round"
    return said


def _em_forms(metrics: Metrics) -> Line:
    forms = metrics["forms"]
    said = [
        f"{form['form']} {share(form['validation_errors'][-1])}, "
        f"{1e3 * form['step_seconds']:.0f} ms a step with "
        f"{form['temporaries_bytes'] / 2**20:.0f} MiB of temporaries"
        for form in forms
    ]
    return Line(
        f"EM's forms: held-out error of familiar azimuths after {for_epochs(forms[0]['epochs'])}",
        NOT_THERE,
        "; ".join(said),
        "the same initial parameters, images and steps; the networks above have one iteration",
    )


def draw(results: Results) -> dict[str, Figure]:
    """Errors by angle, errors beside the paper's, and held-out errors by epoch."""
    pictures = {}
    for split in (*FACTORS, OWN):
        best = _of(split, results)
        if not best:
            continue
        for factor in FACTORS if split == OWN else (split,):
            pictures[f"{split}_by_{factor}"] = _by_angle(best, split, factor)
        pictures[f"{split}_errors"] = _errors(best, split)
        if of := split != OWN and _matched(split, results, PAIRS[0]):
            pictures[f"{split}_matched_by_{split}"] = _by_angle(of, split, split)
        longest = max(each["epochs"] for each in best.values())
        pictures[f"{split}_learning"] = figures.curves(
            1 + np.arange(longest),
            {TITLES[name]: _held_out(each, longest) for name, each in best.items()},
            xlabel="epoch",
            ylabel="error on held-out toys (%)",
        )
    return pictures


def _held_out(metrics: Metrics, epochs: int) -> np.ndarray:
    errors = np.array(metrics["validation_errors"])
    return np.pad(100 * errors, (0, epochs - len(errors)), constant_values=np.nan)


def _by_angle(of: Mapping[str, Metrics], split: str, factor: str) -> Figure:
    """What was familiar lies together, azimuth 0 in the middle, and is shaded."""
    series = {}
    for name, metrics in of.items():
        angles, errors, images = (
            np.array(metrics["by"][factor][key]) for key in ("values", "errors", "images")
        )
        if factor == "azimuth":
            angles = (angles + 170) % 360 - 170
        order = np.argsort(angles)
        series[TITLES[name]] = (100 * errors / images)[order]
    figure = figures.curves(
        angles[order], series, xlabel=f"{factor} (degrees)", ylabel="test error (%)"
    )
    axis = figure.axes[0]
    axis.set_ylim(bottom=0)
    if split == factor:
        ends = {"azimuth": (-60, 40), "elevation": (30, 40)}[factor]
        axis.axvspan(*ends, color=figures.GREY, alpha=0.2, label="seen in training", linewidth=0)
        axis.legend(frameon=False)
    return figure


def _errors(of: Mapping[str, Metrics], split: str) -> Figure:
    parts = ("all",) if split == OWN else ("novel", "familiar")
    rows = [(part, name) for part in parts for name in of]
    if split == OWN:
        names = [TITLES[name] for _, name in rows]
        references = {"paper, small network": 0.022, "paper, CNN": 0.052}
    else:
        names = [f"{part}: {TITLES[name]}" for part, name in rows]
        references = {
            f"{said}, novel (reported, smallNORB)": REPORTED[split][name][0]
            for said, name in (("paper, capsules", "matrix_capsules"), ("CNN", "hinton_cnn"))
        }
    return figures.errors(
        [of[name][part]["test_error"] for part, name in rows],
        [of[name][part]["test_error_interval_95"] for part, name in rows],
        names,
        references=references,
    )
