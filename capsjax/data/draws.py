"""Random numbers that are the same on every machine and with every version of NumPy."""

from typing import TypeVar

import numpy as np

Option = TypeVar("Option")


class Draws:
    """Random numbers that depend on a key alone.

    They come from the raw bits of PCG64, which NumPy promises to keep, not from a ``Generator``,
    whose streams may change with NumPy's version.

    Args:
        key: integers that are not negative.
    """

    def __init__(self, *key: int):
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def __call__(self, low: float | int = 0, high: float | int = 1) -> float:
        """A number between two others, evenly."""
        return low + (high - low) * self.share()

    def share(self) -> float:
        """A number from 0 to 1, which every other draw is made of."""
        return (int(self._bits.random_raw()) >> 11) / 2**53

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self() < probability

    def choose(self, *options: Option) -> Option:
        """One of the options, evenly."""
        return options[int(self() * len(options))]


class Relative(Draws):
    """Random numbers near to those of a family, for toys that resemble each other.

    Args:
        family: integers, the key of what its members have in common.
        own: integers, the key of what is the toy's own.
        variety: by how much of its whole range a number may vary within the family.
    """

    def __init__(self, family: tuple[int, ...], own: tuple[int, ...], variety: float):
        super().__init__(*family)
        self._own, self._variety = Draws(*own), variety

    def share(self) -> float:
        """The family's number and a part of the toy's own, thrown back at 0 and at 1."""
        share = abs(super().share() + self._variety * (self._own() - 0.5))
        return min(share, 2 - share)
