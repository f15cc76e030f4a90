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
from capsjax.figures.architecture import architecture
from capsjax.figures.attacks import adversarial
from capsjax.figures.capsules import dead_capsules, feature_maps, perturbations, primary_capsules
from capsjax.figures.data import contact_sheet
from capsjax.figures.flow import flow
from capsjax.figures.functions import margin_loss_curve, squash_curve
from capsjax.figures.results import calibration, curves, errors
from capsjax.figures.routing import coefficients, curves_by_iteration, routing_in_2d
from capsjax.figures.separation import separated
from capsjax.figures.tables import image_grid, table
from capsjax.figures.training import confusion, learning_curves, mistakes, reconstructions
from capsjax.figures.turning import by_angle, equivariance

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
    "adversarial",
    "architecture",
    "by_angle",
    "calibration",
    "coefficients",
    "confusion",
    "contact_sheet",
    "curves",
    "curves_by_iteration",
    "dead_capsules",
    "equivariance",
    "errors",
    "feature_maps",
    "flow",
    "image_grid",
    "learning_curves",
    "margin_loss_curve",
    "mistakes",
    "perturbations",
    "primary_capsules",
    "reconstructions",
    "routing_in_2d",
    "separated",
    "squash_curve",
    "table",
]
