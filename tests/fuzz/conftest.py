"""A hostile size must end in a refusal, not in the end of the machine that tests it."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOM = 8 << 30  # bytes beyond what the process has


@pytest.fixture(autouse=True)
def _bounded_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a call that asks for far too much fail on its own."""
    if request.config.getoption("--jaxtyping-packages", default=None):
        pytest.skip("what is asked for here is the library's own answer")
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a file's examples, one over the other."""
    return tmp_path_factory.mktemp("hostile")
