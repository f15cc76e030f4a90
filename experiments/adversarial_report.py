"""Figures and lines of ``hinton18_adversarial``, from its results alone."""

import base64
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from capsjax import figures
from capsjax.analysis.statistics import mcnemar
from experiments import study, training
from experiments.study import Line, Results

CAPSULES, CNN = "capsules", "cnn"
_NAMES = {CAPSULES: "capsules", CNN: "CNN"}
_SIGNIFICANT = 0.05
# What each picture of accuracy has, for both networks.
_PICTURES = {
    "white_box": ("FGSM", "BIM", "PGD", "vote attack"),
    "l2": ("PGD in L2",),
    "black_box": ("black-box FGSM", "black-box BIM"),
}
_PAPER = {
    "FGSM": "capsules never below chance, CNN far below it from epsilon 0.2 on (EM, smallNORB)",
    "BIM": "capsules much less vulnerable (reported; EM, smallNORB)",
    "PGD": "none",
    "PGD in L2": "none",
    "black-box FGSM": "capsules no better than a CNN (EM, smallNORB)",
    "black-box BIM": "capsules no better than a CNN (reported; EM, smallNORB)",
}


def draw(results: Results) -> dict[str, Figure]:
    """Accuracy, success and detection by epsilon; attacked images."""
    pictures = {}
    for name in _datasets(results):
        found = _attacked(name, results)
        if not found:
            continue
        for picture, attacks in _PICTURES.items():
            rows = {
                f"{_NAMES[network]}, {attack}": [
                    metrics["clean"]["accuracy"],
                    *(each["accuracy"] for each in metrics["attacks"][attack]),
                ]
                for attack in attacks
                for network, metrics in found.items()
                if attack in metrics["attacks"]
            }
            epsilons = [0, *_epsilons(found, attacks[0])]
            label = "epsilon (Euclidean)" if picture == "l2" else "epsilon"
            pictures[f"{name}_{picture}"] = _curves(epsilons, rows, "accuracy (%)", label)
        rows = {
            f"{_NAMES[network]}, {attack}": [each["success"] for each in of]
            for network, metrics in found.items()
            for attack, of in metrics["targeted"].items()
        }
        at = _epsilons(found, "FGSM")
        pictures[f"{name}_targeted"] = _curves(at, rows, "target reached (%)", "epsilon")
        if CAPSULES in found:
            rows = {
                attack: [_told(each) for each in of]
                for attack, of in found[CAPSULES]["attacks"].items()
                if attack != "PGD in L2"
            }
            told = "successful attacks told by reconstruction (%)"
            pictures[f"{name}_detection"] = _curves(at, rows, told, "epsilon")
        if shown := {n: m["examples"] for n, m in found.items() if "examples" in m}:
            pictures[f"{name}_examples"] = _examples(shown)
    return pictures


def _curves(at: list[float], rows: dict[str, list[float]], ylabel: str, xlabel: str) -> Figure:
    percent = {name: 100 * np.array(row, float) for name, row in rows.items()}
    figure = figures.curves(at, percent, xlabel=xlabel, ylabel=ylabel)
    figure.axes[0].set_ylim(-3, 103)
    return figure


def _examples(shown: dict[str, dict[str, Any]]) -> Figure:
    images, captions = [], []
    for network, of in shown.items():
        pixels = zlib.decompress(base64.b64decode(of["pixels"]))
        images.append(np.frombuffer(pixels, np.uint8).reshape(of["shape"]))
        captions += [
            f"{_NAMES[network]}: {label} as {said}"
            if label != said
            else f"{_NAMES[network]}: {label}"
            for label, said in zip(of["labels"], of["predictions"], strict=True)
        ]
    epsilon = next(iter(shown.values()))["epsilon"]
    title = f"PGD within {epsilon} of every pixel: class as prediction"
    return figures.contact_sheet(np.concatenate(images), captions, title=title)


