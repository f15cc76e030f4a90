"""Pictures of capsule networks: arrays in, a matplotlib ``Figure`` out.

Nothing here reads a file or opens a window; ``figure.savefig(path)`` writes one. Colours are those
of Okabe and Ito, told apart by people with any colour vision; where curves or parents must be told
apart, line style and marker differ as well.
"""

from capsjax.figures._style import (
    BLACK,
    BLUE,
    COLORS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
)
from capsjax.figures.data import contact_sheet
from capsjax.figures.results import curves, errors
from capsjax.figures.routing import (
    coefficients,
    curves_by_iteration,
    routing_in_2d,
    squash_curve,
)
from capsjax.figures.tables import image_grid, table
from capsjax.figures.training import confusion, learning_curves, mistakes, reconstructions

__all__ = [
    "BLACK",
    "BLUE",
    "COLORS",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "RED",
    "SKY",
    "coefficients",
    "confusion",
    "contact_sheet",
    "curves",
    "curves_by_iteration",
    "errors",
    "image_grid",
    "learning_curves",
    "mistakes",
    "reconstructions",
    "routing_in_2d",
    "squash_curve",
    "table",
]
