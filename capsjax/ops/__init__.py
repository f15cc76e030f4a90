"""The mathematics below a routing: squashing, votes, convolution."""

from capsjax.ops.convolution import conv2d
from capsjax.ops.squash import safe_norm, squash, squash_exponential
from capsjax.ops.votes import add_coordinates, dense_votes, shared_votes
from capsjax.ops.windows import coordinates_of, slots_of, windows_of

__all__ = [
    "add_coordinates",
    "conv2d",
    "coordinates_of",
    "dense_votes",
    "safe_norm",
    "shared_votes",
    "slots_of",
    "squash",
    "squash_exponential",
    "windows_of",
]
