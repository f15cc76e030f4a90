"""Translated MNIST: a digit anywhere on 40 x 40 pixels, always whole.

What networks are trained on before they are tested on affNIST.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Integer

from capsjax import checks
from capsjax.data import augment
from capsjax.data.generated import check_base, example_key

SOURCE = "made from MNIST by capsjax after Sabour, Frosst and Hinton 2017, section 5.2"


@dataclass(frozen=True)
class Config:
    """Choices of translated MNIST, by default those of the official code.

    Attributes:
        shift: largest shift in pixels, either way; beyond ``pad`` digits are cut at the frame.
        pad: pixels added on each side of the digits' own frame.

    Raises:
        ValueError: a negative number of pixels.
    """

    shift: int = 6
    pad: int = 6

    def __post_init__(self) -> None:
        checks.fields(self)
        if self.shift < 0 or self.pad < 0:
            raise ValueError(
                f"shift is {self.shift} and pad is {self.pad}, expected at least 0 of both"
            )


@checks.arguments
def example(
    key: Array,
    base: Mapping[str, Array],
    index: Integer[Array, ""],
    variant: Integer[Array, ""],
    config: Config = Config(),
) -> dict[str, Array]:
    """One digit, shifted by whole pixels.

    Args:
        key: ``jax.random.key(seed)``.
        base: images and labels of one split.
        index: the base digit.
        variant: which of its shifts.
        config: choices.

    Returns:
        ``image`` uint8 ``[40, 40, 1]``; ``label`` int32; ``shift`` int32 ``[2]``, pixels down and
        to the right, uniform.

    Source: Sabour, Frosst and Hinton 2017, section 5.2.
    """
    check_base(base)
    limit = config.shift
    offset = jax.random.randint(
        example_key(key, index, variant), (2,), -limit, limit + 1, jnp.int32
    )
    image = augment.place(base["image"][index], offset, limit=limit, pad=config.pad)
    return {"image": image, "label": base["label"][index], "shift": offset}
