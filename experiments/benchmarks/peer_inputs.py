"""What every peer of the speed benchmark starts from: the same weights and the same digits.

Only the standard library is used, so that an environment needs nothing but its framework. Weights
are bytes from one generator, read as int32: two frameworks that scale them alike compute the same
function from the first step on, and their first losses can be compared.
"""

import gzip
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

NETWORKS = ("capsnet", "efficient_capsnet")
# Trainable, with the decoder.
PARAMETERS = {"capsnet": 8_215_568, "efficient_capsnet": 1_573_168}

_MNIST = Path(__file__).parents[2] / "capsjax" / "data" / "mnist"
_SIDE = 28


class Weight(NamedTuple):
    """One array: ``centre + scale * u``, u uniform in [-1, 1).

    Attributes:
        name: ending in "mean" or "variance" for running statistics, which are not trained.
        shape: convolutions ``[rows, columns, in, out]``, matrices ``[in, out]``, the capsules'
            ``[children, parents, dim, child_dim]``.
        centre: the mean.
        scale: half the width.
        raw: u as native int32, divided by 2^31.
    """

    name: str
    shape: tuple[int, ...]
    centre: float
    scale: float
    raw: bytearray

    @property
    def trained(self) -> bool:
        """Whether it is a parameter."""
        return not self.name.endswith(("mean", "variance"))


def weights(network: str, seed: int = 0) -> dict[str, Weight]:
    """All arrays of a network by name, in a fixed order.

    Biases, offsets and running statistics are not what a network starts with but drawn too: with
    zeros and ones a mistake in them would not show.
    """
    generator = random.Random(seed)
    found = {}
    for name, shape, centre, scale in _shapes(network):
        raw = bytearray(generator.randbytes(4 * math.prod(shape)))
        found[name] = Weight(name, shape, centre, scale, raw)
    count = sum(math.prod(w.shape) for w in found.values() if w.trained)
    if count != PARAMETERS[network]:
        raise AssertionError(f"{network} has {count} parameters, expected {PARAMETERS[network]}")
    return found


def _shapes(network: str) -> Iterator[tuple[str, tuple[int, ...], float, float]]:
    if network == "capsnet":
        yield from _affine("first", (9, 9, 1, 256))
        yield from _affine("second", (9, 9, 256, 256))
        yield "capsules", (1152, 10, 16, 8), 0.0, 0.1
    else:
        rows = zip((5, 3, 3, 3), (1, 32, 64, 64), (32, 64, 64, 128), strict=True)
        for number, (kernel, channels, features) in enumerate(rows):
            yield from _affine(f"conv{number}", (kernel, kernel, channels, features))
            yield f"conv{number}.gain", (features,), 1.0, 0.1
            yield f"conv{number}.offset", (features,), 0.0, 0.1
            yield f"conv{number}.mean", (features,), 0.3, 0.1
            yield f"conv{number}.variance", (features,), 0.5, 0.1
        yield from _affine("primary", (9, 9, 1, 128))
        yield "capsules", (16, 10, 16, 8), 0.0, 0.2
        yield "prior", (16, 10), 0.0, 0.05
    for number, (a, b) in enumerate(((160, 512), (512, 1024), (1024, 784))):
        yield from _affine(f"dense{number}", (a, b))


def _affine(
    name: str, shape: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...], float, float]]:
    """A kernel whose outputs are as wide as its inputs, and its bias."""
    yield f"{name}.kernel", shape, 0.0, math.sqrt(3 / math.prod(shape[:-1]))
    yield f"{name}.bias", shape[-1:], 0.0, 0.02


def digits(count: int) -> tuple[bytes, list[int]]:
    """MNIST's first training images, as many rows of 784 bytes, and their labels."""
    images = _content("train-images-idx3-ubyte.gz", 16, count * _SIDE**2)
    return images, list(_content("train-labels-idx1-ubyte.gz", 8, count))


def _content(name: str, header: int, length: int) -> bytes:
    with gzip.open(_MNIST / name) as file:
        file.read(header)
        return file.read(length)
