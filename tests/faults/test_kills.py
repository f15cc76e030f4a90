"""Killed or stopped at random moments, a run goes on and ends as if nothing had been."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.small import cache_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


def campaign(cache: Path, *options: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.kills", *options],
        env={**os.environ, **cache_environment(cache)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_twenty_kills_lose_no_run_and_no_more_than_an_interval(compiled: Path) -> None:
    found = campaign(compiled, "--kills", "20", "--level")
    assert found["ended"] == 20, found
    assert found["in_saves"] > 0, found
    assert found["compared"] > 0, found
    assert found["lost"] == 0, found
    assert found["most_steps_lost"] <= 2, found


def test_two_sigints_anywhere_are_no_traceback_and_lose_no_run(compiled: Path) -> None:
    found = campaign(compiled, "--sigint", "--kills", "6", "--level")
    assert found["ended"] == 6, found
    assert found["lost"] == 0, found
