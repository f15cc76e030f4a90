"""Killed or stopped at random moments, a run goes on and ends as if nothing had been."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")


def campaign(*options: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.kills", *options], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_twenty_kills_lose_no_run_and_no_more_than_an_interval() -> None:
    found = campaign("--kills", "20", "--level")
    assert found["ended"] == 20
    assert found["in_saves"] > 0, found
    assert found["compared"] > 0, found
    assert found["lost"] == 0, found
    assert found["most_steps_lost"] <= 2, found


def test_two_sigints_anywhere_are_no_traceback_and_lose_no_run() -> None:
    found = campaign("--sigint", "--kills", "4")
    assert found["ended"] == 4
    assert found["lost"] == 0, found
