"""Reading a command's options and printing its tables."""

import contextlib
import dataclasses
import io
import itertools
import json
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], program: str) -> T:
    """Options of a command; what tyro would print as a box becomes a ValueError of one line."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            return tyro.cli(kind, prog=program, args=list(arguments))
    except SystemExit as stop:
        if not stop.code:
            raise
        said = " ".join(_body(output.getvalue()).split())
        raise ValueError(f"{said}; see {program} --help") from None


def _body(box: str) -> str:
    """What is wrong, out of tyro's box: the lines between its title and the next rule.

    The box is drawn with lines, or with spaces and dashes where the terminal has no lines.
    """
    lines = [line.strip("│ ") for line in box.splitlines()]
    rule = re.compile(r"[─╰╯-]*")
    inside = itertools.dropwhile(rule.fullmatch, [line for line in lines if line][1:])
    return " ".join(itertools.takewhile(lambda line: not rule.fullmatch(line), inside))


def without(kind: type, name: str) -> type:
    """A config dataclass less one field, for a command that has options of its own for that one.

    Its values are checked where the whole config is made of them.
    """
    fields = [
        (field.name, field.type, field) for field in dataclasses.fields(kind) if field.name != name
    ]
    return dataclasses.make_dataclass(
        kind.__name__, fields, frozen=True, namespace={"__doc__": kind.__doc__}
    )


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    for row in (header, *rows):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
