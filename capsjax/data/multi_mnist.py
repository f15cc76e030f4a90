"""MultiMNIST: two overlapping digits of different classes in one 36 x 36 picture.

Sabour, Frosst and Hinton 2017, section 6, and its official code. Each base digit is laid over other
digits, 1,000 times in the paper: 60 million pictures for training and 10 million for testing, made
when they are wanted. Both digits of a picture come from the same split.

Two things differ from the official data: its 1,000 partners of one digit are all different, these
are drawn with replacement; and its records are shuffled files, these are functions of a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Integer

from capsjax import checks
from capsjax.data import augment
from capsjax.data.dataset import Arrays
from capsjax.data.generated import check_base, example_key

SOURCE = "made from MNIST by capsjax after Sabour, Frosst and Hinton 2017, section 6"

# Takes the place of a variant's number in draws that all variants share; none is as large.
_SHARED = 2**31 - 1


@dataclass(frozen=True)
class Config:
    """Choices of MultiMNIST.

    Attributes:
        shift: largest shift of each digit in pixels, either way; 4 in the paper, 6 in the official
            data, where it moves digits over the edge.
        shared_base_shift: draw the base digit's shift once for all its pictures, as the official
            data does, rather than anew for each.
        pad: pixels added on each side of the digits' own frame.

    Raises:
        ValueError: a negative number of pixels.
    """

    shift: int = 4
    shared_base_shift: bool = False
    pad: int = 4

    def __post_init__(self) -> None:
        checks.fields(self)
        if self.shift < 0 or self.pad < 0:
            raise ValueError(
                f"shift is {self.shift} and pad is {self.pad}, expected at least 0 of both"
            )


PAPER = Config()
OFFICIAL = Config(shift=6, shared_base_shift=True)


@checks.arguments
def prepare(base: Mapping[str, np.ndarray]) -> Arrays:
    """Add to the base images what drawing a partner needs.

    Args:
        base: ``{"image": uint8 [N, H, W, C], "label": int32 [N]}`` of one split.

    Returns:
        The same and ``order`` int32 ``[N]``, the images' numbers sorted by class, and ``starts``
        int32 ``[classes + 1]``, where in it each class starts.

    Raises:
        ValueError: there are fewer than two classes.
    """
    check_base(base, "label")
    labels = np.asarray(base["label"])
    checks.sizes(least=0, smallest_label=int(labels.min()), largest_label=int(labels.max()))
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"the base images are of the classes {np.unique(labels).tolist()}, expected at least "
            "two: a picture shows two different ones"
        )
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels))])
    order = np.argsort(labels, kind="stable")
    return {**base, "order": order.astype(np.int32), "starts": starts.astype(np.int32)}


@checks.arguments
def example(
    key: Array,
    base: Mapping[str, Array],
    index: Integer[Array, ""],
    variant: Integer[Array, ""],
    config: Config = Config(),
) -> dict[str, Array]:
    """One picture of a base digit and a partner.

    The partner is drawn uniformly from all base images of other classes.

    Args:
        key: ``jax.random.key(seed)``.
        base: of ``prepare``.
        index: the base digit.
        variant: which of its pictures.
        config: choices.

    Returns:
        ``image`` uint8 ``[36, 36, 1]``; ``sources`` uint8 ``[2, 36, 36, 1]``, both digits alone as
        they lie in it, base first; ``label`` int32 ``[2]``, in the same order.

    Raises:
        ValueError: ``base`` does not come from ``prepare``.

    Source: Sabour, Frosst and Hinton 2017, section 6.1.
    """
    check_base(base)
    if "order" not in base or "starts" not in base:
        raise ValueError(f"base holds {', '.join(base)}, expected what multi_mnist.prepare returns")
    shapes = {name: checks.shown(base[name]) for name in ("order", "starts")}
    if any(getattr(base[name], "ndim", 0) != 1 for name in shapes) or (
        base["order"].shape != base["label"].shape
    ):
        raise ValueError(f"base has {shapes}, expected what multi_mnist.prepare returns")
    label, order, limit = base["label"], base["order"], config.shift
    start, end = base["starts"][label[index]], base["starts"][label[index] + 1]
    # All draws at once, which compiles in half the time: two shifts and the partner.
    low = jnp.array([-limit] * 4 + [0])
    high = jnp.array([limit + 1] * 4 + [len(order) - (end - start)])
    draws = jax.random.randint(example_key(key, index, variant), (5,), low, high, jnp.int32)
    offsets, position = draws[:4].reshape(2, 2), draws[4]
    if config.shared_base_shift:
        shared_key = example_key(key, index, _SHARED)
        shared = jax.random.randint(shared_key, (2,), -limit, limit + 1, jnp.int32)
        offsets = offsets.at[0].set(shared)
    # Position among the images of other classes, then past those of this one.
    partner = order[jnp.where(position < start, position, position + end - start)]
    pair = jnp.stack([index, partner])
    sources = [
        augment.place(base["image"][n], offset, limit=config.shift, pad=config.pad)
        for n, offset in zip(pair, offsets, strict=True)
    ]
    return {
        "image": augment.composite(*sources),
        "sources": jnp.stack(sources),
        "label": label[pair],
    }
