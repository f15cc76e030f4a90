"""``capsjax pretrained`` and ``capsjax export``: trained networks as files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from capsjax import pretrained
from capsjax.cli.options import parse, print_json, table


@dataclass(frozen=True)
class Pretrained:
    """List the trained networks that come with the package."""

    json: bool = False
    """print all that is known of them as JSON instead of a table"""


@dataclass(frozen=True)
class Export:
    """Write the network of a finished run to one file, with its settings and its test error.

    The file's name may stand for a run in capsjax evaluate and capsjax predict, and in
    capsjax.load_pretrained. It holds the training's command as it was given.
    """

    run: tyro.conf.Positional[Path]
    """run directory, as made by capsjax train"""
    path: tyro.conf.Positional[Path]
    """of the file, ending in .safetensors; one that is there is replaced"""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """how numbers are stored; the shorter two take half the room, and the error is that of the
    rounded ones"""
    json: bool = False
    """print what the file says as a JSON object"""


def pretrained_command(arguments: Sequence[str]) -> None:
    """Print the networks in the package."""
    options = parse(Pretrained, arguments, "capsjax pretrained")
    cards = [pretrained.describe(name) for name in pretrained.names()]
    if options.json:
        print_json([card.to_json() for card in cards])
        return
    table(
        ("name", "network", "data set", "parameters", "test error", "seed", "stored as"),
        [
            (
                card.name,
                card.settings.model,
                card.settings.dataset,
                f"{card.parameters:,}",
                _error(card),
                str(card.settings.training.seed),
                f"{card.dtype}, {card.size / 1e6:.1f} MB",
            )
            for card in cards
        ],
    )


def export_command(arguments: Sequence[str]) -> None:
    """Write a network to a file."""
    options = parse(Export, arguments, "capsjax export")
    dtype = None if options.dtype == "float32" else options.dtype
    card = pretrained.export(options.run, options.path, dtype=dtype)
    if options.json:
        print_json(card.to_json())
        return
    print(
        f"{options.path}: {card.settings.model} for {card.settings.dataset}, "
        f"{card.parameters:,} parameters as {card.dtype}, {card.size / 1e6:.1f} MB\n"
        f"test error of what is stored: {_error(card)}"
    )


def _error(card: pretrained.Card) -> str:
    tested = card.tested
    low, high = tested.interval_95
    return f"{tested.error:.2%} ({low:.2%} to {high:.2%}, {tested.errors} of {tested.images:,})"
