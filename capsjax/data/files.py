"""The user's own images: an ``.npz`` file, or a folder with one folder of images per class.

An ``.npz`` holds ``image`` and ``label``, and may hold ``test_image`` and ``test_label``. A folder
may hold the folders ``train`` and ``test`` instead of classes. The ``.mat`` files of affNIST are
read as they are. Where no test images are given, a tenth of all images is set aside for testing,
always the same tenth.
"""

import logging
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from capsjax import checks
from capsjax.data.affnist import read_affnist
from capsjax.data.dataset import Arrays, Dataset, check_arrays

_logger = logging.getLogger("capsjax")

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
# Pillow has readers of more, some of which start other programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_ANEW = f"save it anew, as one of {', '.join(FORMATS)}"
_GREY = {"1", "L", "LA", "I", "I;16"}
_DAMAGED = (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError)
_TEST_SHARE = 10
_MOST_CLASSES, _FEW = 100_000, 5


def dataset(path: Path) -> Dataset:
    """Read the user's images.

    Args:
        path: an ``.npz`` file, a folder, or a ``.mat`` file of affNIST.

    Returns:
        The data set, with splits ``train``, ``test`` and ``all``.

    Raises:
        ValueError: the files are not of one of these forms.
        OSError: a file cannot be read.
    """
    names: tuple[str, ...] | None
    if path.suffix == ".mat":
        parts, names = {"train": read_affnist(path)}, tuple("0123456789")
    else:
        parts, names = _read_folders(path) if path.is_dir() else _read_npz(path)
    return _of_parts(parts, names, str(path))