def lines(results: Results) -> list[Line]:
    """Of the report."""
    found = []
    for name in _datasets(results):
        attacked = _attacked(name, results)
        found += _match(name, results)
        if set(attacked) == {CAPSULES, CNN}:
            found += [_untargeted(name, attack, attacked) for attack in _PAPER]
            found += _targeted(name, attacked)
            found.append(_masking(name, attacked))
        if CAPSULES in attacked:
            found += _of_capsules(name, attacked[CAPSULES])
    return found


def _match(name: str, results: Results) -> Iterator[Line]:
    both = [results.get(f"{name}_{network}") for network in (CAPSULES, CNN)]
    if not all(both):
        return
    capsules, cnn = (each["metrics"] for each in both)
    errors = " and ".join(study.share(each["validation_error"]) for each in (capsules, cnn))
    tests = ", ".join(
        study.share(each["test_error"], each["test_error_interval_95"]) for each in (capsules, cnn)
    )
    test = mcnemar(*(training.wrong_images(each) for each in (capsules, cnn)))
    told = "differ" if test.p_value < _SIGNIFICANT else "are not told apart"
    yield Line(
        f"{name}: match of capsules ({capsules['parameters']:,} parameters with decoder) and CNN "
        f"({cnn['parameters']:,}), {capsules['epochs']} epochs of both",
        "similar accuracy",
        f"error on {capsules['held_out']} held-out images {errors}; test error {tests}; one seed",
        f"on the test images they {told} (only capsules wrong {test.only_first}, only CNN "
        f"{test.only_second}; p = {test.p_value:.2g})",
    )


def _untargeted(name: str, attack: str, attacked: dict[str, dict[str, Any]]) -> Line:
    capsules, cnn = (attacked[network]["attacks"][attack] for network in (CAPSULES, CNN))
    images = attacked[CAPSULES]["attacked_images"]
    level = _SIGNIFICANT / len(capsules)
    better: dict[str, list[str]] = {CAPSULES: [], CNN: []}
    for ours, theirs in zip(capsules, cnn, strict=True):
        wrong = (training.wrong_images({**each, "test_images": images}) for each in (ours, theirs))
        only_ours, only_theirs, p = mcnemar(*wrong)
        if p < level:
            better[CAPSULES if only_ours < only_theirs else CNN].append(f"{ours['epsilon']:g}")
    told = [f"{_NAMES[n]} better at {', '.join(at)}" for n, at in better.items() if at]
    return Line(
        f"{name}: accuracy under {attack}, epsilon {_list(capsules, 'epsilon', 1)}",
        _PAPER[attack],
        f"capsules {_list(capsules, 'accuracy')}; CNN {_list(cnn, 'accuracy')} %",
        f"{images} test images, one seed; {'; '.join(told) or 'not told apart at any epsilon'} "
        f"(McNemar, p below {level:.2g})",
    )


def _targeted(name: str, attacked: dict[str, dict[str, Any]]) -> Iterator[Line]:
    for attack, capsules in attacked[CAPSULES]["targeted"].items():
        cnn = attacked[CNN]["targeted"][attack]
        yield Line(
            f"{name}: success of targeted {attack}, mean over all wrong classes, epsilon "
            f"{_list(capsules, 'epsilon', 1)}",
            "lower for capsules (EM, smallNORB)",
            f"capsules {_list(capsules, 'success')}; CNN {_list(cnn, 'success')} %",
            f"{capsules[0]['pairs']} pairs of image and target; those of an image hang together, "
            "so that no test is made",
        )


