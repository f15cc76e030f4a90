"""Statistics and probes, NumPy's: what is judged on the host is refused on the host."""

import numpy as np

from capsjax.analysis import probes, statistics
from tests.fuzz.judge import Excuse, Row

_RANDOM = np.random.default_rng(0)
_FIRST, _SECOND = np.arange(20) % 3 == 0, np.arange(20) % 4 == 0
_BEFORE, _GROUPS = _RANDOM.normal(size=(20, 3)), np.arange(20) % 2
_FIT = np.arange(20) < 10
_HALVED = {"groups": _GROUPS, "fit": _FIT}
_EMPTY = Excuse("an empty bin has no mean", lambda _: True)


def _row(name: str, function, makes: Excuse | None = None, **valid) -> Row:
    return Row(name, function, valid, compiled=False, makes=makes)


ROWS = [
    _row("wilson_interval", statistics.wilson_interval, errors=3, total=10),
    _row("mean_interval", statistics.mean_interval,
         values=[0.1, 0.2, 0.4], low=0.0, high=1.0, confidence=0.9),
    _row("mcnemar", statistics.mcnemar, first_wrong=_FIRST, second_wrong=_SECOND),
    _row("paired_bootstrap", statistics.paired_bootstrap,
         first_wrong=_FIRST, second_wrong=_SECOND, samples=50, seed=0, level=0.9),
    _row("expected_calibration_error", statistics.expected_calibration_error, _EMPTY,
         confidences=_RANDOM.uniform(size=20), correct=_FIRST, bins=5),
    _row("invariance_error", probes.invariance_error,
         before=_BEFORE, after=_BEFORE + 1, groups=_GROUPS),
    _row("equivariance_error", probes.equivariance_error,
         before=_BEFORE, after=_BEFORE * 2, **_HALVED),
    _row("linear_probes", probes.linear_probes,
         features=_BEFORE, factors={"angle": _BEFORE[:, 0], "two": _BEFORE[:, :2]}, **_HALVED),
    _row("principal_components", probes.principal_components,
         features=_BEFORE, count=2, **_HALVED),
    _row("circular", probes.circular, degrees=np.arange(5.0)),
    _row("halves", probes.halves, count=20, groups=_GROUPS, seed=0),
]  # fmt: skip
