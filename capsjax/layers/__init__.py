"""Thin Flax NNX modules: they own arrays and call functions."""

from capsjax.layers.decoder import DenseDecoder
from capsjax.layers.dense import DenseCapsules
from capsjax.layers.primary import Convolution, PrimaryCapsules

__all__ = ["Convolution", "DenseCapsules", "DenseDecoder", "PrimaryCapsules"]
