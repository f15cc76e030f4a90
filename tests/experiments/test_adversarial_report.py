"""What the adversarial experiment's report says, from results that are made up."""

from typing import Any

import numpy as np

from experiments import adversarial_report, training

IMAGES = 200


def _attack(*wrong: int) -> list[dict[str, Any]]:
    """The first so many images wrong, for each epsilon."""
    return [
        {
            "epsilon": epsilon,
            "accuracy": 1 - count / IMAGES,
            "wrong": training.packed(np.arange(IMAGES) < count),
        }
        for epsilon, count in zip((0.1, 0.2), wrong, strict=True)
    ]


def _results(**attacks: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a capsule network with these attacks, and of a CNN that FGSM and BIM take alike."""
    gradients = {"zeros": 0.0, "magnitude": 1.0, "lost": 0.0, "unseen": 0.0}
    shared = {
        "dataset": "mnist",
        "epoch": 1,
        "validation_error": 0.01,
        "test_error": 0.01,
        "test_error_interval_95": [0.0, 0.02],
        "test_images": IMAGES,
        "wrong": training.packed(np.zeros(IMAGES, bool)),
        "attacked_images": IMAGES,
        "clean": {"accuracy": 1.0},
        "gradients": gradients,
        "targeted": {},
    }
    trained = {"dataset": "mnist", "parameters": 1, "epochs": 1, "held_out": 10}
    cnn = {"FGSM": _attack(10, 100), "BIM": _attack(20, 110)}
    return {
        "mnist_capsules": {"metrics": trained},
        "mnist_cnn": {"metrics": trained},
        "mnist_capsules_attacked": {
            "metrics": {**shared, "network": "capsules", "attacks": attacks}
        },
        "mnist_cnn_attacked": {"metrics": {**shared, "network": "cnn", "attacks": cnn}},
    }


def test_a_weaker_attack_that_hurts_more_tells_of_a_hidden_gradient():
    results = _results(FGSM=_attack(10, 100), BIM=_attack(20, 60))
    (line,) = [each for each in adversarial_report.lines(results) if "gradient" in each.what]
    # Of 8 tests: both attacks on one network against those on the other at two epsilons, and FGSM
    # against BIM on each.
    assert line.why.endswith(
        "capsules: FGSM more than BIM at 0.2; CNN: none do (McNemar, p below 0.0063)"
    )
