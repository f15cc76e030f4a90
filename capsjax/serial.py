"""Config dataclasses as JSON values and back: for run directories and for files of weights."""

import dataclasses
import json
import typing
from typing import Any

import numpy as np

from capsjax import routing


def to_json(config: Any) -> dict[str, Any]:
    """A config dataclass as JSON values; a routing's config with the name of its algorithm."""
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            name = {"algorithm": routing.name_of(value)} if field.name == "routing" else {}
            values[field.name] = {**name, **to_json(value)}
        else:
            values[field.name] = json.loads(json.dumps(value, default=np.generic.item))
    return values


def from_json(kind: Any, values: Any, overrides: dict[str, Any] | None = None) -> Any:
    """A config dataclass from JSON values; the inverse of ``to_json``.

    Args:
        kind: the dataclass, or any other type of a field.
        values: what ``to_json`` gave.
        overrides: types of fields whose annotation says too little.

    Returns:
        An instance of ``kind``.

    Raises:
        TypeError: a field is unknown or missing, or of another type.
        ValueError: a value that the dataclass refuses, or values nested too deep.
    """
    try:
        return _from_json(kind, values, overrides)
    except RecursionError:
        raise ValueError("values are nested too deep, expected what to_json gave") from None


def _from_json(kind: Any, values: Any, overrides: dict[str, Any] | None = None) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(values, dict):
            raise TypeError(f"{values!r} is no {kind}, expected an object")
        hints = {**typing.get_type_hints(kind), **(overrides or {})}
        unknown = set(values) - set(hints)
        if unknown:
            raise TypeError(
                f"unknown fields: {', '.join(sorted(unknown))}, expected some of: "
                f"{', '.join(hints)}"
            )
        missing = [field.name for field in dataclasses.fields(kind) if _is_missing(field, values)]
        if missing:
            raise TypeError(f"it has no {', '.join(missing)}, expected: {', '.join(hints)}")
        fields = values.copy()
        if isinstance(fields.get("routing"), dict):
            algorithm = dict(fields["routing"])
            if "algorithm" not in algorithm:
                raise TypeError("routing has no algorithm, expected its name")
            hints["routing"] = routing.find(algorithm.pop("algorithm")).Config
            fields["routing"] = algorithm
        return typing.cast(Any, kind)(
            **{name: _from_json(hints[name], value) for name, value in fields.items()}
        )
    return _tuples(values)


def _is_missing(field: dataclasses.Field, values: dict[str, Any]) -> bool:
    has_none = field.default is field.default_factory is dataclasses.MISSING
    return has_none and field.name not in values


def parse(text: str | bytes) -> Any:
    """JSON text as values.

    Args:
        text: of a file.

    Returns:
        The values.

    Raises:
        ValueError: it is no JSON, no UTF-8, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep, expected what capsjax wrote") from None


def _tuples(value: Any) -> Any:
    """Lists as tuples, which a frozen config has in their place, at every depth."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
