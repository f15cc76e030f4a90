"""What setup.cfg asks for is all that is imported, has bounds that are tested, and is licensed."""

import ast
import configparser
import functools
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from capsjax import data, pretrained

ROOT = Path(__file__).parents[1]


@functools.cache
def wanted() -> dict[str, Requirement]:
    """Every direct dependency by its name; extras that only widen another are left out."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lists = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    found = [Requirement(line) for line in "\n".join(lists).splitlines() if line]
    return {canonicalize_name(one.name): one for one in found if not one.extras}


def pinned(name: str) -> dict[str, Version]:
    """Versions of a file of requirements, in which nothing but ``name==version`` may stand."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and line[0] != "#"]
    versions = {canonicalize_name(name): Version(version) for name, version in pairs}
    assert len(versions) == len(pairs)
    return versions


def table(mark: str) -> dict[str, list[str]]:
    """A table of CONTRIBUTING's: the rest of each row by the name in its first cell."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = text.split(f"<!-- {mark} -->")[1].split("<!-- end -->")[0].strip().splitlines()[2:]
    cells = [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]
    assert len({row[0] for row in cells}) == len(cells)
    return {row[0]: row[1:] for row in cells}


def imported(folder: Path) -> set[str]:
    """Names of the modules, without what follows a dot, that a folder's files import."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
    return names


def test_the_oldest_set_is_that_of_the_lower_bounds() -> None:
    bounds = {}
    for name, requirement in wanted().items():
        [bound] = requirement.specifier
        assert bound.operator == ">="
        bounds[name] = Version(bound.version)
    assert pinned("oldest.txt") == bounds


def test_the_locked_set_has_every_dependency_as_it_is_asked_for() -> None:
    locked = pinned("locked.txt")
    for name, requirement in wanted().items():
        assert locked[name] in requirement.specifier


def test_what_is_imported_is_asked_for() -> None:
    # An extra that is not installed has no distribution here; its modules have its name.
    distributions = packages_distributions()
    foreign = imported(ROOT / "capsjax") - sys.stdlib_module_names - {"capsjax"}
    assert "jax" in foreign
    for module in foreign:
        assert wanted().keys() & map(canonicalize_name, distributions.get(module, [module]))


def test_the_licence_of_every_dependency_is_listed() -> None:
    listed = table("dependencies")
    names = [canonicalize_name(name) for cell in listed for name in cell.split(", ")]
    assert sorted(names) == sorted(wanted())
    assert all(licence for _, licence in listed.values())


def test_the_licence_of_every_data_set_is_listed() -> None:
    listed = table("data sets")
    found = {name: data.find(name) for name in data.names()}
    assert {name: row[:2] for name, row in listed.items()} == {
        name: [one.source, one.licence] for name, one in found.items()
    }


@pytest.mark.parametrize("name", pretrained.names())
def test_what_weights_were_made_of_is_listed(name: str) -> None:
    assert table("weights")[name] == [pretrained.describe(name).settings.dataset]
