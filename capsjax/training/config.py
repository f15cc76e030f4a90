"""Choices of training."""

import math
from dataclasses import dataclass
from typing import Literal

from capsjax import checks
from capsjax.data import recipes
from capsjax.training import losses
from capsjax.training.step import Schedule

_LEARNING_RATES = {"recipe": 1e-3, "cosine": 2e-3}


@dataclass(frozen=True)
class Config:
    """Choices of training.

    Attributes:
        epochs: passes over the training images; more of them continue a finished run (the cosine
            schedule, and a spread loss's margin, are then those of the longer run).
        batch_size: images of a step; the last, incomplete batch of an epoch is left out (the order
            is new in every epoch).
        learning_rate: Adam's largest one; None is the schedule's own: 0.001 for "recipe", as in the
            official code, 0.002 for "cosine", whose warm-up allows more.
        schedule: "recipe" (the official code's: x0.96 every 2,000 steps) or "cosine" (50 steps up,
            then down to 0 at the end).
        seed: of the initial parameters, the order of images and their shifts.
        validation: this many images at the end of the training set choose the checkpoint; data sets
            with views of few things (smallnorb, toy_norb) set one of each category aside instead.
            The command takes at most a tenth of a user's own images where no number is asked for.
        limit: train on the first so many images only; None takes all but the validation images.
        shift: largest random shift of a training image in pixels, in each direction; pictures that
            are made anew are not shifted on top of that.
        recipe: what a paper does to its images, a name in ``data.recipes``, instead of the shift;
            data sets whose pictures are made anew take none.
        precision: of matrix products: "default", "high" or "highest", as JAX names them.
        compute_dtype: of activations in a training step: "float32", or "bfloat16". Then products
            and routing sum in float32 and a gradient is rounded once on its way to its parameter;
            parameters, Adam's state, losses and running statistics stay float32.
        votes_at_once: of how many images of a batch the votes exist at a time, on each device, in a
            training step; None is all. Fewer need less memory and, since the backward pass makes
            them again, more time; the result is the same. Testing, which keeps nothing for a
            backward pass, takes 100 images at once.
        checkpoint_every: steps between checkpoints (an epoch's end always has one).
        weight_decay: times every parameter of two axes or more (not biases and scales), added to
            its gradient: the L2 penalty of half this weight.
        gradient_clip: largest norm of the whole gradient, which is shortened to it; None leaves it.
        layer_metrics: also log of every layer the norm of its gradient, and of every routed one the
            share of dead capsules and how active its capsules are.
        loss: choices of the loss.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> config = Config(epochs=3, limit=10_000, loss=losses.Config(kind="spread"))
        >>> config.peak_learning_rate, config.loss.kind  # the rate is that of the cosine schedule
        (0.002, 'spread')
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float | None = None
    schedule: Schedule = "cosine"
    seed: int = 0
    validation: int = 5000
    limit: int | None = None
    shift: int = 2
    recipe: str | None = None
    precision: Literal["default", "high", "highest"] = "default"
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    votes_at_once: int | None = None
    checkpoint_every: int = 500
    weight_decay: float = 0.0
    gradient_clip: float | None = None
    layer_metrics: bool = False
    loss: losses.Config = losses.Config()

    def __post_init__(self) -> None:
        checks.fields(self)
        least = {"epochs": 1, "batch_size": 1, "validation": 1, "shift": 0, "checkpoint_every": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {low}")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}, expected a positive number")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is {self.weight_decay}, expected at least 0")
        if self.gradient_clip is not None and not 0 < self.gradient_clip < math.inf:
            raise ValueError(
                f"gradient_clip is {self.gradient_clip}, expected a positive number or None"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}, expected 0 to {2**32 - 1}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}, expected at least 1, or None for all")
        if self.votes_at_once is not None and self.votes_at_once < 1:
            raise ValueError(
                f"votes_at_once is {self.votes_at_once}, expected at least 1, or None for all"
            )
        if self.schedule not in ("recipe", "cosine"):
            raise ValueError(f"schedule is {self.schedule!r}, expected 'recipe' or 'cosine'")
        if self.recipe is not None:
            recipes.find(self.recipe)
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(
                f"compute_dtype is {self.compute_dtype!r}, expected 'float32' or 'bfloat16'"
            )
        if self.precision not in ("default", "high", "highest"):
            raise ValueError(
                f"precision is {self.precision!r}, expected 'default', 'high' or 'highest'"
            )

    @property
    def peak_learning_rate(self) -> float:
        """The largest learning rate, after the schedule's default."""
        given = self.learning_rate
        return _LEARNING_RATES[self.schedule] if given is None else given
