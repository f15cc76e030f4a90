"""What results can be said to show: intervals, paired tests, calibration.

NumPy and float64, called once on results that are in. A single run's error has Wilson's interval;
several seeds have a mean with Student's. Whether two networks differ on the same images is asked
of these images one by one: McNemar's test and the paired bootstrap look at those that only one of
the two gets wrong, and the images that are hard for both drop out.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer
from numpy.typing import ArrayLike
from scipy.special import bdtr, stdtrit

from capsjax import checks


class McNemar(NamedTuple):
    """What McNemar's test says of two networks.

    Attributes:
        only_first: images that the first gets wrong and the second right.
        only_second: images that the second gets wrong and the first right.
        p_value: probability of a division at least as uneven, if both were equally good.
    """

    only_first: int
    only_second: int
    p_value: float


class Difference(NamedTuple):
    """A difference of two error rates and its interval.

    Attributes:
        difference: the first's error rate less the second's.
        low: the interval's lower end.
        high: its upper end.
    """

    difference: float
    low: float
    high: float


class Calibration(NamedTuple):
    """How far confidences are from the share that is right, in all and by bin.

    Bin k of n holds confidences above ``k / n`` and up to ``(k + 1) / n``; the first holds 0 too.

    Attributes:
        error: the expected calibration error, in [0, 1].
        counts: predictions in each bin.
        confidence: their mean confidence; NaN in an empty bin.
        accuracy: the share of them that is right; NaN in an empty bin.
    """

    error: float
    counts: Integer[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, " bins"]


@checks.arguments(nan=True)
def wilson_interval(errors: int, total: int) -> tuple[float, float]:
    """95 % Wilson score interval of an error rate.

    Args:
        errors: wrong predictions.
        total: all predictions.

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: ``errors`` is not between 0 and ``total``, or ``total`` is 0.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Example:
        >>> [round(end, 4) for end in wilson_interval(25, 10_000)]
        [0.0017, 0.0037]
    """
    if not 0 <= errors <= total or total < 1:
        raise ValueError(f"{errors} errors of {total}, expected 0 <= errors <= total, total >= 1")
    z = 1.959963984540054  # the standard normal's 97.5 % quantile
    rate, spread = errors / total, z * z / total
    centre = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / total + spread / (4 * total)) / (1 + spread)
    # At the ends rounding would leave 1e-17 where the interval is exact.
    return centre - half if errors else 0.0, centre + half if errors < total else 1.0


@checks.arguments(nan=True)
def mean_interval(
    values: ArrayLike, *, low: float = 0.0, high: float = 1.0, confidence: float = 0.95
) -> tuple[float, tuple[float, float] | None]:
    """Mean of values, such as the errors of several seeds, and where it lies with some confidence.

    Args:
        values: at least one, each in [low, high].
        low: the least that a value can be, ``-math.inf`` for no bound; the default is for shares.
        high: the largest that a value can be, ``math.inf`` for no bound.
        confidence: of the interval, between 0 and 1.

    Returns:
        Their mean, and both ends of its Student t interval, cut off at ``low`` and ``high``; None
        in their place for a single value.

    Raises:
        ValueError: no values, one that is no finite number or out of bounds, or a confidence
            that is not between 0 and 1.

    Source: Student 1908, "The probable error of a mean".

    Example:
        >>> mean, interval = mean_interval([0.02, 0.03, 0.04])
        >>> round(mean, 4), [round(end, 4) for end in interval]
        (0.03, [0.0052, 0.0548])
        >>> mean, interval = mean_interval([98.0, 103.0], low=0, high=math.inf)  # seconds
        >>> round(mean, 4), [round(end, 4) for end in interval]
        (100.5, [68.7345, 132.2655])
    """
    array = checks.floats("values", values)
    if array.ndim != 1:
        raise ValueError(f"values is {checks.shown(values)}, expected a list of numbers")
    count = len(array)
    if count < 1:
        raise ValueError("no values, expected at least one")
    for value in array.tolist():
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(
                f"a value is {value}, expected a finite number from {low} to {high}: give low and "
                "high for values that are not shares"
            )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number between 0 and 1")
    mean = math.fsum(array) / count
    if count == 1:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in array) / (count - 1)
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * math.sqrt(variance / count)
    return mean, (max(mean - half, low), min(mean + half, high))


@checks.arguments(nan=True)
def mcnemar(first_wrong: ArrayLike, second_wrong: ArrayLike) -> McNemar:
    """Whether two networks differ on the same images: McNemar's test, exact and two-sided.

    Of the images that only one gets wrong, as many should fall to either if both are equally good:
    the smaller number is binomial with probability 1/2.

    Args:
        first_wrong: bool ``[N]``, which images the first network gets wrong.
        second_wrong: the same of the second, in the same order.

    Returns:
        How many images only one of the two gets wrong, and the p-value; it is 1 if there are none.

    Raises:
        ValueError: no images, arrays that are not bool, or shapes that differ.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated
    proportions or percentages"; the exact distribution in place of his chi-squared.

    Example:
        >>> mcnemar([True, False, False, False, True], [True, True, True, True, False])
        McNemar(only_first=1, only_second=3, p_value=0.625)
    """
    only_first, only_second, _ = _disagreements(first_wrong, second_wrong)
    together = only_first + only_second
    tail = float(bdtr(min(only_first, only_second), together, 0.5))
    return McNemar(only_first, only_second, min(1.0, 2 * tail))


@checks.arguments(nan=True)
def paired_bootstrap(
    first_wrong: ArrayLike,
    second_wrong: ArrayLike,
    *,
    samples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Difference of two error rates on the same images, and its percentile bootstrap interval.

    A resampled set of images counts only through how many of it are wrong with the first alone, the
    second alone, or neither alone, so that these three numbers are drawn (they are multinomial) and
    no image is. Where the networks never disagree the interval has no width: what was not seen once
    is never drawn.

    Args:
        first_wrong: bool ``[N]``, which images the first network gets wrong.
        second_wrong: the same of the second, in the same order.
        samples: how many sets to draw.
        seed: of the draws. Swapping the networks swaps the ends and their signs.
        level: of the interval, between 0 and 1.

    Returns:
        First less second, with the interval.

    Raises:
        ValueError: no images, arrays that are not bool, shapes that differ, no samples, or a level
            that is not between 0 and 1.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife"; Efron and Tibshirani
    1993, "An introduction to the bootstrap", section 13.3 (percentile interval).

    Example:
        >>> first, second = np.arange(1_000) < 40, np.arange(1_000) < 25  # 15 only with the first
        >>> difference, low, high = paired_bootstrap(first, second)
        >>> print(difference, 0.007 < low < 0.009, 0.022 < high < 0.024)
        0.015 True True
    """
    only_first, only_second, total = _disagreements(first_wrong, second_wrong)
    if samples < 1:
        raise ValueError(f"samples is {samples}, expected at least 1")
    checks.sizes(samples=samples, most=10**7)
    checks.seed(seed)
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a number between 0 and 1, such as 0.95")
    # The larger first, so that the same sets are drawn when the networks are swapped.
    more, fewer = max(only_first, only_second), min(only_first, only_second)
    shares = np.array([more, fewer, total - more - fewer]) / total
    drawn = np.random.default_rng(seed).multinomial(total, shares, size=samples)
    differences = (drawn[:, 0] - drawn[:, 1]) / total
    if only_first < only_second:
        differences = -differences
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return Difference((only_first - only_second) / total, float(low), float(high))


