"""What devices exchange, counted in the text of a program that XLA compiled."""

import math
import re

_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
_INSTRUCTION = re.compile(rf"^\s*(?:ROOT )?\S+ = (.*?) ({_KINDS})(?:-start)?\(", re.MULTILINE)
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")


def count(text: str) -> dict[str, dict[str, int]]:
    """Collectives of a program.

    Args:
        text: of ``compiled.as_text()``. One that is started and awaited counts once; one in a
            loop too, however often the loop runs.

    Returns:
        For every kind that is there, ``number`` of instructions and ``bytes`` of their results, as
        each device holds them (of one that is started apart, its operands' bytes too).
    """
    found: dict[str, dict[str, int]] = {}
    for shapes, kind in _INSTRUCTION.findall(text):
        entry = found.setdefault(kind, {"number": 0, "bytes": 0})
        entry["number"] += 1
        entry["bytes"] += sum(
            math.prod(map(int, filter(None, sizes.split(",")))) * (int(bits or 8) // 8)
            for _, bits, sizes in _ARRAY.findall(shapes)
        )
    return found
