"""smallNORB: 50 toys of five categories from all sides, stereo pairs of 96 x 96 in grey.

LeCun, Huang and Bottou 2004. Each half has 5 categories x 5 instances x 18 azimuths x 9 elevations
x 6 lightings = 24,300 pairs; the test half shows other instances than the training half.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from capsjax.data import prepared
from capsjax.data.archives import Archive
from capsjax.data.dataset import Arrays, Dataset
from capsjax.data.readers import read_norb

_URL = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small"
_TRAINING = f"{_URL}/smallnorb-5x46789x9x18x6x2x96x96-training"
_TESTING = f"{_URL}/smallnorb-5x01235x9x18x6x2x96x96-testing"

ARCHIVES = {
    "train_dat": Archive(
        f"{_TRAINING}-dat.mat.gz",
        131896188,
        "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
    ),
    "train_cat": Archive(
        f"{_TRAINING}-cat.mat.gz",
        348,
        "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa",
    ),
    "train_info": Archive(
        f"{_TRAINING}-info.mat.gz",
        71052,
        "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32",
    ),
    "test_dat": Archive(
        f"{_TESTING}-dat.mat.gz",
        130799817,
        "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
    ),
    "test_cat": Archive(
        f"{_TESTING}-cat.mat.gz",
        347,
        "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff",
    ),
    "test_info": Archive(
        f"{_TESTING}-info.mat.gz",
        10428,
        "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2",
    ),
}
CLASS_NAMES = ("four-legged animals", "human figures", "airplanes", "trucks", "cars")


def read(paths: Mapping[str, Path], split: str) -> Arrays:
    """One split from its three archives.

    Args:
        paths: of the six archives.
        split: "train" or "test".

    Returns:
        ``image`` uint8 ``[N, 96, 96, 2]`` (left and right eye) and int32 ``[N]``: ``label`` (the
        category), ``instance`` (0 to 9), ``azimuth`` and ``elevation`` (degrees: 0, 20, ..., 340
        and 30, 35, ..., 70) and ``lighting`` (0 to 5), in the archives' order.

    Raises:
        ValueError: an archive is not of the format, or the three do not belong together.
        OSError: an archive cannot be read.
    """
    pixels, category, info = (
        read_norb(paths[f"{split}_{part}"]) for part in ("dat", "cat", "info")
    )
    count = len(pixels)
    if (
        pixels.dtype != np.uint8
        or pixels.shape[1:] != (2, 96, 96)
        or category.shape != (count,)
        or info.shape != (count, 4)
    ):
        raise ValueError(
            f"{paths[f'{split}_dat']} and its cat and info have shapes {pixels.shape}, "
            f"{category.shape} and {info.shape}, expected (N, 2, 96, 96), (N,) and (N, 4)"
        )
    ends = np.concatenate([info, category[:, None]], axis=1)
    if count and (ends.min() < 0 or (ends.max(0) > (9, 8, 34, 5, 4)).any()):
        raise ValueError(
            f"{paths[f'{split}_info']} and its cat have values up to {ends.max(0).tolist()}, "
            "expected instance, elevation, azimuth, lighting and category to be at most 9, 8, 34, "
            "5 and 4"
        )
    instance, elevation, azimuth, lighting = info.T.astype(np.int32)
    return {
        "image": np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)),
        "label": category.astype(np.int32),
        "instance": instance,
        "azimuth": 10 * azimuth,
        "elevation": 30 + 5 * elevation,
        "lighting": lighting,
    }


def dataset() -> Dataset:
    """The prepared folder's pairs, as ``read`` gives them but in TFDS's order."""
    return prepared.dataset(
        "smallnorb",
        image_shape=(96, 96, 2),
        class_names=CLASS_NAMES,
        sizes={"train": 24_300, "test": 24_300},
        source="LeCun, Huang and Bottou 2004",
        licence="for research; not to be sold",
        arrays=arrays,
        viewpoints=True,
    )


def arrays(features: Arrays) -> Arrays:
    """A split's arrays of TFDS's features.

    Args:
        features: stacked, each ``[N, ...]``.

    Returns:
        The arrays that ``read`` describes.
    """
    return {
        "image": np.concatenate([features["image"], features["image2"]], axis=-1),
        "label": features["label_category"],
        "instance": features["instance"],
        "azimuth": 20 * features["label_azimuth"],
        "elevation": 30 + 5 * features["label_elevation"],
        "lighting": features["label_lighting"],
    }
