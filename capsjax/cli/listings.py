"""``capsjax models`` and ``capsjax datasets``: what there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flax import nnx

from capsjax import data, models
from capsjax.cli.options import parse, print_json, table


@dataclass(frozen=True)
class Listing:
    """List what there is."""

    json: bool = False
    """print JSON instead of a table"""


def models_command(arguments: Sequence[str]) -> None:
    """Print all networks."""
    options = parse(Listing, arguments, "capsjax models")
    rows = []
    for name, module in models.MODELS.items():
        network = nnx.eval_shape(partial(models.create, name))
        rows.append(
            {
                "name": name,
                "parameters": models.count_parameters(network),
                "source": module.SOURCE,
            }
        )
    if options.json:
        print_json(rows)
    else:
        table(
            ("name", "parameters", "source"),
            [(row["name"], f"{row['parameters']:,}", row["source"]) for row in rows],
        )


def datasets_command(arguments: Sequence[str]) -> None:
    """Print all data sets."""
    options = parse(Listing, arguments, "capsjax datasets")
    rows: list[dict[str, Any]] = [
        {
            "name": dataset.name,
            "splits": dict(dataset.sizes),
            "image_shape": list(dataset.image_shape),
            "classes": dataset.num_classes,
            "source": dataset.source,
            "licence": dataset.licence,
        }
        for dataset in map(data.find, data.names())
    ]
    if options.json:
        print_json(rows)
    else:
        table(
            ("name", "splits", "image", "classes", "source", "licence"),
            [
                (
                    row["name"],
                    ", ".join(f"{split} {size:,}" for split, size in row["splits"].items()),
                    "x".join(map(str, row["image_shape"])),
                    str(row["classes"]),
                    row["source"],
                    row["licence"],
                )
                for row in rows
            ],
        )
