"""What every room refuses alike: arguments, choices and files that are not what they should be.

The annotations are the rule: ``arguments`` holds a function to its own, ``fields`` a config. Arrays
are looked at by rank, sizes and dtype, which a traced array has too, so that nothing is added to a
compiled function. What is in them is not looked at: a NaN comes out as a NaN.
"""

import contextlib
import errno
import functools
import inspect
import math
import typing
from collections.abc import Callable
from contextlib import AbstractContextManager
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import jax
import jaxtyping
import numpy as np

from capsjax.checks.annotations import is_array, is_nan, misfit, of_fields, shown, words

__all__ = [
    "arguments",
    "exists",
    "fields",
    "floats",
    "is_array",
    "regular",
    "seed",
    "shown",
    "sizes",
]

# Sizes beyond are mistakes.
_MOST = 2**20

_Function = TypeVar("_Function", bound=Callable[..., Any])


@typing.overload
def arguments(function: _Function, /) -> _Function: ...


@typing.overload
def arguments(
    *, together: bool = True, empty: bool = False, nan: bool = False
) -> Callable[[_Function], _Function]: ...


def arguments(
    function: Any = None, /, *, together: bool = True, empty: bool = False, nan: bool = False
) -> Any:
    """Hold a function's callers to its annotations.

    Arrays need the rank, sizes and dtype of their jaxtyping annotation; numbers must be numbers and
    not NaN. Other annotations are looked at as far as ``isinstance`` goes; those it knows nothing
    of are left alone. ``key`` has to be a random key.

    Args:
        function: with annotations.
        together: sizes of one name must be one size; False where the function compares them itself.
        empty: whether an axis may be empty.
        nan: whether a number may be NaN, which the function then looks at itself.

    Returns:
        The same, which raises TypeError for what is of another kind, and ValueError for what is of
        another shape, dtype or range, before anything is computed.

    Example:
        >>> import jax.numpy as jnp
        >>> @arguments
        ... def total(x: jaxtyping.Float[jax.Array, " n"]) -> jax.Array:
        ...     return x.sum()
        >>> total(jnp.ones((2, 3)))
        Traceback (most recent call last):
        ValueError: checks.total: x is float32 (2, 3), expected float [n]
    """
    if function is None:
        return functools.partial(_checked, together=together, empty=empty, nan=nan)
    return _checked(function, together=together, empty=empty, nan=nan)


def _checked(function: Any, *, together: bool, empty: bool, nan: bool) -> Any:
    signature = inspect.signature(function)
    hints = typing.get_type_hints(function, include_extras=True)
    title = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
    # Within one context sizes of one name are one size.
    for_all, for_each = (_sizes, contextlib.nullcontext)[:: 1 if together else -1]

    def look(name: str, value: Any) -> None:
        hint = hints.get(name, Any)
        if not (nan and hint is float and is_nan(value)):
            _refuse(f"{title}: {name}", value, hint)
        if name == "key":
            _refuse_key(f"{title}: {name}", value)
        if not empty and is_array(value) and 0 in value.shape:
            raise ValueError(f"{title}: {name} is {shown(value)}, expected no axis to be empty")

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # whose own error names it
        with for_all():
            for name, value in given.items():
                with for_each():
                    look(name, value)
        return function(*args, **kwargs)

    return checked


def _sizes() -> AbstractContextManager[Any]:
    return typing.cast(Any, jaxtyping.jaxtyped("context"))


def fields(config: Any) -> None:
    """Refuse a config one of whose fields is not of the type that it is annotated with.

    For ``__post_init__``, before a field is compared with anything. Numbers have to be finite.

    Args:
        config: an instance of a dataclass.

    Raises:
        TypeError: a field of another kind.
        ValueError: a number that is NaN or infinite, or none of a list of names.
    """
    for name, hint in of_fields(typing.cast(Any, type(config))).items():
        value = getattr(config, name)
        _refuse(name, value, hint)
        if isinstance(value, list):
            raise TypeError(f"{name} is {shown(value)}, expected a tuple")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, Real) and not math.isfinite(number):
                raise ValueError(f"{name} is {value}, expected finite numbers")
            if is_array(number) and not isinstance(number, np.generic):
                raise TypeError(f"{name} is {shown(value)}, expected plain numbers")


def _refuse(name: str, value: Any, hint: Any) -> None:
    error = misfit(value, hint)
    if error is not None:
        wanted = words(hint)
        pixels = is_array(value) and value.dtype == np.uint8 and wanted.startswith("float ")
        advice = (
            ": images are divided by 255 first, as data.augment.to_unit_interval does"
            if pixels
            else ""
        )
        raise error(f"{name} is {shown(value)}, expected {wanted}{advice}")


def _refuse_key(name: str, value: Any) -> None:
    dtype = getattr(value, "dtype", None)
    typed = dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and not (dtype == np.uint32 and value.ndim >= 1):
        raise TypeError(f"{name} is {shown(value)}, expected a random key: jax.random.key(0)")


def sizes(*, least: int = 1, most: int = _MOST, **values: int) -> None:
    """Refuse sizes that nothing has: of none, or of so many that no memory holds them.

    Args:
        least: the smallest.
        most: the largest.
        values: by name.

    Raises:
        ValueError: one is smaller or larger.

    Example:
        >>> sizes(parents=0)
        Traceback (most recent call last):
        ValueError: parents is 0, expected 1 to 1048576
    """
    for name, value in values.items():
        if not least <= value <= most:
            raise ValueError(f"{name} is {value}, expected {least} to {most}")


def seed(number: int) -> None:
    """Refuse a seed that NumPy's generators do not take.

    Args:
        number: the seed.

    Raises:
        ValueError: it is negative.
    """
    if number < 0:
        raise ValueError(f"seed is {number}, expected at least 0")


def floats(name: str, values: Any) -> np.ndarray:
    """Numbers of any kind as an array of floats.

    Args:
        name: what the caller calls them.
        values: an array, or what NumPy makes one of.

    Returns:
        A float64 array; one that is float64 already as it is.

    Raises:
        TypeError: they are no real numbers.

    Example:
        >>> floats("lengths", [1, 2]).tolist()
        [1.0, 2.0]
    """
    try:
        array = np.asarray(values)
    except ValueError:  # rows of several lengths
        array = np.array(None)
    if array.dtype.kind not in "biuf" and not jax.dtypes.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name} is {shown(values)}, expected an array of numbers")
    return np.asarray(array, float)


def exists(path: str | Path) -> bool:
    """Whether a path is there; one that no file could have is not.

    Args:
        path: of a file or a folder.

    Returns:
        Also False for a name that is empty, too long, or holds a zero byte.

    Example:
        >>> exists("."), exists(""), exists("x" * 5000)
        (True, False, False)
    """
    try:
        return str(path) != "" and Path(path).exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def regular(path: str | Path) -> Path:
    """Refuse what a program that opens it may wait for without an end: a pipe, a device.

    Args:
        path: of a file; one that is not there, or a folder, is left to who opens it.

    Returns:
        The path.

    Raises:
        ValueError: it is neither a file nor a folder, or no file can have that name.

    Example:
        >>> regular("/dev/null")
        Traceback (most recent call last):
        ValueError: '/dev/null' is no regular file, expected one: give a copy of it
    """
    file = Path(path)
    if "\0" in str(path) or (exists(file) and not file.is_file() and not file.is_dir()):
        raise ValueError(f"{str(path)!r} is no regular file, expected one: give a copy of it")
    return file
