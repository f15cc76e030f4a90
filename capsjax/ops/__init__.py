"""The mathematics below a routing: squashing, votes, convolution."""

from capsjax.ops.convolution import conv2d
from capsjax.ops.squash import safe_norm, squash, squash_exponential
from capsjax.ops.votes import dense_votes

__all__ = ["conv2d", "dense_votes", "safe_norm", "squash", "squash_exponential"]
