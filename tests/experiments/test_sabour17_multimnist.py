"""Report of two overlapping digits, of made-up results."""

import math

from experiments import sabour17_multimnist
from tests.experiments.made_up import result


def pair(seen, **metrics):
    """A network trained on these pictures: of 1,000, 200 are wrong, 50 of them in both digits."""
    return result(
        0,
        200,
        network="capsules",
        seen=seen,
        encoder_parameters=9,
        digit_error=250 / 2000,
        squared_errors=None,
        **metrics,
    )


def test_an_interval_of_single_digits_takes_the_two_of_a_picture_together():
    told = sabour17_multimnist.lines({"pairs": pair("pairs", pictures=100)})
    [line] = [each for each in told if "each digit by itself" in each.what]
    mean = 0.125
    variance = (800 * mean**2 + 150 * (0.5 - mean) ** 2 + 50 * (1 - mean) ** 2) / 999
    half = 1.9623 * math.sqrt(variance / 1000)  # Student's 97.5 % point with 999 degrees
    ends = f"{100 * (mean - half):.2f} to {100 * (mean + half):.2f}"
    assert line.ours == f"12.50 % ({ends}), one seed"


def test_what_fewer_and_more_pictures_are_worth_stands_in_the_line():
    told = sabour17_multimnist.lines(
        {
            "pairs": pair("pairs", pictures=100),
            "fewer": pair("fewer pairs", pictures=50),
            "more": pair("more pairs", pictures=200),
        }
    )
    assert "; trained with 50 it is 20.00 %" in told[0].why
    assert "; trained with 200 it is 20.00 %" in told[0].why
