"""Intervals, paired tests and calibration: tables, root finding, counting, enumeration, SciPy."""

import math
import statistics as stdlib
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from capsjax.analysis import statistics

WRONG = st.integers(1, 60).flatmap(
    lambda n: st.tuples(*[st.lists(st.booleans(), min_size=n, max_size=n)] * 2)
)


def wrong(only_first, only_second, both=0, neither=0):
    """Two networks' mistakes with these counts."""
    first = [True] * only_first + [False] * only_second + [True] * both + [False] * neither
    second = [False] * only_first + [True] * only_second + [True] * both + [False] * neither
    return np.array(first), np.array(second)


def wilson_by_bisection(errors, total):
    """The rates p with |errors / total - p| = z * sqrt(p * (1 - p) / total)."""
    rate, z = errors / total, stdlib.NormalDist().inv_cdf(0.975)

    def root(inside, outside):
        for _ in range(200):
            middle = (inside + outside) / 2
            near = abs(rate - middle) <= z * math.sqrt(middle * (1 - middle) / total)
            inside, outside = (middle, outside) if near else (inside, middle)
        return inside

    return root(rate, 0.0), root(rate, 1.0)


@pytest.mark.core
@pytest.mark.parametrize(
    ("errors", "total", "lower", "upper"),
    [
        (25, 10_000, 0.00169, 0.00369),
        (0, 10, 0.0, 0.27753),
        (10, 10, 0.72247, 1.0),
        (5, 10, 0.23659, 0.76341),
    ],
)
def test_wilson_interval_of_known_rates(errors, total, lower, upper):
    assert statistics.wilson_interval(errors, total) == pytest.approx((lower, upper), abs=6e-6)


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_solves_the_score_equation(counts):
    errors, total = counts
    lower, upper = statistics.wilson_interval(errors, total)
    assert 0 <= lower <= upper <= 1
    assert lower - 1e-12 <= errors / total <= upper + 1e-12
    assert (lower, upper) == pytest.approx(wilson_by_bisection(errors, total), abs=1e-9)


@pytest.mark.parametrize(("errors", "total"), [(-1, 10), (11, 10), (0, 0)])
def test_wilson_interval_of_impossible_counts_raises(errors, total):
    with pytest.raises(ValueError, match=f"{errors} errors of {total}, expected 0 <= errors"):
        statistics.wilson_interval(errors, total)


def test_mean_interval_is_that_of_the_tables(random):
    # Quantiles of Student's t as tables print them: 2, 3 and 10 values.
    for count, quantile in [(2, 12.706), (3, 4.303), (10, 2.262)]:
        values = random.uniform(0.4, 0.41, count).tolist()
        mean, (low, high) = statistics.mean_interval(values)
        assert mean == pytest.approx(stdlib.mean(values))
        error = stdlib.stdev(values) / math.sqrt(count)
        assert high - mean == pytest.approx(quantile * error, rel=1e-4)
        assert mean - low == pytest.approx(quantile * error, rel=1e-4)


def test_mean_interval_of_shares_stays_among_them():
    assert statistics.mean_interval([0.0, 0.3, 0.0])[1][0] == 0
    assert statistics.mean_interval([1.0, 0.7])[1][1] == 1
    assert statistics.mean_interval([0.25]) == (0.25, None)
    with pytest.raises(ValueError, match="at least one"):
        statistics.mean_interval([])


def test_mean_interval_of_other_values_is_cut_off_where_they_end():
    values = [-3.0, 5.0, 4.0]
    ends = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    everywhere = statistics.mean_interval(values, low=-math.inf, high=math.inf)
    assert everywhere == (2.0, pytest.approx((ends.low, ends.high)))
    cut = statistics.mean_interval(values, low=-4, high=math.inf)
    assert cut == (2.0, (-4, pytest.approx(ends.high)))
    assert statistics.mean_interval(values, low=-math.inf, high=6)[1][1] == 6


def test_mean_interval_is_as_wide_as_its_confidence():
    values = [-3.0, 5.0, 4.0]
    for confidence in (0.5, 0.99):
        ends = stats.ttest_1samp(values, 0).confidence_interval(confidence)
        _, found = statistics.mean_interval(
            values, low=-math.inf, high=math.inf, confidence=confidence
        )
        assert found == pytest.approx((ends.low, ends.high))
    with pytest.raises(ValueError, match="confidence is 95, expected a number between 0 and 1"):
        statistics.mean_interval([0.5, 0.6], confidence=95)


@pytest.mark.parametrize("value", [-0.01, 1.5, math.nan, math.inf])
def test_mean_interval_of_what_is_no_share_raises(value):
    with pytest.raises(ValueError, match=f"a value is {value}, expected a finite .* 0.0 to 1.0"):
        statistics.mean_interval([0.5, value])


