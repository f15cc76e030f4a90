"""The list of bugs does not rot: each has a place in the code, and tests that exist."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.seeded.bug import Bug, introduced, with_bug
from tests.seeded.bugs import BUGS

ROOT = Path(__file__).parents[2]


def test_there_are_thirty_of_different_names() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) == 30


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_has_its_place_and_its_tests(bug: Bug) -> None:
    text = (ROOT / "capsjax" / bug.file).read_text()
    assert ast.dump(ast.parse(with_bug(text, bug))) != ast.dump(ast.parse(text))
    assert bug.pitfall.strip()
    assert bug.tests
    for name in bug.tests:
        file, _, test = name.partition("[")[0].partition("::")
        there = (ROOT / "tests" / file).read_text()
        assert not test or re.search(rf"^def {re.escape(test)}\(", there, re.MULTILINE), name


def test_a_bug_leaves_no_trace_and_needs_a_place_of_its_own(tmp_path: Path) -> None:
    bug = replace(BUGS[0], file="file.py", right="1 + 1", wrong="2 + 1")
    path = tmp_path / "capsjax" / "file.py"
    path.parent.mkdir()
    path.write_text("x = 1 + 1\n")
    with introduced(bug, tmp_path):
        assert path.read_text() == "x = 2 + 1\n"
    assert path.read_text() == "x = 1 + 1\n"
    for text, count in (("x = 2\n", 0), ("x = 1 + 1\ny = 1 + 1\n", 2)):
        path.write_text(text)
        said = f"its text is {count} times .*expected once"
        with pytest.raises(ValueError, match=said), introduced(bug, tmp_path):
            raise AssertionError("it was introduced")
        assert path.read_text() == text
