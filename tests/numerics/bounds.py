"""The table of error bounds: measured, rounded up, written to ``bounds.json`` and printed.

``python -m tests.numerics.bounds`` takes some minutes, nearly all of them the references' at
published sizes. A bound is twice the largest error of all seeds (for gradients in float64 ten
times), rounded up to 1, 2 or 5 times a power of ten. CONTRIBUTING has the worst of both sizes.
"""

import json
import math
import platform
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.numerics import measure

FILE = Path(__file__).with_name("bounds.json")
SEEDS = {"small": 8, "published": 2}

_HEADROOM = 2
# What float64's gradients are compared with are slopes, whose noise is another NumPy's another one.
_OF_SLOPES = 10
_SHORT = {"float64": "f64", "float32": "f32", "bfloat16": "bf16"}


def rounded_up(error: float) -> float:
    """To 1, 2 or 5 times a power of ten.

    >>> [rounded_up(error) for error in (1.1e-7, 0.03, 5e-3)]
    [2e-07, 0.05, 0.005]
    """
    power = math.floor(math.log10(error))
    return next(
        bound for digit in ("1", "2", "5", "10") if (bound := float(f"{digit}e{power}")) >= error
    )


def bound(name: str, size: str) -> dict[str, dict[str, float]]:
    """Of values and gradients, by dtype."""
    worst: dict[str, dict[str, float]] = {"value": {}, "gradient": {}}
    for dtype in measure.DTYPES:
        pairs = []
        for seed in range(SEEDS[size]):
            with jax.enable_x64(dtype == "float64"):
                results = measure.found(name, size, seed, dtype)
            pair = measure.errors(results, measure.exact(name, size, seed, dtype))
            if dtype == "float64":
                pair = pair[0], measure.error_of_exact_gradients(name, size, seed)
            pairs.append(pair)
        # At least a rounding, which another machine may make where this one made none.
        least = float(jax.numpy.finfo(dtype).eps)
        for kind, errors in zip(worst, zip(*pairs, strict=True), strict=True):
            slopes = (kind, dtype) == ("gradient", "float64")
            room = _OF_SLOPES if slopes else _HEADROOM
            worst[kind][dtype] = rounded_up(room * max(least, *errors))
    return worst


def read() -> dict[str, Any]:
    """What is committed."""
    return json.loads(FILE.read_text())


def table(bounds: dict[str, Any]) -> str:
    """Markdown, the worst of all sizes."""
    kinds = [(kind, dtype) for kind in ("value", "gradient") for dtype in measure.DTYPES]
    rows = [["", *(f"{kind} {_SHORT[dtype]}" for kind, dtype in kinds)]]
    for name, sizes in bounds.items():
        worst = [max(size[kind][dtype] for size in sizes.values()) for kind, dtype in kinds]
        rows.append([name, *(f"{error:.0e}".replace("e-0", "e-") for error in worst)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)


def main() -> None:
    """Measure all, write and print."""
    bounds: dict[str, Any] = {}
    for name, case in measure.CASES.items():
        bounds[name] = {size: bound(name, size) for size in case.sizes}
        print(f"{name} is measured", file=sys.stderr)
    where = {
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{jax.default_backend()}, {platform.machine()}, {platform.system()}",
    }
    FILE.write_text(json.dumps({"measured with": where, "bounds": bounds}, indent=1) + "\n")
    print(table(bounds))


if __name__ == "__main__":
    main()
