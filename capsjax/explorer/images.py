"""From what a person draws or drops to an image that a network takes."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from capsjax.training.settings import Settings

# A photograph has some megabytes; what is larger is a mistake.
LARGEST_FILE = 10_000_000  # bytes
LARGEST_IMAGE = 40_000_000  # pixels, of which each becomes four bytes
SMALLEST = 8  # pixels on a side
# Of MNIST: a digit fills 20 of 28 rows, and its centre of mass is in the middle.
_BOX = 20 / 28
_INK = 0.1  # what is fainter is paper
_DIGITS = {"mnist", "affine_mnist", "translated_mnist", "rotated_mnist", "multi_mnist"}
_FORMATS = "PNG, JPEG, BMP, GIF, WebP or TIFF"


class Taken(NamedTuple):
    """An image as a network takes it.

    Attributes:
        image: uint8 ``[H, W, C]``.
        notes: what was done to make it so, a sentence each.
    """

    image: np.ndarray
    notes: tuple[str, ...]


def uploaded(path: str | Path, settings: Settings) -> Taken:
    """A file as the network takes it.

    Grey images of 16 bits are scaled to 8, transparent places become paper. For a network of
    digits, ink on bright paper is inverted, and the digit brought to MNIST's size and place; for
    others the middle square is scaled.

    Args:
        path: of the file.
        settings: of the network.

    Returns:
        The image, and what was done.

    Raises:
        ValueError: a file that is too large, no image, or too small or too large an image; with
            what was given, what was expected and what to do.
    """
    file = Path(path)
    size = file.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(
            f"{file.name} has {size / 1e6:.0f} MB, expected at most {LARGEST_FILE / 1e6:.0f}: save "
            "a smaller copy"
        )
    grey, notes = _read(file)
    return _as_taken(grey, settings, notes)


def sketched(layers: list[np.ndarray], settings: Settings) -> Taken | None:
    """Strokes as the network takes them.

    Args:
        layers: uint8 ``[H, W, 4]`` each; how opaque a place is is how much ink it has.
        settings: of the network.

    Returns:
        The image; None where nothing was drawn.
    """
    if not layers:
        return None
    ink = np.max([layer[..., 3] for layer in layers], axis=0) / 255
    if not (ink > _INK).any():
        return None
    return _as_taken(ink, settings, [], inverted=False)


def centred(ink: np.ndarray, side: int) -> np.ndarray:
    """Strokes brought to the size and the place that MNIST's digits have.

    Args:
        ink: float ``[H, W]`` from 0 (paper) to 1, with some ink.
        side: of the square that comes out.

    Returns:
        float ``[side, side]``: the longer side of the digit fills 20 of 28, and its centre of mass
        is in the middle.

    Source: LeCun, Cortes and Burges, the description of MNIST.
    """
    rows, columns = (np.flatnonzero((ink > _INK).any(axis)) for axis in (1, 0))
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    longest = round(side * _BOX)
    scale = longest / max(digit.shape)
    height, width = (max(1, round(scale * n)) for n in digit.shape)
    picture = Image.fromarray(np.round(255 * digit).astype(np.uint8))
    small = np.asarray(picture.resize((width, height), Image.Resampling.BOX), float) / 255
    mass = small.sum()
    middle = side / 2  # measured on 500 test digits: 13.98 and 14.01, within 0.3
    top = round(middle - float((small.sum(1) * np.arange(height)).sum() / mass))
    left = round(middle - float((small.sum(0) * np.arange(width)).sum() / mass))
    top, left = (min(max(0, at), side - n) for at, n in ((top, height), (left, width)))
    out = np.zeros((side, side))
    out[top : top + height, left : left + width] = small
    return out


def _read(file: Path) -> tuple[np.ndarray, list[str]]:
    """Float ``[H, W]`` or ``[H, W, 3]`` from 0 to 1, and what was done."""
    notes: list[str] = []
    try:
        with warnings.catch_warnings():
            # Pillow's own alarm of images that are too large: ours is said in full below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                _check_sides(file, opened.size)
                opened.load()
                picture: Image.Image = opened
                mode = picture.mode
                if mode.startswith(("I", "F")):
                    return _deep(np.asarray(picture, float), notes)
                if "A" in picture.getbands() or "transparency" in picture.info:
                    notes.append("Transparent places were taken as white paper.")
                    paper = Image.new("RGBA", picture.size, "white")
                    picture = Image.alpha_composite(paper, picture.convert("RGBA"))
                colored = mode not in ("1", "L", "LA")
                return np.asarray(picture.convert("RGB" if colored else "L"), float) / 255, notes
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, Image.DecompressionBombError):
            raise ValueError(
                f"{file.name} has far too many pixels, expected at most "
                f"{LARGEST_IMAGE / 1e6:.0f} million: save a smaller copy"
            ) from error
        raise ValueError(
            f"{file.name} cannot be read as an image: give a {_FORMATS} file that is whole"
        ) from error


def _deep(values: np.ndarray, notes: list[str]) -> tuple[np.ndarray, list[str]]:
    notes.append("Its 16 bits were scaled to 8.")
    return np.clip(values / (65535 if values.max() > 255 else 255), 0, 1), notes


def _check_sides(file: Path, size: tuple[int, int]) -> None:
    width, height = size
    if min(size) < SMALLEST:
        raise ValueError(
            f"{file.name} is {width} wide and {height} high, expected at least {SMALLEST} of both: "
            "give a larger image"
        )
    if width * height > LARGEST_IMAGE:
        raise ValueError(
            f"{file.name} has {width * height / 1e6:.0f} million pixels, expected at most "
            f"{LARGEST_IMAGE / 1e6:.0f} million: save a smaller copy"
        )


def _as_taken(
    values: np.ndarray, settings: Settings, notes: list[str], *, inverted: bool | None = None
) -> Taken:
    height, width, channels = settings.shape_of_data
    if settings.dataset in _DIGITS:
        ink = values if values.ndim == 2 else values.mean(-1)
        border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
        if (border.mean() > 0.5) if inverted is None else inverted:
            ink = 1 - ink
            notes.append("Dark ink on bright paper was inverted.")
        if not (ink > _INK).any():
            raise ValueError("the image is blank: give one with a digit in it")
        digit = centred(ink, min(height, width))
        out = np.zeros((height, width, 1))
        top, left = (height - len(digit)) // 2, (width - len(digit)) // 2
        out[top : top + len(digit), left : left + len(digit), 0] = digit
        notes.append("The digit was brought to MNIST's size and place.")
        return Taken(np.round(255 * out).astype(np.uint8), tuple(notes))
    side = min(values.shape[:2])
    top, left = ((n - side) // 2 for n in values.shape[:2])
    square = np.round(255 * values[top : top + side, left : left + side]).astype(np.uint8)
    picture = Image.fromarray(square).convert("RGB" if channels == 3 else "L")
    if picture.size != (width, height):
        notes.append(f"The middle square was scaled to {width} x {height}.")
    small = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
    small = small if small.ndim == 3 else np.repeat(small[..., None], channels, axis=-1)
    return Taken(small, tuple(notes))
