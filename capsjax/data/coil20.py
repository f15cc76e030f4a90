"""COIL-20: twenty objects on a turntable, 72 views each, 5 degrees apart, 128 x 128 in grey.

Nene, Nayar and Murase 1996. It has no official split: here every second view trains (0, 10, ...
degrees) and the views between them test.
"""

import hashlib
import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from capsjax import checks
from capsjax.data import prepared, subsets
from capsjax.data.archives import Archive
from capsjax.data.dataset import Arrays, Dataset

ARCHIVES = {
    "all": Archive(
        "http://www.cs.columbia.edu/CAVE/databases/SLAM_coil-20_coil-100/coil-20/coil-20-proc.zip"
    )
}
CLASS_NAMES = tuple(f"object {number}" for number in range(1, 21))
STEP = 5
# Of all pixels, by object, then by view. Nobody publishes a checksum of the archive.
PIXELS_SHA256 = "7274cbacb79ea6c57340827c9f9301745a8e9b3173dea4aa828e00b49c42946c"
_LARGEST = 1_000_000  # bytes of a view, which has 16,384 pixels
_MEMBER = re.compile(r"(?:.*/)?obj(\d+)__(\d+)\.png")


def read(paths: Mapping[str, Path], split: str) -> Arrays:
    """All views from the archive.

    Args:
        paths: of the archive.
        split: "train", which is all of them.

    Returns:
        ``image`` uint8 ``[1440, 128, 128, 1]``, and int32 ``[1440]``: ``label`` (the object) and
        ``azimuth`` (degrees), by object, then by view.

    Raises:
        ValueError: it is no such archive.
        OSError: it cannot be read.
    """
    del split
    path, views = paths["all"], {}
    try:
        with zipfile.ZipFile(checks.regular(path)) as archive, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for member in archive.infolist():
                if match := _MEMBER.fullmatch(member.filename):
                    views[int(match[1]) - 1, int(match[2])] = _pixels(archive, member)
    except Exception as error:  # of the archive or of Pillow, whatever it stumbles over
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"{path} is not a readable .zip of images ({error}); replace it"
        ) from error
    wanted = {(label, view) for label in range(20) for view in range(360 // STEP)}
    if set(views) != wanted:
        raise ValueError(
            f"{path} holds {len(views)} views, expected 1,440: obj1__0.png to obj20__71.png"
        )
    order = sorted(views)
    shapes = {view.shape for view in views.values()}
    if shapes != {(128, 128)}:
        raise ValueError(f"{path} has images of {sorted(shapes)}, expected all of (128, 128)")
    image = np.stack([views[key] for key in order])[..., None]
    label, view = np.array(order, np.int32).T
    return {"image": image, "label": label, "azimuth": STEP * view}


def _pixels(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.file_size > _LARGEST:
        raise ValueError(
            f"{member.filename} has {member.file_size:,} bytes, expected at most {_LARGEST:,}"
        )
    with Image.open(io.BytesIO(archive.read(member)), formats=("PNG",)) as picture:
        return np.asarray(picture.convert("L"))


def check(arrays: Arrays) -> None:
    """Refuse other pixels than the known ones with a ValueError."""
    found = hashlib.sha256(arrays["image"].tobytes()).hexdigest()
    if found != PIXELS_SHA256:
        raise ValueError(
            f"this is not COIL-20: the SHA-256 of the pixels is {found}, expected {PIXELS_SHA256}"
        )


def dataset() -> Dataset:
    """COIL-20 from its prepared folder.

    Splits ``train`` (views at 0, 10, ... degrees), ``test`` (those between them) and ``all``, and
    their parts: ``azimuth_familiar`` (from 300 through 0 to 40 degrees, of all), of which
    ``azimuth_validation`` is every fifth view and ``azimuth_train`` the others, and
    ``azimuth_novel``. Each has ``azimuth`` int32 ``[N]`` in degrees beside image and label.
    """
    return Dataset(
        name="coil20",
        image_shape=(128, 128, 1),
        class_names=CLASS_NAMES,
        sizes={"train": 720, "test": 720, "all": 1440},
        source="Nene, Nayar and Murase 1996",
        licence="for research",
        origin="archives",
        read=_read_split,
        parts={
            "azimuth_train": 320,
            "azimuth_validation": 100,
            "azimuth_familiar": 420,
            "azimuth_novel": 1020,
        },
    )


def _read_split(split: str) -> Arrays:
    features = prepared.read_features("coil20", "train")
    arrays = {
        "image": features["image"],
        "label": features["object_id"],
        "azimuth": features["angle"],
    }
    if split == "azimuth_novel":
        return subsets.viewpoint(arrays, "azimuth")[1]
    if split.startswith("azimuth"):
        arrays = subsets.viewpoint(arrays, "azimuth")[0]
    fifth = arrays["azimuth"] // STEP % 5 == 0
    between = arrays["azimuth"] % (2 * STEP) != 0
    chosen = {
        "train": ~between,
        "test": between,
        "azimuth_train": ~fifth,
        "azimuth_validation": fifth,
    }.get(split, np.full(len(between), True))
    return {key: value[chosen] for key, value in arrays.items()}
