"""``capsjax explore``: a trained network in the browser."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from capsjax import pretrained
from capsjax.cli.options import parse
from capsjax.explorer import LOOPBACK, Explored, serve

DEFAULT = "efficient_capsnet_mnist"
PAIRS = "efficient_capsnet_multi_mnist"


@dataclass(frozen=True)
class Explore:
    """Look into a trained network in the browser: draw, move its capsules, watch it route."""

    run: tyro.conf.Positional[Path] = Path(DEFAULT)
    """run directory as made by capsjax train, file of capsjax export, or name listed by capsjax
    pretrained; a path that is there comes first"""
    host: str = LOOPBACK
    """address to listen at; 0.0.0.0 lets other machines in"""
    port: int | None = None
    """port to listen at; by default the first one that is free from 7860 on"""
    browser: bool = True
    """open the page"""


def explore_command(arguments: Sequence[str]) -> None:
    """Serve the page until it is stopped."""
    options = parse(Explore, arguments, "capsjax explore")
    trained, _ = pretrained.find(options.run)
    explored = Explored(trained, pretrained.name_of(options.run))
    pairs = None
    if trained.settings.classes_per_image > 1:
        pairs = explored
    elif PAIRS in pretrained.names():
        pairs = Explored(pretrained.load(PAIRS), PAIRS)
    serve(explored, pairs, host=options.host, port=options.port, browser=options.browser)
