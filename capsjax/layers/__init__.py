"""Thin Flax NNX modules: they own arrays and call functions."""

from capsjax.layers.cells import CapsuleConvolution, ResidualCapsules, SharedKernelCapsules
from capsjax.layers.conv import ConvolutionalCapsules
from capsjax.layers.convolution import Convolution
from capsjax.layers.decoder import (
    ClassIndependentDecoder,
    ConvolutionalDecoder,
    DenseDecoder,
)
from capsjax.layers.dense import ClassCapsules, DenseCapsules
from capsjax.layers.primary import (
    DepthwisePrimaryCapsules,
    MatrixPrimaryCapsules,
    PrimaryCapsules,
)
from capsjax.layers.residual import NormalisedConvolution, ResidualBlock, ResidualTrunk

__all__ = [
    "CapsuleConvolution",
    "ClassCapsules",
    "ClassIndependentDecoder",
    "Convolution",
    "ConvolutionalCapsules",
    "ConvolutionalDecoder",
    "DenseCapsules",
    "DenseDecoder",
    "DepthwisePrimaryCapsules",
    "MatrixPrimaryCapsules",
    "NormalisedConvolution",
    "PrimaryCapsules",
    "ResidualBlock",
    "ResidualCapsules",
    "ResidualTrunk",
    "SharedKernelCapsules",
]
