"""What is given in place of a valid argument: drawn by the kind of the argument."""

import dataclasses
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st

NAN, HUGE, TINY = float("nan"), 1e30, 1e-40
# No argument of any function.
THINGS = st.one_of(
    st.sampled_from([None, "images", "", [1, 2], {}, {"a": 1}, object(), 3, 2.5, True, b"x"]),
    st.text(max_size=6),
)
TEXTS = st.sampled_from(
    [
        "",
        "nope",
        "../../etc/passwd",
        "a\nb",
        "-rf",
        "\0",
        "é" * 40,
        "x" * 5000,
        "/dev/null/x",
        "None",
        "linf ",
    ]
)
NUMBERS = st.sampled_from(
    [
        *(0, -1, 1, 2, 7, 2**31, 2**63, 10**30, 0.5, 2.5, -1e-9, NAN, float("inf"), -float("inf")),
        *(1e308, -1e308, 5e-324, 1e-30, True, "1", None, 1j, [1], np.float32(NAN), np.int64(-3)),
    ]
)


def instead_of(valid: Any) -> st.SearchStrategy[Any]:
    """Hostile values for the place of a valid one; some of them may well be valid."""
    if is_key(valid):
        return st.one_of(THINGS, st.sampled_from([jax.numpy.ones(2), jax.numpy.ones((), int)]))
    if isinstance(valid, (np.ndarray, jax.Array)):
        return st.one_of(_values(valid), _values(valid), _shapes(valid), _dtypes(valid), THINGS)
    if isinstance(valid, str):
        return st.one_of(TEXTS, THINGS)
    if isinstance(valid, (bool, int, float)):
        return st.one_of(NUMBERS, NUMBERS, THINGS)
    if isinstance(valid, tuple) and hasattr(valid, "_fields"):
        return st.one_of(_fields(valid), THINGS)
    if isinstance(valid, (tuple, list)):
        return st.one_of(_items(valid), THINGS)
    if isinstance(valid, dict):
        return st.one_of(_entries(valid), THINGS)
    if dataclasses.is_dataclass(valid):
        return st.one_of(THINGS, st.just(type(valid)), st.just(dataclasses.asdict(valid)))
    return THINGS


def is_key(valid: Any) -> bool:
    return isinstance(valid, jax.Array) and jax.dtypes.issubdtype(valid.dtype, jax.dtypes.prng_key)


def _like(valid: Any, array: np.ndarray) -> Any:
    """NumPy's for NumPy's; JAX's for JAX's where it has the dtype."""
    if isinstance(valid, np.ndarray) or array.dtype.kind in "USO":
        return array
    return jax.numpy.asarray(array)


def _values(valid: Any) -> st.SearchStrategy[Any]:
    """The same shape and dtype with other numbers in some places, or in all."""
    array = np.asarray(valid)
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        others = [NAN, NAN, np.inf, -np.inf, HUGE, -HUGE, TINY, 0.0, -1.0]
    elif array.dtype.kind == "b":
        others = [False, True]
    else:
        info = np.iinfo(array.dtype)
        others = [info.min, info.max, 0, 1, 99]

    def placed(other: Any, seed: int, everywhere: bool) -> Any:
        random = np.random.default_rng(seed)
        where = np.ones(array.shape, bool) if everywhere else random.random(array.shape) < 0.3
        with np.errstate(over="ignore"):
            return _like(valid, np.where(where, np.asarray(other, array.dtype), array))

    return st.builds(placed, st.sampled_from(others), st.integers(0, 2**16), st.booleans())


def _shapes(valid: Any) -> st.SearchStrategy[Any]:
    array = np.asarray(valid)
    found = [array[None], array[None, None], array.reshape(-1), np.zeros((), array.dtype)]
    found += [array[:0]] * 2 if array.ndim else []
    for axis in range(array.ndim):
        found.append(np.take(array, [], axis))
        found.append(np.concatenate([array, array], axis))
        found.append(np.take(array, 0, axis))
        found.append(np.take(array, [0], axis))
    return st.sampled_from(found).map(lambda x: _like(valid, x))


def _dtypes(valid: Any) -> st.SearchStrategy[Any]:
    array = np.nan_to_num(np.asarray(valid).astype(float))
    kinds = ["int32", "bool", "complex64", "uint8", "int8", "float16", "float32", "U8", "O"]
    return st.sampled_from(kinds).map(lambda kind: _like(valid, array.astype(kind)))


def _fields(valid: Any) -> st.SearchStrategy[Any]:
    """A NamedTuple with one of its fields broken."""
    names = [name for name in valid._fields if getattr(valid, name) is not None]
    return st.sampled_from(names).flatmap(
        lambda name: instead_of(getattr(valid, name)).map(lambda x: valid._replace(**{name: x}))
    )


def _items(valid: Any) -> st.SearchStrategy[Any]:
    numbers = st.one_of(NUMBERS, st.just("a"))
    return st.one_of(
        st.just(()),
        st.just(valid + valid),
        st.just(valid[:1] * 0 + valid[1:]),
        st.tuples(*[numbers] * len(valid)),
        st.tuples(st.just(valid[0]), *[numbers] * (len(valid) - 1)) if valid else st.just((0,)),
    )


def _entries(valid: dict) -> st.SearchStrategy[Any]:
    """A dictionary with an entry broken, lost, or too many."""
    names = st.sampled_from(sorted(valid) or ["?"])
    broken = names.flatmap(
        lambda name: instead_of(valid.get(name)).map(lambda x: {**valid, name: x})
    )
    lost = names.map(lambda name: {k: v for k, v in valid.items() if k != name})
    return st.one_of(broken, broken, lost, st.just({**valid, "unknown": 1}))
