"""Thin Flax NNX modules: they own arrays and call functions."""

from capsjax.layers.conv import ConvolutionalCapsules
from capsjax.layers.convolution import Convolution
from capsjax.layers.decoder import DenseDecoder
from capsjax.layers.dense import ClassCapsules, DenseCapsules
from capsjax.layers.primary import (
    DepthwisePrimaryCapsules,
    MatrixPrimaryCapsules,
    PrimaryCapsules,
)
from capsjax.layers.residual import NormalisedConvolution, ResidualBlock, ResidualTrunk

__all__ = [
    "ClassCapsules",
    "Convolution",
    "ConvolutionalCapsules",
    "DenseCapsules",
    "DenseDecoder",
    "DepthwisePrimaryCapsules",
    "MatrixPrimaryCapsules",
    "NormalisedConvolution",
    "PrimaryCapsules",
    "ResidualBlock",
    "ResidualTrunk",
]
