"""Synthetic affNIST: MNIST's digits under random affine transformations, on 40 x 40 pixels.

It follows the description of affNIST (Tieleman 2013) and comes with its six parameters, but it is
not the real data set, whose files ``affnist`` reads: report results on it under this name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Integer

from capsjax import checks
from capsjax.data import warp
from capsjax.data.generated import check_base, example_key

SOURCE = "synthetic: made from MNIST by capsjax after the description of affNIST, not affNIST"
PARAMETERS = ("rotation", "shear", "scale_y", "scale_x", "shift_y", "shift_x")


@dataclass(frozen=True)
class Config:
    """Ranges of the transformations, by default affNIST's.

    Attributes:
        rotation: largest rotation in degrees, either way.
        shear: largest shear, either way.
        scale: smallest and largest scale, drawn separately for height and width.
        pad: pixels added on each side of the digits' own frame.

    Raises:
        ValueError: a negative value, or scales that are not in order.
    """

    rotation: float = 20.0
    shear: float = 0.2
    scale: tuple[float, float] = (0.8, 1.2)
    pad: int = 6

    def __post_init__(self) -> None:
        checks.fields(self)
        if self.rotation < 0 or self.shear < 0 or self.pad < 0:
            raise ValueError(
                f"rotation is {self.rotation}, shear is {self.shear} and pad is {self.pad}, "
                "expected at least 0 of each"
            )
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is {self.scale}, expected 0 < smallest <= largest")


@checks.arguments
def example(
    key: Array,
    base: Mapping[str, Array],
    index: Integer[Array, ""],
    variant: Integer[Array, ""],
    config: Config = Config(),
) -> dict[str, Array]:
    """One transformed digit.

    The digit is scaled, sheared and rotated about the centre. Then it is shifted, not by whole
    pixels, uniformly over all shifts that keep every pixel that is not 0 within the frame.

    Args:
        key: ``jax.random.key(seed)``.
        base: images and labels of one split.
        index: the base digit.
        variant: which of its transformations.
        config: choices.

    Returns:
        ``image`` uint8 ``[40, 40, 1]``, interpolated bilinearly and rounded; ``label`` int32;
        ``parameters`` float32 ``[6]`` in the order of ``PARAMETERS``, which ``warp.affine_matrix``
        takes.

    Source: https://www.cs.toronto.edu/~tijmen/affNIST
    """
    check_base(base)
    linear_key, shift_key = jax.random.split(example_key(key, index, variant))
    # The frame of zeros lets the outermost pixels fade to 0 too.
    image = jnp.pad(base["image"][index].astype(jnp.float32), ((1, 1), (1, 1), (0, 0)))
    growth = 2 * config.pad - 2
    size = image.shape[0] + growth, image.shape[1] + growth
    linear = warp.draw_linear(
        linear_key, rotation=config.rotation, shear=config.shear, scale=config.scale
    )
    lowest, highest = _room(image, warp.linear_map(*linear), size)
    shift = jax.random.uniform(shift_key, (2,), jnp.float32, lowest, highest)
    parameters = jnp.concatenate([linear, shift])
    warped = warp.affine(image, warp.affine_matrix(*parameters), size=size)
    return {
        "image": jnp.round(warped).astype(jnp.uint8),
        "label": base["label"][index],
        "parameters": parameters,
    }


def _room(
    image: Float[Array, "h w c"], forward: Float[Array, "2 2"], size: tuple[int, int]
) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Smallest and largest shift (y, x) with which the transformed ink stays within the frame.

    Both are the middle of the two where the digit has grown larger than the frame.
    """
    ink = jnp.any(image > 0, axis=-1)
    y, x = (jnp.arange(n, dtype=forward.dtype) - (n - 1) / 2 for n in image.shape[:2])
    # Bilinearly a pixel of ink reaches up to 1 pixel around it, in the image's own axes.
    reach = jnp.sum(jnp.abs(forward), axis=1)
    ends = []
    for row, spread, length in zip(forward, reach, size, strict=True):
        position = row[0] * y[:, None] + row[1] * x[None, :]
        # Pixels just outside the frame may be touched where the ink has faded to 0.
        half = (length - 1) / 2 + 1
        low = -half - jnp.min(position, where=ink, initial=0) + spread
        high = half - jnp.max(position, where=ink, initial=0) - spread
        middle = (low + high) / 2
        ends.append((jnp.minimum(low, middle), jnp.maximum(high, middle)))
    return jnp.stack([low for low, _ in ends]), jnp.stack([high for _, high in ends])
