"""CIFAR-10's real images: as prepared from the archive, or the part of them that is at hand."""

import hashlib
import io
import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from capsjax import data
from capsjax.data import cifar10, prepared
from capsjax.data.archives import MANUAL, manual_dir


def find() -> data.Dataset:
    """CIFAR-10, prepared; else what ``CAPSJAX_MANUAL_DIR/cifar10`` holds of it.

    Returns:
        The data set. Its ``source`` says how much of it there is.

    Raises:
        ValueError: there is neither, or a file is damaged.
    """
    if prepared.folder_of("cifar10") is not None:
        return data.find("cifar10")
    place = manual_dir()
    folder = None if place is None else place / "cifar10"
    if folder is None or not (folder / "test.npz").is_file():
        raise ValueError(
            "no images of CIFAR-10 are at hand: make them with capsjax datasets prepare cifar10, "
            f"or set {MANUAL} to a folder with cifar10/test.npz and cifar10/train_*.npz (it is "
            f"{os.environ.get(MANUAL) or 'not set'})"
        )
    shards = sorted(folder.glob("train_*.npz"))
    if not shards:
        raise ValueError(f"{folder} holds test images only, expected train_*.npz beside them")
    parts = [read(shard) for shard in shards]
    train = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    test = read(folder / "test.npz")
    found = data.from_arrays(
        train["image"],
        train["label"],
        test_images=test["image"],
        test_labels=test["label"],
        class_names=cifar10.CLASS_NAMES,
        name="cifar10",
    )
    share = f"{len(train['label']):,} of the 50,000 training images at hand"
    return replace(found, source=f"Krizhevsky 2009, {share}")


def read(path: Path) -> data.Arrays:
    """Images that were packed without loss.

    Args:
        path: an ``.npz`` with ``blob`` uint8 (image files, one after another), ``offsets`` ``[N +
            1]`` (where each begins and ends in it), ``label`` ``[N]`` and ``sha256`` of all pixels.

    Returns:
        ``{"image": uint8 [N, 32, 32, 3], "label": int32 [N]}``.

    Raises:
        ValueError: the pixels are not those that the checksum is of.
    """
    with np.load(path) as packed:
        blob, ends = packed["blob"].tobytes(), packed["offsets"].astype(int)
        label, expected = packed["label"].astype(np.int32), str(packed["sha256"])
    images = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(blob[start:end])).convert("RGB"))
            for start, end in itertools.pairwise(ends)
        ]
    )
    if (found := hashlib.sha256(images.tobytes()).hexdigest()) != expected:
        raise ValueError(f"{path} is damaged: its pixels' SHA-256 is {found}, expected {expected}")
    return {"image": images, "label": label}