@pytest.mark.core
@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [(1, 5, 14 / 64), (0, 10, 2 / 1024), (3, 1, 10 / 16), (2, 2, 1.0), (0, 0, 1.0), (0, 1, 1.0)],
)
def test_mcnemar_of_counts_by_hand(only_first, only_second, p_value):
    found = statistics.mcnemar(*wrong(only_first, only_second, both=4, neither=20))
    assert found == (only_first, only_second, pytest.approx(p_value, rel=1e-12))


@pytest.mark.parametrize(("only_first", "only_second"), [(40, 17), (300, 402), (1000, 1000)])
def test_mcnemar_of_many_images_sums_the_binomial(only_first, only_second):
    together, fewer = only_first + only_second, min(only_first, only_second)
    tail = Fraction(sum(math.comb(together, k) for k in range(fewer + 1)), 2**together)
    found = statistics.mcnemar(*wrong(only_first, only_second))
    assert found.p_value == pytest.approx(float(min(1, 2 * tail)), rel=1e-9)


@given(WRONG)
def test_mcnemar_is_scipy_s_binomial_test_and_symmetric(both):
    first, second = map(np.array, both)
    found, swapped = statistics.mcnemar(first, second), statistics.mcnemar(second, first)
    table = np.zeros((2, 2), int)
    np.add.at(table, (first.astype(int), second.astype(int)), 1)
    assert found[:2] == (table[1, 0], table[0, 1])
    assert swapped == (found.only_second, found.only_first, found.p_value)
    together = int(found.only_first + found.only_second)
    expected = stats.binomtest(found.only_first, together).pvalue if together else 1.0
    assert found.p_value == pytest.approx(expected, rel=1e-9)


def enumerated(only_first, only_second, total, level):
    """Ends of the interval from every outcome's probability, none drawn."""
    shares = [only_first / total, only_second / total]
    shares = [*shares, 1 - sum(shares)]
    chances = np.zeros(2 * total + 1)
    for a in range(total + 1):
        for b in range(total + 1 - a):
            chance = stats.multinomial.pmf([a, b, total - a - b], total, shares)
            chances[a - b + total] += chance
    below = np.cumsum(chances)
    ends = [np.searchsorted(below, quantile) for quantile in ((1 - level) / 2, (1 + level) / 2)]
    return [(int(end) - total) / total for end in ends]


@pytest.mark.core
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_paired_bootstrap_is_the_distribution_that_it_draws_from(level):
    first, second = wrong(9, 4, both=5, neither=12)
    found = statistics.paired_bootstrap(first, second, level=level, samples=100_000)
    assert found.difference == pytest.approx(5 / 30)
    # Draws fall on multiples of 1 / 30, and a quantile may fall to either side of a step.
    assert found[1:] == pytest.approx(enumerated(9, 4, 30, level), abs=1.01 / 30)


def test_paired_bootstrap_against_a_network_without_errors_is_binomial():
    found = statistics.paired_bootstrap(*wrong(60, 0, neither=940), samples=100_000)
    expected = stats.binom.ppf([0.025, 0.975], 1000, 0.06) / 1000
    assert found == (0.06, *(pytest.approx(end, abs=1.01e-3) for end in expected))


def test_paired_bootstrap_equals_resampling_images(random):
    first, second = wrong(30, 18, both=20, neither=332)
    rows = random.integers(0, 400, size=(4000, 400))
    drawn = first[rows].mean(1) - second[rows].mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    found = statistics.paired_bootstrap(first, second)
    assert found == pytest.approx((12 / 400, low, high), abs=1.6 / 400)


def test_paired_bootstrap_covers_the_true_difference(random):
    # Wrong with probability 0.10, 0.06 and 0.05: only the first, only the second, both.
    outcomes = random.choice(4, p=[0.10, 0.06, 0.05, 0.79], size=(300, 500))
    covered = 0
    for row in outcomes:
        first, second = np.isin(row, [0, 2]), np.isin(row, [1, 2])
        _, low, high = statistics.paired_bootstrap(first, second, samples=1000)
        covered += low <= 0.04 <= high
    # 95 % of 300 is 285, with a standard deviation of 3.8.
    assert 272 <= covered <= 297


@given(WRONG)
def test_paired_bootstrap_of_swapped_networks_is_mirrored(both):
    first, second = map(np.array, both)
    found = statistics.paired_bootstrap(first, second, samples=200)
    swapped = statistics.paired_bootstrap(second, first, samples=200)
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert found.low <= found.high
    assert swapped.difference == -found.difference
    if found.difference:  # else both calls are the same one
        assert swapped[1:] == pytest.approx((-found.high, -found.low), abs=1e-12)


def test_paired_bootstrap_of_equal_predictions_has_no_width():
    first, _ = wrong(3, 4)
    assert statistics.paired_bootstrap(first, first) == (0, 0, 0)


