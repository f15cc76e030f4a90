"""``python -m tests.seeded [NAME ...]``: does the suite catch the bugs that it should?

Each bug is introduced alone in a copy of the repository, where the tests that are named for it are
run. Exit status 1 if one of them lets its bug pass.
"""

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.copied import FAILED, PASSED, copy_repository, run_tests
from tests.seeded.bug import Bug, introduced
from tests.seeded.bugs import BUGS

_FAILURE = re.compile(r"^(?:FAILED|ERROR) (tests/[^\s\[]+)", re.MULTILINE)


def caught_by(bug: Bug, root: Path) -> str | None:
    """The test that fails with the bug, or None.

    Raises:
        ValueError: the bug has no place, or its tests did not run.
    """
    with introduced(bug, root):
        status, said = run_tests(root, bug.tests)
    if status == PASSED:
        return None
    failed = _FAILURE.search(said)
    if status != FAILED or failed is None:
        raise ValueError(f"{bug.name}: its tests did not run\n{said}")
    return failed.group(1)


def chosen(names: list[str]) -> list[Bug]:
    """The bugs of these names, all without."""
    known = {bug.name: bug for bug in BUGS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no bug {', '.join(unknown)}, expected some of: {[*known]}")
    return [known[name] for name in names or known]


def try_all(bugs: list[Bug], root: Path) -> int:
    """Print a line for each bug; returns how many were missed."""
    print("| pitfall | bug | caught by |\n| --- | --- | --- |")
    missed = 0
    for bug in bugs:
        test = caught_by(bug, root)
        missed += test is None
        print(f"| {bug.pitfall} | {bug.name} | {test or 'MISSED'} |", flush=True)
    return missed


def main() -> int:
    """Check that the tests pass, then that each bug makes one fail."""
    parser = argparse.ArgumentParser(prog="python -m tests.seeded", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of bugs; all without")
    bugs = chosen(parser.parse_args().names)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="seeded-") as folder:
        root = Path(folder)
        copy_repository(root)
        status, said = run_tests(root, dict.fromkeys(t for bug in bugs for t in bug.tests))
        if status != PASSED:
            print(f"the tests fail without any bug:\n{said}")
            return 1
        missed = try_all(bugs, root)
    seconds = time.monotonic() - started
    print(f"\n{len(bugs) - missed} of {len(bugs)} caught in {seconds:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
