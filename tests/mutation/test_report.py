"""A change that is not noticed but never ends is no change that a test noticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.__main__ import outcome_of, row_of
from tests.mutation.server import TIMED_OUT

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="tests run in forks")
def test_tests_that_do_not_end_have_a_status_of_their_own() -> None:
    program = "from tests.mutation import server; server.LIMIT = 0; print(server.run(['tests']))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(TIMED_OUT)]


def test_what_came_of_a_change_is_told_by_the_status_of_its_tests() -> None:
    statuses = {0: "survived", 1: "killed", 2: "killed", TIMED_OUT: "timed out"}
    for status, outcome in statuses.items():
        assert outcome_of(f"exit status {status}\n") == outcome
    for untested in (None, "", "timeout", "Traceback"):
        with pytest.raises(ValueError, match="was not tested"):
            outcome_of(untested)


def test_what_timed_out_is_shown_by_itself_and_is_not_of_the_share() -> None:
    counts = {"killed": 6, "timed out": 1, "survived": 1}
    assert row_of("em", counts, 3) == "| em | 8 | 6 | 1 | 1 | 75.0% | 3 |"
    assert row_of("em", dict.fromkeys(counts, 0), 9) == "| em | 0 | 0 | 0 | 0 |  | 9 |"
