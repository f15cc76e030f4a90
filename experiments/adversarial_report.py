"""Figures and lines of ``hinton18_adversarial``, from its results alone."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from capsjax import figures
from capsjax.analysis.statistics import mcnemar, wilson_interval
from experiments import study, training
from experiments.attacking import pixels_of
from experiments.study import Brief, Line, Results

CAPSULES, CNN, SUBSTITUTE = "capsules", "cnn", "substitute"
_NAMES = {CAPSULES: "capsules", CNN: "CNN"}
_SIGNIFICANT = 0.05
_VOTES, _SHARES = "vote attack", "PGD on shares"
# An attack that uses less of the gradient, and one that should be the stronger for using it. What
# is weak in FGSM and BIM may be their loss; PGD has the margin.
_BLINDER = (
    ("FGSM", "BIM"),
    ("black-box FGSM", "FGSM"),
    ("black-box BIM", "BIM"),
    ("black-box FGSM", "PGD"),
    ("black-box BIM", "PGD"),
    ("vote attack", "PGD on shares"),
)
# What each picture of accuracy has, for both networks.
_PICTURES = {
    "white_box": ("FGSM", "BIM", "PGD"),
    "votes": ("PGD", "PGD on shares", "vote attack"),
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
# In README, at one epsilon.
_TOLD, _SHOWN = ("PGD", "black-box FGSM"), 0.1


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
            if not rows:
                continue
            label = "epsilon (Euclidean)" if picture == "l2" else "epsilon"
            pictures[f"{name}_{picture}"] = _curves(
                [0, *_epsilons(found, attacks)], rows, "accuracy (%)", label
            )
        rows = {
            f"{_NAMES[network]}, {attack}": [each["success"] for each in of]
            for network, metrics in found.items()
            for attack, of in metrics["targeted"].items()
        }
        at = _epsilons(found, _PICTURES["white_box"])
        pictures[f"{name}_targeted"] = _curves(at, rows, "target reached (%)", "epsilon")
        if CAPSULES in found:
            rows = {
                attack: [_told(each) for each in of]
                for attack, of in found[CAPSULES]["attacks"].items()
                if attack != "PGD in L2"
            }
            if "detection" in found[CAPSULES]:
                rows = {**rows, "random signs": _shaken(found[CAPSULES])}
            told = "told by reconstruction (%)"
            pictures[f"{name}_detection"] = _curves(at, rows, told, "epsilon")
        if shown := {n: m["examples"] for n, m in found.items() if "examples" in m}:
            pictures[f"{name}_examples"] = _examples(shown)
    return pictures


def _curves(at: list[float], rows: dict[str, list[float]], ylabel: str, xlabel: str) -> Figure:
    percent = {name: 100 * np.array(row, float) for name, row in rows.items()}
    figure = figures.curves(at, percent, xlabel=xlabel, ylabel=ylabel)
    axis = figure.axes[0]
    axis.set_ylim(-3, 103)
    axis.legend(frameon=False, fontsize=8)
    return figure


def _examples(shown: dict[str, dict[str, Any]]) -> Figure:
    images, captions = [], []
    for network, of in shown.items():
        images.append(pixels_of(of))
        captions += [
            f"{_NAMES[network]}\n{label}" + (f" as {said}" if label != said else "")
            for label, said in zip(of["labels"], of["predictions"], strict=True)
        ]
    epsilon = next(iter(shown.values()))["epsilon"]
    title = f"BIM within {epsilon} of every pixel: class as prediction"
    return figures.contact_sheet(np.concatenate(images), captions, title=title)


def lines(results: Results) -> list[Line]:
    """Of the report."""
    found = []
    for name in _datasets(results):
        attacked = _attacked(name, results)
        if set(attacked) == {CAPSULES, CNN}:
            done = attacked[CNN]["attacks"]
            found.append(_match(name, attacked, results))
            found += [
                _untargeted(name, attack, attacked, results) for attack in _PAPER if attack in done
            ]
            found += _targeted(name, attacked)
            found.append(_masking(name, attacked, _level(attacked)))
        if CAPSULES in attacked:
            found += _of_capsules(name, attacked)
    return found


def _match(name: str, attacked: dict[str, dict[str, Any]], results: Results) -> Line:
    both = [attacked[network] for network in (CAPSULES, CNN)]
    trained = [results[f"{name}_{network}"]["metrics"] for network in (CAPSULES, CNN)]
    epochs = " and ".join(str(each["epoch"]) for each in both)
    errors = " and ".join(study.share(each["validation_error"]) for each in both)
    tests = ", ".join(
        study.share(each["test_error"], each["test_error_interval_95"]) for each in both
    )
    test = mcnemar(*(training.wrong_images(each) for each in both))
    told = "differ" if test.p_value < _SIGNIFICANT else "are not told apart"
    return Line(
        f"{name}: match of capsules ({trained[0]['parameters']:,} parameters with decoder) and CNN "
        f"({trained[1]['parameters']:,}), epochs {epochs} of {trained[0]['epochs']}",
        "similar accuracy",
        f"error on {trained[0]['held_out']} held-out images {errors}; test error {tests}; one "
        f"seed; of the {both[0]['attacked_images']} images that are attacked "
        f"{' and '.join(study.share(each['clean']['accuracy']) for each in both)} right before",
        f"on the test images they {told} (only capsules wrong {test.only_first}, only CNN "
        f"{test.only_second}; p = {test.p_value:.2g})",
    )


def _level(attacked: dict[str, dict[str, Any]]) -> float:
    """Of one test, so that all of the table together have theirs."""
    done = [of["attacks"] for of in attacked.values()]
    tests = 0
    if len(done) == len(_NAMES):
        ours, theirs = done
        tests = sum(len(of) for name, of in ours.items() if name in _PAPER and name in theirs)
        tests += len(ours[_VOTES]) if _VOTES in ours and "PGD" in theirs else 0
    tests += sum(len(of[own]) for of in done for other, own in _BLINDER if {other, own} <= set(of))
    return _SIGNIFICANT / max(tests, 1)


def _untargeted(
    name: str, attack: str, attacked: dict[str, dict[str, Any]], results: Results
) -> Line:
    capsules, cnn = (attacked[network]["attacks"][attack] for network in (CAPSULES, CNN))
    images, level = attacked[CAPSULES]["attacked_images"], _level(attacked)
    better = {
        CAPSULES: _stronger(cnn, capsules, images, level),
        CNN: _stronger(capsules, cnn, images, level),
    }
    told = [f"{_NAMES[n]} better at {', '.join(at)}" for n, at in better.items() if at]
    widest = 100 * (wilson_interval(images // 2, images)[1] - 0.5)
    why = (
        f"{images} test images (each number within {widest:.1f} points), one seed; "
        f"{'; '.join(told) or 'not told apart at any epsilon'} (McNemar, p below {level:.2g})"
    )
    if attack.startswith("black-box"):
        of = results[f"{name}_{SUBSTITUTE}"]["metrics"]
        why += (
            f"; made on the paper's CNN ({of['parameters']:,} parameters, "
            f"{study.for_epochs(of['epochs'])}, test error {study.share(of['test_error'])})"
        )
    return Line(
        f"{name}: accuracy under {attack}, epsilon {_list(capsules, 'epsilon', 1)}",
        _PAPER[attack],
        f"capsules {_list(capsules, 'accuracy')}; CNN {_list(cnn, 'accuracy')} %",
        why,
        _brief(
            f"{name}: accuracy under {attack}, capsules against a CNN",
            _PAPER[attack],
            capsules,
            cnn,
            images,
        )
        if attack in _TOLD
        else None,
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


def _masking(name: str, attacked: dict[str, dict[str, Any]], level: float) -> Line:
    found = {network: of["gradients"] for network, of in attacked.items()}
    ours = "; ".join(
        f"{_NAMES[network]} {study.share(of['zeros'])} zeros, magnitude {of['magnitude']:.2g}, "
        f"none at all for {study.share(of['lost'])} of the images"
        for network, of in found.items()
    )
    unseen = " and ".join(study.share(of["unseen"]) for of in found.values())
    why = (
        f"at test images, zeros of the pixels that any gradient reaches (all but {unseen}: strides "
        "leave edges off); magnitudes are of lengths and of logits. Where something hides the "
        "gradient, an attack that uses less of it hurts more"
    )
    for network, of in attacked.items():
        attacks = of["attacks"]
        hidden = [
            f"{other} more than {own} at {', '.join(at)}"
            for other, own in _BLINDER
            if {other, own} <= set(attacks)
            and (at := _stronger(attacks[other], attacks[own], of["attacked_images"], level))
        ]
        why += f"; {_NAMES[network]}: {', '.join(hidden) or 'none do'}"
    return Line(
        f"{name}: gradient of the margin with respect to the image",
        "not masked: exact zeros no more than the CNN's (reported), magnitude 2 orders smaller",
        ours,
        f"{why} (McNemar, p below {level:.2g})",
    )


def _brief(
    claim: str,
    paper: str,
    first: list[dict[str, Any]],
    second: list[dict[str, Any]],
    images: int,
) -> Brief | None:
    """At the one epsilon that README shows."""
    at = [each for each in zip(first, second, strict=True) if each[0]["epsilon"] == _SHOWN]
    if not at:
        return None
    shares = " against ".join(
        study.share(each["accuracy"], wilson_interval(round(each["accuracy"] * images), images))
        for each in at[0]
    )
    return Brief(f"{claim} ({_SHOWN} of a pixel's range)", paper, shares)


def _stronger(
    attack: list[dict[str, Any]], other: list[dict[str, Any]], images: int, level: float
) -> list[str]:
    """At which epsilons an attack leaves fewer images right than another does."""
    found = []
    for ours, theirs in zip(attack, other, strict=True):
        wrong = (training.wrong_images({**each, "test_images": images}) for each in (ours, theirs))
        test = mcnemar(*wrong)
        if test.p_value < level and test.only_first > test.only_second:
            found.append(f"{ours['epsilon']:g}")
    return found


def _of_capsules(name: str, attacked: dict[str, dict[str, Any]]) -> Iterator[Line]:
    metrics, level = attacked[CAPSULES], _level(attacked)
    attacks, images = metrics["attacks"], metrics["attacked_images"]
    if {_VOTES, _SHARES} <= set(attacks):
        votes, pgd = attacks[_VOTES], attacks[_SHARES]
        stronger = _stronger(votes, pgd, images, level)
        weaker = _stronger(pgd, votes, images, level)
        beside = ""
        if CNN in attacked and "PGD" in (of_cnn := attacked[CNN]["attacks"]):
            apart = [
                *_stronger(votes, of_cnn["PGD"], images, level),
                *_stronger(of_cnn["PGD"], votes, images, level),
            ]
            beside = (
                f"; beside the CNN under PGD ({_list(of_cnn['PGD'], 'accuracy')} %) "
                f"{'differs at ' + ', '.join(apart) if apart else 'not told apart at any epsilon'}"
            )
        yield Line(
            f"{name}: accuracy of capsules under the vote attack, epsilon "
            f"{_list(votes, 'epsilon', 1)}",
            "stronger than PGD through the routing (reported; dynamic routing, CIFAR-10)",
            f"{_list(votes, 'accuracy')}; PGD with the same loss after the routing "
            f"{_list(pgd, 'accuracy')} %",
            f"same steps and starts; stronger at {', '.join(stronger) or 'no epsilon'}, weaker at "
            f"{', '.join(weaker) or 'none'}{beside} (McNemar, p below {level:.2g}); the source's "
            "routing has three passes, this has one",
            _brief(
                f"{name}: accuracy of capsules under the vote attack, against PGD with the same "
                "loss",
                "stronger than PGD (reported)",
                votes,
                pgd,
                images,
            ),
        )
    if "detection" in metrics:
        detection = metrics["detection"]
        alarms = study.share(detection["false_alarms"], detection["false_alarms_interval_95"])
        told = "; ".join(
            f"{attack} " + ", ".join(_percent(each["told"], each["successful"]) for each in of)
            for attack, of in attacks.items()
        )
        failed = ", ".join(
            _percent(each["withstood_told"], each["withstood"]) for each in attacks.get("BIM", ())
        )
        fewest = min(each["successful"] for of in attacks.values() for each in of)
        claimed = [each for attack in ("FGSM", "BIM") for each in attacks.get(attack, ())]
        most = all(2 * each["told"] > each["successful"] for each in claimed)
        noise = ", ".join(f"{100 * each['told']:.0f}" for each in detection["shaken"])
        yield Line(
            f"{name}: successful attacks told by the winning capsule's reconstruction, by epsilon "
            "from the least",
            "most of FGSM and BIM (reported; Frosst 2018)",
            f"{told} %; false alarms on clean test images {alarms}",
            f"threshold: 95 % of {detection['held_out_images']} held-out images are nearer; the "
            "attacks do not know of the detector. The change itself is part of the distance: of "
            f"images with random signs of the same size {noise} % are told, of those that "
            f"withstood BIM {failed + ' %' if failed else 'none tried'}. Of {fewest} to {images} "
            f"attacks each; {'reproduced: most' if most else 'not reproduced: not most'} of FGSM "
            "and BIM are told at every epsilon",
        )


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.0f}" if total else "-"


def _shaken(metrics: dict[str, Any]) -> list[float]:
    return [each["told"] for each in metrics["detection"]["shaken"]]


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


def _epsilons(found: dict[str, dict[str, Any]], attacks: Sequence[str]) -> list[float]:
    """Those that the attacks share."""
    for metrics in found.values():
        for attack in set(attacks) & set(metrics["attacks"]):
            return [each["epsilon"] for each in metrics["attacks"][attack]]
    return []