def _masking(name: str, attacked: dict[str, dict[str, Any]]) -> Line:
    ours = "; ".join(
        f"{_NAMES[n]} {study.share(of['gradients']['zeros'])} zeros, magnitude "
        f"{of['gradients']['magnitude']:.2g}"
        for n, of in attacked.items()
    )
    last = {n: of["attacks"]["PGD"][-1] for n, of in attacked.items()}
    box = {n: of["attacks"]["black-box BIM"][-1] for n, of in attacked.items()}
    left = " and ".join(f"{100 * last[n]['accuracy']:.1f}" for n in attacked)
    other = " and ".join(f"{100 * box[n]['accuracy']:.1f}" for n in attacked)
    hidden = [_NAMES[n] for n in attacked if last[n]["accuracy"] > box[n]["accuracy"]]
    told = (
        f"it hides something from the attacks on {' and '.join(hidden)}, which another network's "
        "images hurt more than its own gradient"
        if hidden
        else "its own gradient hurts each network more than another's images: none is masked"
    )
    return Line(
        f"{name}: gradient of the attacked loss with respect to the image",
        "not masked: exact zeros as rare as the CNN's (reported), magnitude 2 orders smaller",
        ours,
        f"at epsilon {last[CAPSULES]['epsilon']:g} PGD leaves an accuracy of {left} %, black-box BIM "
        f"{other} %; {told}",
    )


def _of_capsules(name: str, metrics: dict[str, Any]) -> Iterator[Line]:
    attacks, images = metrics["attacks"], metrics["attacked_images"]
    if "vote attack" in attacks:
        votes, pgd = attacks["vote attack"], attacks["PGD"]
        level = _SIGNIFICANT / len(votes)
        tests = [
            mcnemar(*(training.wrong_images({**m, "test_images": images}) for m in each))
            for each in zip(votes, pgd, strict=True)
        ]
        stronger = [
            f"{vote['epsilon']:g}"
            for vote, test in zip(votes, tests, strict=True)
            if test.p_value < level and test.only_first > test.only_second
        ]
        yield Line(
            f"{name}: accuracy of capsules under the vote attack, epsilon "
            f"{_list(votes, 'epsilon', 1)}",
            "stronger than PGD through the routing (reported; dynamic routing, CIFAR-10)",
            f"{_list(votes, 'accuracy')}; PGD {_list(pgd, 'accuracy')} %",
            f"same steps and starts; stronger at {', '.join(stronger) or 'no epsilon'} (McNemar, p "
            f"below {level:.2g}); self-attention routing has one pass, through which little is lost",
        )
    if "detection" in metrics:
        detection = metrics["detection"]
        alarms = study.share(detection["false_alarms"], detection["false_alarms_interval_95"])
        told = "; ".join(
            f"{attack} " + ", ".join(f"{each['told']} of {each['successful']}" for each in of)
            for attack, of in attacks.items()
        )
        yield Line(
            f"{name}: successful attacks told by the winning capsule's reconstruction, by epsilon "
            "from the least",
            "most of FGSM and BIM (reported; Frosst 2018)",
            f"{told}; false alarms on clean test images {alarms}",
            f"threshold: 95 % of {detection['held_out_images']} held-out images are nearer; the "
            "attacks do not know of the detector",
        )


def _list(of: list[dict[str, Any]], key: str, scale: int = 100) -> str:
    return ", ".join(f"{scale * each[key]:.{1 if scale > 1 else 2}f}" for each in of)


def _told(each: dict[str, Any]) -> float:
    return each["told"] / each["successful"] if each["successful"] else np.nan


def _datasets(results: Results) -> list[str]:
    return list(dict.fromkeys(each["metrics"]["dataset"] for each in results.values()))


def _attacked(name: str, results: Results) -> dict[str, dict[str, Any]]:
    """Metrics of the attacks by network, of those that are there."""
    runs = {network: results.get(f"{name}_{network}_attacked") for network in _NAMES}
    return {network: run["metrics"] for network, run in runs.items() if run is not None}


def _epsilons(found: dict[str, dict[str, Any]], attack: str) -> list[float]:
    first = next(iter(found.values()))
    return [each["epsilon"] for each in first["attacks"][attack]]
