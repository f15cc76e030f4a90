"""A copy of the repository, in which code may be broken, and its tests run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What the tests of functions, layers, data and training need.
NEEDED = ("capsjax", "tests", "setup.cfg")
# Exit status of pytest: all passed, some failed. Others mean that nothing was tested.
PASSED, FAILED = 0, 1


def copy_repository(target: Path) -> None:
    """Copy what the tests need into a folder that is there."""
    for name in NEEDED:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, target / name, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, target / name)


def run_tests(root: Path, tests: Iterable[str]) -> tuple[int, str]:
    """Exit status and output of pytest in a copy; it ends at the first failure.

    Args:
        root: the copy.
        tests: files or tests, below ``tests/``.
    """
    names = [f"tests/{name}" for name in tests]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", *names],
        cwd=root,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def environment(root: Path) -> dict[str, str]:
    """That of a process which imports the copy, whatever else is installed."""
    return {**os.environ, "PYTHONPATH": str(root)}