@checks.arguments(nan=True)
def expected_calibration_error(
    confidences: ArrayLike, correct: ArrayLike, bins: int = 15
) -> Calibration:
    r"""Expected calibration error over bins of equal width, and a reliability diagram's numbers.

    .. math:: \sum_k \frac{n_k}{N} |\mathrm{accuracy}_k - \mathrm{confidence}_k|

    A network that is right in 80 % of what it gives 0.8 has none. What counts as confidence is the
    caller's to say: the largest probability, or the longest capsule's length.

    Args:
        confidences: float ``[N]`` in [0, 1], of what was predicted.
        correct: bool ``[N]``, whether it was right.
        bins: how many.

    Returns:
        The error, and for each bin the count, mean confidence and accuracy.

    Raises:
        ValueError: no predictions, shapes that differ, ``correct`` that is not bool, a confidence
            that is NaN or outside [0, 1], or no bins.

    Source: Naeini, Cooper and Hauskrecht 2015, "Obtaining well calibrated probabilities using
    Bayesian binning"; Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural
    networks", section 2 (15 bins in its experiments).

    Example:
        >>> found = expected_calibration_error([0.9, 0.9, 0.3], [True, False, False], bins=2)
        >>> round(found.error, 4), found.counts.tolist(), found.accuracy.tolist()
        (0.3667, [1, 2], [0.0, 0.5])
    """
    sure, right = checks.floats("confidences", confidences), _as_bool("correct", correct)
    if sure.shape != right.shape or sure.ndim != 1 or not len(sure):
        raise ValueError(
            f"confidences have shape {sure.shape} and correct {right.shape}, expected [N] for "
            "both, of at least one prediction"
        )
    if not ((sure >= 0) & (sure <= 1)).all():  # false for NaN as well
        wrong = sure[~((sure >= 0) & (sure <= 1))][0]
        raise ValueError(f"a confidence is {wrong}, expected all in [0, 1]")
    if bins < 1:
        raise ValueError(f"bins is {bins}, expected at least 1")
    checks.sizes(bins=bins)
    which = np.searchsorted(np.arange(1, bins + 1) / bins, sure)
    counts = np.bincount(which, minlength=bins)
    some = np.where(counts, counts, np.nan)
    confidence = np.bincount(which, sure, bins) / some
    accuracy = np.bincount(which, right, bins) / some
    gaps = np.abs(accuracy - confidence)
    error = float(np.nansum(counts * gaps) / len(sure))
    return Calibration(error, counts, confidence, accuracy)


def _disagreements(first_wrong: ArrayLike, second_wrong: ArrayLike) -> tuple[int, int, int]:
    """Images that only the first, and only the second, gets wrong, and all images."""
    first, second = _as_bool("first_wrong", first_wrong), _as_bool("second_wrong", second_wrong)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(
            f"first_wrong has shape {first.shape} and second_wrong {second.shape}, expected [N] "
            "for both, of at least one image"
        )
    return int((first & ~second).sum()), int((second & ~first).sum()), len(first)


def _as_bool(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.size and array.dtype != bool:
        raise ValueError(
            f"{name} has dtype {array.dtype}, expected bool: compare predictions with labels"
        )
    return array.astype(bool)
