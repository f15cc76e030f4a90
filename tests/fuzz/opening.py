"""Files of others: how they are opened here, and how their bytes are broken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from capsjax.data import coil20
from tests.fuzz.judge import deadline, refused_well
from tests.fuzz.test_calls import TIMES

EXAMPLES = 60

hostile_files = settings(
    max_examples=EXAMPLES * TIMES,
    derandomize=TIMES == 1,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def refused(call: Callable[..., Any], *arguments: Any) -> bool:
    """Whether a call was refused well; what it gave if not is nobody's concern here."""
    with deadline():
        try:
            call(*arguments)
        except Exception as error:
            refused_well(error, os_errors=True)
            return True
    return False


def read_coil20(path: Path) -> Any:
    return coil20.read({"all": path}, "train")


def cut_or_changed(content: bytes) -> st.SearchStrategy[bytes]:
    """A file's bytes, some of them others, or fewer, or more."""
    length = len(content)
    # Most of what a file says is in its first bytes.
    places = st.one_of(st.integers(0, min(200, length - 1)), st.integers(0, length - 1))
    changed = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4).map(
        lambda edits: _edited(content, edits)
    )
    cut = st.one_of(places.map(lambda n: content[:n]), places.map(lambda n: content[n:]))
    return st.one_of(changed, changed, cut, st.binary(max_size=64), st.just(content + content))


def _edited(content: bytes, edits: list[tuple[int, int]]) -> bytes:
    out = bytearray(content)
    for place, value in edits:
        out[place] = value
    return bytes(out)
