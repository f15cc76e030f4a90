"""Matrix capsules with variational Bayes routing (Ribeiro, Leontidis and Kollias 2020).

The layers are those of ``matrix_capsules`` with 64, 8, 16 and 16 types. Batch normalisation follows
the convolution, the primary poses and activations, every routed pose, and every routed activation's
logit before its logistic function.

As in the authors' code, only the convolution and the primary capsules learn a scale and an offset.
Theirs adds coordinates from 1 / 10F to 1 / 10 of a grid of F rows; ours are shares of the grid, ten
times as large.
"""

from dataclasses import dataclass
from typing import Any

from capsjax.models import matrix_capsules
from capsjax.models.published import Form, Model
from capsjax.routing import variational_bayes

Network = matrix_capsules.Network


@dataclass(frozen=True)
class Config(matrix_capsules.Config):
    """Choices of the network, as those of ``matrix_capsules``; the defaults are the paper's."""

    features: int = 64
    primary_types: int = 8
    types: tuple[int, ...] = (16, 16)
    normalise: bool = True
    routing: Any = variational_bayes.Config(activation="identity")


MODEL = Model(
    Network,
    Config(),
    "Ribeiro, Leontidis and Kollias 2020",
    forms=(
        Form("smallnorb", Config(), (32, 32, 2), 5, 68_714, "1.3 % error"),
        Form("mnist", Config(), (28, 28, 1), 10, 68_404),
    ),
    training={"loss": {"kind": "cross_entropy"}},
)
