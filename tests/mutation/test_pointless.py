"""Which changes are not tried, and that the files that are changed have tests of their own."""

import tomllib
from pathlib import Path

import pytest

from tests.mutation.__main__ import FILES, config_of
from tests.mutation.pointless import pointless

ROOT = Path(__file__).parents[2]
CODE = """
def mean(x: float | None, y=1, *, share: int | str = -1) -> float | None:
    total: float | int = x + y
    return total if total == "no" or share < 0 else x * 2
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x: float | None", "x: float + None"),
        ("-> float | None", "-> float * None"),
        ("share: int | str", "share: int & str"),
        ("total: float | int", "total: float / int"),
        (", *, ", ", /, "),
        (", *, ", ", **, "),  # does not compile
        ('total == "no"', 'total is "no"'),  # a warning
        ("x + y", "x  +  y"),
    ],
)
def test_annotations_signatures_and_what_does_not_compile_are_pointless(old: str, new: str) -> None:
    assert CODE.count(old) == 1
    assert pointless(CODE, CODE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("= -1", "= 1"),
        ("y=1", "y=2"),
        ("x + y", "x - y"),
        ("share < 0", "share <= 0"),
        (" or ", " and "),
        ("x * 2", "x * 3"),
    ],
)
def test_other_changes_are_not(old: str, new: str) -> None:
    assert CODE.count(old) == 1
    assert not pointless(CODE, CODE.replace(old, new))


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_its_tests_and_a_configuration(name: str) -> None:
    file, test = FILES[name]
    assert (ROOT / "capsjax" / file).is_file()
    assert (ROOT / "tests" / test).is_file()
    values = tomllib.loads(config_of(name, 'python "ask.py"'))["cosmic-ray"]
    assert values["module-path"] == f"capsjax/{file}"
    assert values["test-command"] == 'python "ask.py"'
    assert values["distributor"] == {"name": "local"}
