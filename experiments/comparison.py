"""Whether two forms of a network differ: from runs of the same seeds on the same test images.

Over several seeds the differences of each seed's two errors have a Student interval; McNemar's test
asks of every seed's own two networks whether chance explains which images only one gets wrong.
Forms differ if the interval leaves 0 out and most seeds' tests say the same, the same way round.
With one seed there is McNemar's test alone. Of several comparisons in one table each has to pass at
its share of the level (Bonferroni), the interval and the tests alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from capsjax.analysis.statistics import McNemar, mcnemar, mean_interval
from capsjax.routing import random_coupling
from experiments import training

# Of the interval and of McNemar's test.
LEVEL = 0.05

Metrics = dict[str, Any]


class Paired(NamedTuple):
    """How two forms compare, seed by seed.

    Attributes:
        differences: of each seed's two test errors, the first form's less the second's.
        tests: McNemar's of every seed.
    """

    differences: list[float]
    tests: list[McNemar]

    @property
    def difference(self) -> float:
        """Mean over seeds."""
        return math.fsum(self.differences) / len(self.differences)

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Student's of the mean difference; None for one seed."""
        return spread(self.differences, level)[1]

    def agreeing(self, level: float = LEVEL) -> int:
        """How many seeds' own tests find a difference, of the mean one's sign."""
        return sum(
            test.p_value < level and (test.only_first - test.only_second) * self.difference > 0
            for test in self.tests
        )

    def differs(self, level: float = LEVEL) -> bool:
        """Whether the forms are told apart: over seeds, and on the same images by most of them."""
        interval = self.interval(level)
        over_seeds = interval is None or not interval[0] <= 0 <= interval[1]
        return over_seeds and self.agreeing(level) > len(self.tests) / 2


def spread(
    differences: Sequence[float], level: float = LEVEL
) -> tuple[float, tuple[float, float] | None]:
    """Mean of differences, and its interval at a level; None in its place for a single one."""
    return mean_interval(differences, low=-math.inf, high=math.inf, confidence=1 - level)


def drawn_by(seed: int, routing: Any) -> Any:
    """A routing's config for a training from a seed: random couplings are drawn from it, too."""
    return replace(routing, seed=seed) if isinstance(routing, random_coupling.Config) else routing


def paired(first: Sequence[Metrics], second: Sequence[Metrics]) -> Paired:
    """Two forms compared.

    Args:
        first: metrics of the first form's runs, with ``test_error``, ``test_images`` and ``wrong``.
        second: those of the second form, of the same seeds in the same order.

    Returns:
        The differences, with their tests.

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
    tests = [mcnemar(*(training.wrong_images(each) for each in pair)) for pair in pairs]
    return Paired(differences, tests)


def paired_by_seed(first: Mapping[int, Metrics], second: Mapping[int, Metrics]) -> Paired | None:
    """``paired``, of the seeds that both forms were trained from; None if there are none."""
    both = [seed for seed in first if seed in second]
    return paired([first[seed] for seed in both], [second[seed] for seed in both]) if both else None


def told(found: Paired, other: str, *, comparisons: int = 1) -> str:
    """A comparison in words.

    Args:
        found: the comparison.
        other: what the second form is called.
        comparisons: of how many in the same table it is one.
    """
    level = LEVEL / comparisons
    errors = f"{'fewer' if found.difference < 0 else 'more'} errors than {other}"
    if found.differs(level):
        verdict = errors
    elif found.agreeing(level) == len(found.tests) > 1:
        verdict = f"{errors} in each seed's networks, but not told apart over so few seeds"
    else:
        verdict = f"not told apart from {other}"
    verdict += f": {100 * found.difference:+.2f} points"
    among = f", one of {comparisons} comparisons" if comparisons > 1 else ""
    interval = found.interval(level)
    if interval is None:
        (test,) = found.tests
        return (
            f"{verdict}, one seed (only this wrong {test.only_first}, only that "
            f"{test.only_second}; p = {test.p_value:.2g}{among})"
        )
    low, high = (100 * end for end in interval)
    return (
        f"{verdict} ({100 - 100 * level:.3g} %: {low:+.2f} to {high:+.2f}); McNemar p < "
        f"{level:.2g} in {found.agreeing(level)} of {len(found.tests)} seeds{among}"
    )


def against(
    first: Mapping[int, Metrics],
    second: Mapping[int, Metrics],
    other: str,
    *,
    comparisons: int = 1,
) -> str:
    """Whether two forms differ, of the seeds that both were trained from, in words.

    Args:
        first: metrics of the first form's runs by seed.
        second: those of the second form.
        other: what the second form is called.
        comparisons: as for ``told``.

    Returns:
        The words; empty if no seed is of both.
    """
    found = paired_by_seed(first, second)
    return told(found, other, comparisons=comparisons) if found else ""


def compared(first: Metrics, second: Metrics, other: str, *, comparisons: int = 1) -> str:
    """``against`` for two runs of one seed."""
    return told(paired([first], [second]), other, comparisons=comparisons)
