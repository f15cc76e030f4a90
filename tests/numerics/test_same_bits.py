"""Same seed, same bits: in two processes, each of which compiles for itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.numerics import run_once


@pytest.mark.core
def test_a_training_and_its_evaluation_have_the_same_bits_in_another_process() -> None:
    other = subprocess.Popen(
        [sys.executable, "-m", "tests.numerics.run_once"],
        cwd=Path(__file__).parents[2],
        env=os.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    ours = run_once.digest()
    theirs, _ = other.communicate()
    assert other.returncode == 0
    assert theirs.strip() == ours
