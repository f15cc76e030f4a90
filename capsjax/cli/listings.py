"""``capsjax routings``: the routing algorithms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from capsjax import routing
from capsjax.cli.options import parse, print_json, table


@dataclass(frozen=True)
class Listing:
    """List what there is."""

    json: bool = False
    """print JSON instead of a table"""


def routings_command(arguments: Sequence[str]) -> None:
    """Print all routing algorithms."""
    options = parse(Listing, arguments, "capsjax routings")
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "iterations": getattr(module.Config(), "num_iterations", None),
            "parameters": _learned(module),
            "uses": module.USES,
            "activation": module.READOUT,
            "source": module.SOURCE,
        }
        for name, module in routing.ALGORITHMS.items()
    ]
    if options.json:
        print_json(rows)
    else:
        table(
            ("name", "iterations", "learned parameters", "uses", "activation", "source"),
            [
                (
                    row["name"],
                    "none" if row["iterations"] is None else str(row["iterations"]),
                    ", ".join(f"{name} [{shape}]" for name, shape in row["parameters"].items())
                    or "none",
                    f"the children's {row['uses']}",
                    row["activation"],
                    row["source"],
                )
                for row in rows
            ],
        )


def _learned(module: Any) -> dict[str, str]:
    """Learned parameters of a routing's default config, their shapes in words."""
    # Sizes that tell the axes apart.
    sizes = {"parents": 2, "dim": 3, "children": 5, "child_dim": 7}
    words = {size: word for word, size in sizes.items()}
    params = module.init(module.Config(), jax.random.key(0), **sizes)
    return {name: ", ".join(words[size] for size in value.shape) for name, value in params.items()}
