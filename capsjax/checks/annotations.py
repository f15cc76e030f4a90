"""Whether a value is what an annotation says, and the annotation in words.

Beartype and typeguard were tried for this. They refuse NumPy's numbers for ``float`` and NumPy's
arrays for JAX's, take True for a whole number, and do not tell a wrong kind (TypeError) from a
wrong shape, dtype or range (ValueError).
"""

import collections.abc
import dataclasses
import functools
import math
import numbers
import os
import reprlib
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import jax
import jaxtyping
import numpy as np

Refusal = type[Exception] | None

# What float32, int32 and int64 hold.
_LARGEST, _WHOLE, _WHOLE_64 = 3e38, 2**31, 2**63
_SIMPLE: dict[Any, str] = {
    Any: "anything",
    None: "None",
    type(None): "None",
    bool: "True or False",
    int: "a whole number of 64 bits",
    float: "a number that 32 bits hold",
    str: "a string",
    Path: "a path",
    jax.Array: "an array",
    np.ndarray: "an array",
}
_UNIONS = (Union, types.UnionType)
_MAPPINGS = (dict, collections.abc.Mapping)
_LISTS = (list, collections.abc.Sequence)


def shown(value: Any) -> str:
    """A value in a message: an array by dtype and shape, others by a repr that is not long."""
    if is_array(value):
        return f"{value.dtype} {tuple(value.shape)}"
    if isinstance(value, int) and value.bit_length() > 64:  # Python refuses to write the longest
        return "a whole number of more than 64 bits"
    return reprlib.repr(value)


def is_array(value: Any) -> bool:
    """Whether something has what is asked of an array here, a traced one too."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def is_nan(value: Any) -> bool:
    """Whether something is a number that is none."""
    return isinstance(value, numbers.Real) and value != value


def misfit(value: Any, hint: Any) -> Refusal:
    """The error that a value of this annotation deserves; None where it fits.

    Args:
        value: of any kind.
        hint: an annotation; one that is not known here fits everything.

    Returns:
        TypeError for another kind, ValueError for another shape, dtype or range, or None.
    """
    if hint is Any or isinstance(hint, (str, TypeVar)):
        return None
    if hint in (None, type(None)):
        return None if value is None else TypeError
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return misfit(value, options[0])
    if origin in _UNIONS:
        errors = [misfit(value, option) for option in options]
        return None if None in errors else ValueError if ValueError in errors else TypeError
    if origin is Literal:
        same = [type(value) is type(option) and value == option for option in options]
        return None if any(same) else ValueError
    if origin is not None:
        return _of_container(value, origin, options)
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return _of_array(value, hint)
    return _of_type(value, hint)


def _of_container(value: Any, origin: Any, options: tuple[Any, ...]) -> Refusal:
    if origin is collections.abc.Callable:
        return None if callable(value) else TypeError
    if origin in _MAPPINGS:
        if not isinstance(value, collections.abc.Mapping):
            return TypeError
        return _first(value.values(), [options[-1]] * len(value))
    if origin in _LISTS or origin is tuple:
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value.tolist()
        if not isinstance(value, collections.abc.Sequence) or isinstance(value, (str, bytes)):
            return TypeError
        if origin in _LISTS or options[1:] == (...,):
            options = options[:1] * len(value)
        return ValueError if len(value) != len(options) else _first(value, options)
    return None


def _first(values: collections.abc.Iterable[Any], hints: collections.abc.Iterable[Any]) -> Refusal:
    errors = [misfit(value, hint) for value, hint in zip(values, hints, strict=True)]
    return next((error for error in errors if error is not None), None)


def _of_array(value: Any, hint: Any) -> Refusal:
    if not is_array(value):
        return TypeError
    if getattr(value.dtype, "kind", "") in "OSU":  # objects and texts have shapes too
        return ValueError
    # For NumPy's arrays, JAX's and traced ones alike; jaxtyping keeps what it made.
    return None if isinstance(value, hint.dtype[Any, hint.dim_str]) else ValueError


def _of_type(value: Any, hint: Any) -> Refusal:
    scalar = value.dtype if is_array(value) and value.shape == () else None
    if hint is bool:
        return None if isinstance(value, (bool, np.bool_)) else TypeError
    if hint in (int, float):
        if scalar is not None and not isinstance(value, np.generic):
            kind = np.integer if hint is int else np.number
            return None if jax.dtypes.issubdtype(scalar, kind) else TypeError
        number: Any = numbers.Integral if hint is int else numbers.Real
        if not isinstance(value, number) or isinstance(value, bool):
            return TypeError
        return None if _held(value, hint) else ValueError
    if hint in (jax.Array, np.ndarray):
        return None if is_array(value) else TypeError
    if dataclasses.is_dataclass(hint):
        # A config of one's own may stand in for one with the same fields, or with none.
        fields = of_fields(typing.cast(Any, hint))
        similar = dataclasses.is_dataclass(value) and not isinstance(value, type)
        return None if similar and all(hasattr(value, name) for name in fields) else TypeError
    if hint is Path:
        return None if isinstance(value, os.PathLike) else TypeError
    if isinstance(hint, type) and not getattr(hint, "_is_protocol", False):
        return None if isinstance(value, hint) else TypeError
    return None


def _held(number: Any, kind: type) -> bool:
    """Whether a number is one that a compiled function takes; infinity is."""
    if kind is int:
        return -_WHOLE_64 <= number < _WHOLE_64
    if isinstance(number, numbers.Integral):
        return -_WHOLE <= int(number) < _WHOLE
    return abs(number) <= _LARGEST or math.isinf(number)


def words(hint: Any) -> str:
    """An annotation in a message."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return words(options[0])
    if origin in _UNIONS:
        return " or ".join(dict.fromkeys(map(words, options)))
    if origin is Literal:
        return " or ".join(map(repr, options))
    if origin is tuple and options[1:] != (...,):
        return f"({', '.join(map(words, options))})"
    if origin in _LISTS or origin is tuple:
        return f"a list of: {words(options[0])}"
    if origin in _MAPPINGS:
        return f"a dictionary of: {words(options[-1])}"
    if origin is collections.abc.Callable:
        return "a function"
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        sizes, kind = ", ".join(hint.dim_str.split()), hint.dtype.__name__.lower()
        return f"{kind} [{sizes}]" if sizes else f"a {kind} scalar"
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    return f"{hint.__module__}.{hint.__qualname__}" if isinstance(hint, type) else str(hint)


@functools.cache
def of_fields(kind: Any) -> dict[str, Any]:
    """Annotations of a dataclass's fields by name."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
