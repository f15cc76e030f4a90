"""Whether two forms of a network differ: from runs of the same seeds on the same test images.

Over several seeds the differences of each seed's two errors have a Student interval; McNemar's test
asks of every seed's own two networks whether chance explains which images only one gets wrong.
Forms differ if the interval leaves 0 out and most seeds' tests agree. With one seed there is
McNemar's test alone.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from capsjax.analysis.statistics import mcnemar, mean_interval
from capsjax.routing import random_coupling
from experiments import training

# Of McNemar's test, as wide as the intervals' 95 %.
LEVEL = 0.05

Metrics = dict[str, Any]


class Paired(NamedTuple):
    """How two forms compare, seed by seed.

    Attributes:
        difference: mean over seeds of the first's test error less the second's.
        interval: its Student interval; None for one seed.
        p_values: McNemar's of every seed.
    """

    difference: float
    interval: tuple[float, float] | None
    p_values: list[float]

    @property
    def differs(self) -> bool:
        """Whether the forms are told apart: over seeds, and on the same images by most of them."""
        on_images = sum(p < LEVEL for p in self.p_values) > len(self.p_values) / 2
        if self.interval is None:
            return on_images
        return on_images and not self.interval[0] <= 0 <= self.interval[1]


def drawn_by(seed: int, routing: Any) -> Any:
    """A routing's config for a training from a seed: random couplings are drawn from it, too."""
    return replace(routing, seed=seed) if isinstance(routing, random_coupling.Config) else routing


def paired(first: Sequence[Metrics], second: Sequence[Metrics]) -> Paired:
    """Two forms compared.

    Args:
        first: metrics of the first form's runs, with ``test_error``, ``test_images`` and ``wrong``.
        second: those of the second form, of the same seeds in the same order.

    Returns:
        The difference, with its interval and tests.

    Raises:
        ValueError: no runs, or another number of them.
    """
    if not first or len(first) != len(second):
        raise ValueError(
            f"{len(first)} runs of the first form and {len(second)} of the second, expected as "
            "many of both, at least one"
        )
    pairs = list(zip(first, second, strict=True))
    differences = [one["test_error"] - other["test_error"] for one, other in pairs]
    mean, interval = mean_interval(differences, low=-math.inf, high=math.inf)
    tests = [mcnemar(*(training.wrong_images(each) for each in pair)) for pair in pairs]
    return Paired(mean, interval, [test.p_value for test in tests])


def told(found: Paired, other: str) -> str:
    """A comparison in words.

    Args:
        found: the comparison.
        other: what the second form is called.
    """
    if not found.differs:
        verdict = f"not told apart from {other}"
    else:
        verdict = f"{'fewer' if found.difference < 0 else 'more'} errors than {other}"
    points = f"{100 * found.difference:+.2f} points"
    if found.interval is None:
        return f"{verdict}: {points}, one seed, McNemar p = {found.p_values[0]:.2g}"
    low, high = (100 * end for end in found.interval)
    small = sum(p < LEVEL for p in found.p_values)
    return (
        f"{verdict}: {points} ({low:+.2f} to {high:+.2f}); McNemar p < {LEVEL} in {small} of "
        f"{len(found.p_values)} seeds"
    )
