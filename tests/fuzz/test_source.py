"""What the package's source must not hold: ways from a file to a program or out of a folder."""

import re
from pathlib import Path

import pytest

import capsjax

SOURCES = sorted(Path(capsjax.__file__).parent.rglob("*.py"))
FORBIDDEN = {
    "pickle": r"\b(pickle|cPickle|dill|cloudpickle|joblib|shelve|marshal)\b",
    "pickled arrays": r"allow_pickle\s*=\s*True",
    "code from text": r"(?<![\w.])(eval|exec|compile)\(",
    "YAML's objects": r"\byaml\b",
    "archives unpacked to a folder": r"\.extract(all)?\(|unpack_archive",
    "a shell": r"shell\s*=\s*True|os\.system|os\.popen",
    "torch's files": r"torch\.load|joblib\.load",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_package_has_no(what):
    found = [
        f"{path.name}: {line.strip()}"
        for path in SOURCES
        for line in path.read_text().splitlines()
        if re.search(FORBIDDEN[what], line) and "``" not in line
    ]
    assert found == []
    assert len(SOURCES) > 100
