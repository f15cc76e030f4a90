"""Comparisons of two forms, against numbers worked out by hand."""

import pytest

from experiments import comparison, training
from tests.experiments.made_up import result, wrong


def runs(*errors):
    return [result(seed, count)["metrics"] for seed, count in enumerate(errors)]


def test_differences_over_seeds_have_students_interval():
    # 10, 20 and 30 images of 1,000: mean 0.02, standard deviation 0.01, t quantile 4.3027.
    found = comparison.paired(runs(30, 50, 70), runs(20, 30, 40))
    assert found.difference == pytest.approx(0.02)
    assert found.interval() == pytest.approx((0.02 - 0.024841, 0.02 + 0.024841), abs=1e-6)
    assert not found.differs()
    assert comparison.told(found, "that") == (
        "more errors than that in each seed's networks, but not told apart over so few seeds: "
        "+2.00 points (95 %: -0.48 to +4.48); McNemar p < 0.05 in 3 of 3 seeds"
    )


def test_a_difference_that_all_seeds_agree_on_is_told():
    found = comparison.paired(runs(10, 20, 30), runs(20, 31, 39))
    assert found.differs()
    assert comparison.told(found, "that").startswith(
        "fewer errors than that: -1.00 points (95 %: -1.2"
    )
    assert comparison.paired(runs(20, 31, 39), runs(10, 20, 30)).differs()
    turned = comparison.told(comparison.paired(runs(20, 31, 39), runs(10, 20, 30)), "that")
    assert turned.startswith("more errors than that: +1.00")


@pytest.mark.parametrize(("only_second", "p"), [(8, 0.0391), (4, 0.375)])
def test_one_seed_has_mcnemars_test_alone(only_second, p):
    # Only 1 image with the first and 8 or 4 with the second: two tails of (1 + 9) / 2^9, or
    # (1 + 5) / 2^5.
    first, second = wrong(1, first=500), wrong(only_second)
    pair = [[training.of_wrong(each)] for each in (first, second)]
    found = comparison.paired(*pair)
    assert found.interval() is None
    assert found.tests == [(1, only_second, pytest.approx(p, abs=1e-4))]
    assert found.differs() == (p < 0.05)
    said = comparison.told(found, "x")
    assert f"one seed (only this wrong 1, only that {only_second}; p = 0." in said
    assert said.startswith("fewer errors than x") == (p < 0.05)


def test_of_several_comparisons_each_has_its_share_of_the_level():
    # The p-value is 0.0391, as above.
    alone, two = ([training.of_wrong(each)] for each in (wrong(1, first=500), wrong(8)))
    found = comparison.paired(alone, two)
    assert found.differs(0.05)
    assert not found.differs(0.05 / 2)
    said = comparison.told(found, "x", comparisons=2)
    assert said.startswith("not told apart from x")
    assert said.endswith("p = 0.039, one of 2 comparisons)")


def test_an_interval_over_seeds_has_its_share_of_the_level_too():
    # 9, 10 and 11 images of 1,000 apart: standard deviation 0.001, t quantiles 4.3027 at 5 % and
    # 24.464 at a thirtieth of that.
    found = comparison.paired(runs(30, 40, 50), runs(21, 30, 39))
    assert found.differs(0.05)
    low, high = found.interval(0.05 / 30)
    assert (low, high) == pytest.approx((0.01 - 0.014125, 0.01 + 0.014125), abs=1e-6)
    assert not found.differs(0.05 / 30)
    said = comparison.told(found, "x", comparisons=30)
    assert said.startswith("not told apart from x: +1.00 points (99.8 %: -0.41 to +2.41)")


def test_a_seed_that_says_the_opposite_does_not_agree():
    # 90 and 80 more in two seeds, 30 fewer in the third: on these images all three differ.
    found = comparison.paired(runs(90, 80, 0), runs(0, 0, 30))
    assert found.agreeing() == 2
    assert comparison.paired(runs(0, 30, 30), runs(90, 0, 0)).agreeing() == 1


def test_only_seeds_of_both_are_compared():
    first, second = dict(enumerate(runs(10, 20, 30))), dict(enumerate(runs(20, 31, 39, 90)))
    said = comparison.against(first, second, "x")
    assert said == comparison.told(comparison.paired(runs(10, 20, 30), runs(20, 31, 39)), "x")
    assert comparison.against(first, {}, "x") == ""


def test_forms_of_other_numbers_of_seeds_are_not_compared():
    with pytest.raises(ValueError, match="2 runs of the first form and 1 of the second"):
        comparison.paired(runs(1, 2), runs(1))
    with pytest.raises(ValueError, match="expected as many of both, at least one"):
        comparison.paired([], [])


def test_what_is_wrong_as_a_result_says_it():
    found = training.of_wrong(wrong(25, of=10_000))
    assert found["test_error"] == 0.0025
    assert (found["test_errors"], found["test_images"]) == (25, 10_000)
    # Newcombe's formula by hand, as in the docstring of wilson_interval.
    assert found["test_error_interval_95"] == pytest.approx((0.0017, 0.0037), abs=5e-5)
