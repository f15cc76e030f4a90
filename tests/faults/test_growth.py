"""A long training takes no more memory than a short one, and compiles nothing new."""

import json
import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("steps", "epoch"), [(1_000, 50), pytest.param(10_000, 400, marks=pytest.mark.slow)]
)
def test_neither_memory_nor_compilations_grow(steps: int, epoch: int) -> None:
    options = ["--steps", str(steps), "--epoch", str(epoch)]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.growth", *options],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["steps"] == steps
    # Allocators round: over few steps what they take at once is more than a leak would be.
    assert found["growth"] < (0.01 if steps >= 10_000 else 0.03), found
    assert 0 < found["compilations"] < 150, found
    assert found["compilations_after"] == 0, found
