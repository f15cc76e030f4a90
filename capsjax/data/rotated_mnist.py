"""Rotated MNIST: each digit turned about the centre of its frame by any angle.

After the rotated digits of Larochelle, Erhan, Courville, Bergstra and Bengio 2007, whose files are
another selection and other angles.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Integer

from capsjax import checks
from capsjax.data import warp
from capsjax.data.generated import check_base, example_key

SOURCE = "made from MNIST by capsjax after Larochelle et al. 2007, section 3.1"


@dataclass(frozen=True)
class Config:
    """Choices of rotated MNIST.

    Attributes:
        rotation: smallest and largest angle in degrees, counter-clockwise; all of them by default.

    Raises:
        ValueError: the angles are not in order.
    """

    rotation: tuple[float, float] = (0.0, 360.0)

    def __post_init__(self) -> None:
        checks.fields(self)
        if self.rotation[0] > self.rotation[1]:
            raise ValueError(f"rotation is {self.rotation}, expected smallest <= largest")


@checks.arguments
def example(
    key: Array,
    base: Mapping[str, Array],
    index: Integer[Array, ""],
    variant: Integer[Array, ""],
    config: Config = Config(),
) -> dict[str, Array]:
    """One rotated digit.

    Args:
        key: ``jax.random.key(seed)``.
        base: images and labels of one split.
        index: the base digit.
        variant: which of its rotations.
        config: choices.

    Returns:
        ``image`` uint8, as large as the base image, interpolated bilinearly and rounded; ``label``
        int32; ``rotation`` float32, in degrees counter-clockwise, uniform.

    Source: Larochelle, Erhan, Courville, Bergstra and Bengio 2007, section 3.1.
    """
    check_base(base)
    low, high = config.rotation
    angle = jax.random.uniform(example_key(key, index, variant), (), jnp.float32, low, high)
    turned = warp.affine(base["image"][index].astype(jnp.float32), warp.affine_matrix(angle))
    return {
        "image": jnp.round(turned).astype(jnp.uint8),
        "label": base["label"][index],
        "rotation": angle,
    }
