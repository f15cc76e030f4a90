"""What may come of a call with a hostile argument, and who says no."""

import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import capsjax

HOME = str(Path(capsjax.__file__).parent)
# A call that hangs; generous, for a busy machine and a compiler.
DEADLINE = 300
ENORMOUS = 1e15
# What a message of the library says beside what was given.
EXPECTS = re.compile(
    r"expect|give |use |pass |takes |needs|take another|make it|replace|save it|copy|set "
    r"|leave |train|load it|choose|is missing|is no |lacks|is not|not both"
)


class Excuse(NamedTuple):
    """Why a NaN may come out where none went in.

    Attributes:
        reason: by contract.
        holds: whether it is the reason with these arguments.
    """

    reason: str
    holds: Callable[[Mapping[str, Any]], bool]


class Row(NamedTuple):
    """A function of the table.

    Attributes:
        name: of the row.
        call: the function.
        valid: a call that it takes, by argument.
        compiled: compile calls whose arrays have the valid shapes; trace others only.
        only: arguments that are broken; None is all.
        hides: why a NaN that goes in need not come out, by contract; empty where it has to.
        makes: why a NaN may come out where none went in, by contract, and of which arguments.
    """

    name: str
    call: Callable[..., Any]
    valid: Mapping[str, Any]
    compiled: bool = True
    only: tuple[str, ...] | None = None
    hides: str = ""
    makes: Excuse | None = None

    def __str__(self) -> str:
        return self.name


class Hung(BaseException):
    """A call did not end."""


@contextmanager
def deadline(seconds: int = DEADLINE) -> Iterator[None]:
    """Raise ``Hung`` in what takes longer."""

    def ring(*_: Any) -> None:
        raise Hung(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    # pytest-timeout has the same alarm: it is set anew afterwards, with what is left of it.
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    started = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            gone = time.monotonic() - started
            signal.setitimer(signal.ITIMER_REAL, max(left - gone, 0.001))


def refused_well(error: Exception, *, os_errors: bool = False) -> None:
    """The error is one of the library's own, and says what was expected."""
    if os_errors and isinstance(error, OSError):
        assert str(error)
        return
    assert isinstance(error, (ValueError, TypeError)), f"{type(error)!r}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    # Deeper in jax or NumPy it is no check, and its message nobody's who called us.
    assert frames[-1].filename.startswith(HOME), f"raised by {frames[-1]}: {error!r}"
    assert EXPECTS.search(str(error)), f"it does not say what was expected: {error!r}"
    assert len(str(error)) < 20_000, f"{len(str(error))} characters: {str(error)[:200]}..."


_COMPILED: dict[Any, Any] = {}


def tried(row: Row, given: dict[str, Any]) -> None:
    """Call with hostile arguments: a good refusal, or a result without a NaN of its own."""
    with deadline():
        try:
            result = result_of(row, given)
        except Exception as error:
            refused_well(error)
            return
    if result is _UNKNOWN:
        return
    bad_in, bad_out = not _finite(given), _has_nan(result)
    if not bad_in and not (row.makes and row.makes.holds(given)):
        assert not bad_out, f"a NaN out of finite values: {result}"
    if _has_nan(given) and not row.hides:
        assert bad_out or _nothing_float(result), f"the NaN was lost: {result}"


_UNKNOWN = object()


def result_of(row: Row, given: dict[str, Any]) -> Any:
    if not row.compiled:
        return row.call(**given)
    arrays = {k: v for k, v in given.items() if _traced(v)}
    static = {k: v for k, v in given.items() if k not in arrays}

    def call(arrays: dict[str, Any]) -> Any:
        return row.call(**arrays, **static)

    if not _alike(row.valid, arrays):
        jax.eval_shape(call, arrays)
        return _UNKNOWN
    key = (row.name, repr(static))
    if key not in _COMPILED:
        _COMPILED[key] = jax.jit(call)
    return _COMPILED[key](arrays)


def _traced(value: Any) -> bool:
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(isinstance(leaf, jax.Array) for leaf in leaves)


def _alike(valid: Mapping[str, Any], arrays: dict[str, Any]) -> bool:
    """Whether the arrays are of the valid shapes, which compile once."""

    def shapes(value: Any) -> Any:
        return jax.tree.map(lambda x: (x.shape, str(x.dtype)), value)

    return all(shapes(value) == shapes(valid[name]) for name, value in arrays.items())


def _floats(value: Any) -> Iterator[np.ndarray]:
    for leaf in jax.tree.leaves(value):
        if isinstance(leaf, (float, complex)):
            yield np.asarray(leaf)
        elif hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, np.inexact):
            yield np.asarray(leaf).astype(np.complex128)


def _enormous(given: Mapping[str, Any]) -> bool:
    """Whether there are numbers whose squares, or sums of squares, are beyond float32."""
    numbers = [np.asarray(x) for x in jax.tree.leaves(given) if isinstance(x, int)]
    return any((np.abs(x) > ENORMOUS).any() for x in [*_floats(given), *numbers])


def _negative(given: Mapping[str, Any]) -> bool:
    return any((x.real < 0).any() for x in _floats(given))


# Sums and squares of huge numbers leave float32's range, and infinity less infinity is NaN.
OVERFLOW = Excuse("finite values may be as large as their squares leave the range", _enormous)
NEGATIVE = Excuse("of negative activations, which it is not made for", _negative)


def _finite(value: Any) -> bool:
    return all(np.isfinite(x).all() for x in _floats(value))


def _has_nan(value: Any) -> bool:
    return any(np.isnan(x).any() for x in _floats(value))


def _nothing_float(value: Any) -> bool:
    return not any(True for _ in _floats(value))