@checks.arguments(empty=True)
def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    test_images: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
    class_names: tuple[str, ...] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A data set of arrays in memory.

    Args:
        images: uint8 ``[N, H, W]`` or ``[N, H, W, C]`` from 0 to 255.
        labels: integer ``[N]``, counting the classes from 0.
        test_images: to test on; None sets a tenth of all images aside, always the same tenth.
        test_labels: theirs.
        class_names: one for each class; None is their numbers.
        name: of the data set, for messages.

    Returns:
        The data set, with splits ``train``, ``test`` and ``all``.

    Raises:
        ValueError: other shapes or dtypes, only one of the two test arrays, or too few names.

    Example:
        >>> images, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
        >>> from_arrays(images, labels).sizes
        {'train': 18, 'test': 2, 'all': 20}
    """
    parts = {"train": check_arrays({"image": images, "label": labels}, where=name)}
    if (test_images is None) != (test_labels is None):
        raise ValueError("one of test_images and test_labels is given, expected both or none")
    if test_images is not None and test_labels is not None:
        test = {"image": test_images, "label": test_labels}
        parts["test"] = check_arrays(test, where=f"the test part of {name}")
    dataset = _of_parts(parts, class_names, name)
    largest = max(int(part["label"].max()) for part in parts.values())
    if largest >= dataset.num_classes:
        raise ValueError(
            f"{name} has {dataset.num_classes} class names and labels up to {largest}, expected a "
            "name for each class"
        )
    return dataset


def _of_parts(parts: dict[str, Arrays], names: tuple[str, ...] | None, where: str) -> Dataset:
    if "test" in parts:
        shapes = [part["image"].shape[1:] for part in parts.values()]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{where} has training images of shape {shapes[0]} and test images of shape "
                f"{shapes[1]}, expected one shape"
            )
        parts["all"] = {
            key: np.concatenate([parts["train"][key], parts["test"][key]])
            for key in ("image", "label")
        }
    else:
        parts = _hold_out(parts["train"], where)
    height, width, channels = parts["all"]["image"].shape[1:]
    labels = parts["all"]["label"].tolist()
    highest = max(labels)
    if highest >= _MOST_CLASSES:
        raise ValueError(
            f"{where} has labels up to {highest}, expected less than {_MOST_CLASSES}: labels count "
            "the classes from 0"
        )
    names = names or tuple(map(str, range(highest + 1)))
    if without := [names[number] for number in sorted({*range(len(names))} - {*labels})]:
        more = f" and {len(without) - _FEW} more" if len(without) > _FEW else ""
        _logger.warning(
            "%s has labels up to %d and no image of class %s: labels count the classes from 0",
            where,
            highest,
            ", ".join(without[:_FEW]) + more,
        )
    return Dataset(
        name=where,
        image_shape=(height, width, channels),
        class_names=names,
        sizes={split: len(part["label"]) for split, part in parts.items()},
        source="the user's own",
        licence="the user's own",
        origin="the user's own",
        read=parts.__getitem__,
    )


def _hold_out(arrays: Arrays, where: str) -> dict[str, Arrays]:
    count = len(arrays["label"])
    if count < 2:
        raise ValueError(f"{where} holds one image, expected at least one to train and one to test")
    order = np.random.default_rng(0).permutation(count)
    test = np.zeros(count, bool)
    test[order[: max(1, count // _TEST_SHARE)]] = True
    return {
        "train": {key: value[~test] for key, value in arrays.items()},
        "test": {key: value[test] for key, value in arrays.items()},
        "all": arrays,
    }


def _read_npz(path: Path) -> tuple[dict[str, Arrays], tuple[str, ...] | None]:
    if path.suffix != ".npz":
        raise ValueError(
            f"{path} is neither a folder nor an .npz file: give a folder with one folder of images "
            "per class, or an .npz with arrays image and label"
        )
    try:
        checks.regular(path)
        # Opened here: np.load would leave the file open where it finds it damaged.
        with path.open("rb") as file:
            archive = np.load(file)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            with archive:
                content = {key: archive[key] for key in archive.files}
    except (*_DAMAGED, ValueError, KeyError, MemoryError, OverflowError) as error:
        # NumPy's own words advise to load ``pickle`` files.
        own = "it is no archive of arrays, or of Python's objects"
        reason = own if "allow_pickle" in str(error) else error
        raise ValueError(f"{path} is not a readable .npz file ({reason})") from error
    parts = {"train": check_arrays(content, where=str(path))}
    if "test_image" in content or "test_label" in content:
        test = {
            key: content[f"test_{key}"] for key in ("image", "label") if f"test_{key}" in content
        }
        parts["test"] = check_arrays(test, where=f"the test part of {path}")
    return parts, None


def _read_folders(path: Path) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    roots = {split: path / split for split in ("train", "test") if (path / split).is_dir()}
    if "train" not in roots:
        roots = {"train": path}
    names = sorted(
        folder.name
        for folder in roots["train"].iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
    )
    if len(names) < 2:
        raise ValueError(
            f"{roots['train']} holds {len(names)} folders, expected one folder of images for each "
            "of at least two classes"
        )
    return {split: _read_classes(root, names) for split, root in roots.items()}, tuple(names)


def _read_classes(root: Path, names: list[str]) -> Arrays:
    unknown = sorted({folder.name for folder in root.iterdir() if folder.is_dir()} - {*names})
    if unknown := [name for name in unknown if not name.startswith(".")]:
        raise ValueError(f"{root} holds the class {unknown[0]!r}, which the training images lack")
    files = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((root / name).glob("*"))
        if file.suffix.lower() in _SUFFIXES
    ]
    if not files:
        raise ValueError(f"the folders in {root} hold no images ({', '.join(sorted(_SUFFIXES))})")
    images = [read_image(file) for file, _ in files]
    channels = max(image.shape[2] for image in images)
    for (file, _), image in zip(files, images, strict=True):
        if image.shape[:2] != images[0].shape[:2]:
            raise ValueError(
                f"expected images of one size, got {file}, {image.shape[1]} wide and "
                f"{image.shape[0]} high, beside {files[0][0]}, {images[0].shape[1]} wide and "
                f"{images[0].shape[0]} high: bring all to one size first"
            )
    # A set of mixed grey and colour images becomes a colour one.
    stacked = np.stack([np.broadcast_to(image, (*image.shape[:2], channels)) for image in images])
    labels = np.array([label for _, label in files])
    return check_arrays({"image": stacked, "label": labels}, where=str(root))


def read_image(path: Path, *, channels: int | None = None) -> np.ndarray:
    """An image file as an array.

    Args:
        path: of one of the formats of ``FORMATS``, whatever its name.
        channels: 1 for grey, 3 for colour; None keeps what the file has.

    Returns:
        uint8 ``[height, width, channels]``.

    Raises:
        ValueError: it is no image, or a broken one, or ``channels`` is something else.
        OSError: the file cannot be read.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"image files have 1 or 3 channels, {channels} were asked of {path}")
    checks.regular(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _pixels(path, channels)
    except Image.DecompressionBombWarning as error:
        raise ValueError(f"{path} has too many pixels ({error}): save a smaller copy") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(f"{path} is not a readable image ({error}): {_ANEW}") from error
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise ValueError(f"{path} is not a readable image ({error}): {_ANEW}") from error


def _pixels(path: Path, channels: int | None) -> np.ndarray:
    with Image.open(path, formats=FORMATS) as file:
        image: Image.Image = file
        grey = image.mode in _GREY if channels is None else channels == 1
        if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if pixels.ndim == 2 else pixels