def test_paired_bootstrap_follows_its_seed():
    pair = wrong(300, 250)
    found = [statistics.paired_bootstrap(*pair, samples=100, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_paired_bootstrap_holds_no_image_of_a_sample():
    pair = wrong(60, 50, neither=9890)
    tracemalloc.start()
    try:
        statistics.paired_bootstrap(*pair)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2e6  # 10,000 samples of 10,000 images are 1e8 bytes


@pytest.mark.parametrize("test", [statistics.mcnemar, statistics.paired_bootstrap])
def test_paired_tests_of_other_things_than_pairs_raise(test):
    with pytest.raises(ValueError, match=r"shape \(3,\) and second_wrong \(4,\), expected \[N\]"):
        test(np.zeros(3, bool), np.zeros(4, bool))
    with pytest.raises(ValueError, match=r"shape \(2, 2\) .* expected \[N\]"):
        test(np.zeros((2, 2), bool), np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="at least one image"):
        test([], [])
    with pytest.raises(ValueError, match="second_wrong has dtype int64, expected bool"):
        test(np.zeros(3, bool), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="first_wrong has dtype float64, expected bool"):
        test([1.0, math.nan], [True, False])


def test_paired_bootstrap_of_no_samples_or_no_level_raises():
    pair = wrong(1, 2)
    with pytest.raises(ValueError, match="samples is 0, expected at least 1"):
        statistics.paired_bootstrap(*pair, samples=0)
    for level in (0.0, 1.0, 95, math.nan):
        with pytest.raises(ValueError, match=f"level is {level}, expected a number between 0"):
            statistics.paired_bootstrap(*pair, level=level)


@pytest.mark.core
def test_calibration_error_by_hand():
    # 0.4 and 0.6 are the upper ends of their bins, 0 belongs to the first.
    confidences = [0.9, 0.9, 0.6, 0.4, 0.0]
    found = statistics.expected_calibration_error(
        confidences, [True, False, True, False, False], bins=5
    )
    assert found.counts.tolist() == [1, 1, 1, 0, 2]
    np.testing.assert_allclose(found.confidence, [0, 0.4, 0.6, np.nan, 0.9])
    np.testing.assert_allclose(found.accuracy, [0, 0, 1, np.nan, 0.5])
    assert found.error == pytest.approx((0 + 0.4 + 0.4 + 2 * 0.4) / 5)
    assert isinstance(found.error, float)


def test_calibration_error_sums_over_bins(random):
    sure = random.uniform(size=500)
    right = random.uniform(size=500) < 0.7
    expected = 0.0
    for k in range(15):
        rows = [i for i in range(500) if k / 15 < sure[i] <= (k + 1) / 15]
        if rows:
            gap = stdlib.mean(map(float, right[rows])) - stdlib.mean(sure[rows])
            expected += len(rows) / 500 * abs(gap)
    found = statistics.expected_calibration_error(sure, right)
    assert len(found.counts) == 15
    assert found.error == pytest.approx(expected, rel=1e-12)


def test_calibration_error_of_calibrated_predictions_is_near_0(random):
    sure = random.uniform(size=200_000)
    right = random.uniform(size=200_000) < sure
    assert statistics.expected_calibration_error(sure, right).error < 0.005
    # Of the same predictions, said to be surer than they are.
    assert statistics.expected_calibration_error(np.sqrt(sure), right).error > 0.1


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 20)
)
def test_calibration_error_is_a_share_whatever_the_order(pairs, bins):
    sure, right = map(np.array, zip(*pairs, strict=True))
    found = statistics.expected_calibration_error(sure, right, bins)
    turned = statistics.expected_calibration_error(sure[::-1], right[::-1], bins)
    assert 0 <= found.error <= 1
    assert found.error == pytest.approx(turned.error, abs=1e-12)
    assert found.counts.sum() == len(pairs)
    np.testing.assert_array_equal(np.isnan(found.accuracy), found.counts == 0)
    # Bins can only take apart what would cancel.
    assert found.error >= abs(sure.mean() - right.mean()) - 1e-12


def test_calibration_error_of_other_things_raises():
    ece = statistics.expected_calibration_error
    with pytest.raises(ValueError, match=r"shape \(2,\) and correct \(1,\), expected \[N\]"):
        ece([0.1, 0.2], [True])
    with pytest.raises(ValueError, match="at least one prediction"):
        ece([], [])
    for value in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=rf"a confidence is {value}, expected all in \[0, 1\]"):
            ece([0.5, value], [True, False])
    with pytest.raises(ValueError, match="correct has dtype int64, expected bool"):
        ece([0.5], np.ones(1, np.int64))
    with pytest.raises(ValueError, match="bins is 0, expected at least 1"):
        ece([0.5], [True], bins=0)
