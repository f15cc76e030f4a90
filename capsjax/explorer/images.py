"""From what a person draws or drops to an image that a network takes."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from capsjax import checks
from capsjax.data.files import FORMATS
from capsjax.training.settings import Settings

# A photograph has some megabytes; what is larger is a mistake.
LARGEST_FILE = 10_000_000  # bytes
LARGEST_IMAGE = 40_000_000  # pixels, of which each becomes up to four bytes
SMALLEST = 8  # pixels on a side
_ENOUGH = 1024  # pixels on a side; a network takes fewer
LARGEST_DRAWING = _ENOUGH  # pixels on a side
# Of MNIST: a digit fills 20 of 28 rows, and its centre of mass is in the middle.
_SIDE, _BOX = 28, 20 / 28
_INK = 0.1  # what is fainter is paper
_FAINTEST = 0.2  # that the darkest ink may be
_DIGITS = {"mnist", "affine_mnist", "translated_mnist", "rotated_mnist", "multi_mnist"}


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

    Photographs are turned as their camera was, images of more than 8 bits scaled to 8, transparent
    places become paper. For a network of digits the border's brightness is that of paper, dark ink
    is inverted, and the digit brought to MNIST's size and place; for others the middle square is
    scaled.

    Args:
        path: of the file.
        settings: of the network.

    Returns:
        The image, and what was done.

    Raises:
        ValueError: a file that is too large, no image, or too small or too large an image; with
            what was given, what was expected and what to do.
    """
    file = checks.regular(path)
    if not checks.exists(file) or file.is_dir():
        raise ValueError(f"{file.name} is no file that is there, expected an image: give its path")
    size = file.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(
            f"{file.name} has {size / 1e6:.0f} MB, expected at most {LARGEST_FILE / 1e6:.0f}: save "
            "a smaller copy"
        )
    picture, notes = _read(file)
    return _as_taken(np.asarray(picture, np.float32) / 255, settings, notes)


def sketched(layers: list[np.ndarray], settings: Settings) -> Taken | None:
    """Strokes as the network takes them.

    Args:
        layers: uint8 ``[H, W, 4]`` each; how opaque a place is is how much ink it has.
        settings: of the network.

    Returns:
        The image; None where nothing was drawn.

    Raises:
        ValueError: a drawing that is too large.
    """
    if not layers:
        return None
    for layer in layers:
        if not checks.is_array(layer) or layer.dtype != np.uint8 or layer.shape[2:] != (4,):
            raise ValueError(f"a layer is {checks.shown(layer)}, expected uint8 [H, W, 4]")
        if layer.shape != layers[0].shape or 0 in layer.shape:
            raise ValueError(
                f"layers have shapes {layers[0].shape} and {layer.shape}, expected one that is not "
                "empty"
            )
    if max(layers[0].shape) > LARGEST_DRAWING:
        raise ValueError(
            f"the drawing is {layers[0].shape[:2]}, expected at most {LARGEST_DRAWING} a side"
        )
    ink = np.max([layer[..., 3] for layer in layers], axis=0) / 255
    if ink.max() < _FAINTEST:
        return None
    return _as_taken(ink, settings, [], inverted=False)


@checks.arguments
def centred(ink: Float[np.ndarray, "h w"], side: int) -> np.ndarray:
    """Strokes brought to the size and the place that MNIST's digits have.

    Args:
        ink: float ``[H, W]`` from 0 (paper) to 1, with some ink.
        side: of the square that comes out.

    Returns:
        float ``[side, side]``: the longer side of the digit fills 20 of 28, and its centre of mass
        is in the middle.

    Raises:
        ValueError: no ink, or no side.

    Source: LeCun, Cortes and Burges, the description of MNIST.
    """
    checks.sizes(side=side, most=_ENOUGH)
    if not ((ink >= 0) & (ink <= 1)).all() or not (ink > _INK).any():
        raise ValueError(
            f"ink is {ink.min()} to {ink.max()}, expected 0 to 1, and some above {_INK}"
        )
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


def _read(file: Path) -> tuple[Image.Image, list[str]]:
    """A grey or coloured image of 8 bits, no larger than enough, and what was done."""
    try:
        with warnings.catch_warnings():
            # Pillow's own alarm of images that are too large: ours is said in full below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as opened:
                _check_sides(file, opened.size)
                opened.draft("RGB", (_ENOUGH, _ENOUGH))
                opened.load()
                return _of_8_bits(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{file.name} has far too many pixels, expected at most {LARGEST_IMAGE / 1e6:.0f} "
            "million: save a smaller copy"
        ) from error
    except _Refused:
        raise
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise ValueError(
            f"{file.name} cannot be read as an image: give a whole file of one of the formats "
            f"{', '.join(FORMATS)}"
        ) from error


class _Refused(ValueError):
    """An image that was read and cannot be taken."""


def _of_8_bits(opened: Image.Image) -> tuple[Image.Image, list[str]]:
    notes: list[str] = []
    mode = opened.mode
    if mode.startswith(("I", "F")):
        picture = _scaled(np.asarray(opened, np.float32), mode, notes)
    elif opened.has_transparency_data:
        notes.append("Transparent places were taken as white paper.")
        clear = _smaller(opened.convert("RGBA"))
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    else:
        picture = opened
    colored = mode not in ("1", "L", "LA", "La") and not mode.startswith(("I", "F"))
    return _smaller(picture.convert("RGB" if colored else "L")), notes


def _scaled(values: np.ndarray, mode: str, notes: list[str]) -> Image.Image:
    """Of more than 8 bits; of integers the whole range is black to white."""
    if not np.isfinite(values).all():
        raise _Refused("the image has pixels that are no numbers: save it anew")
    low, high = float(values.min()), float(values.max())
    if mode.startswith("F"):
        notes.append(f"Its numbers from {low:g} to {high:g} were scaled to black to white.")
    else:
        notes.append("Its 16 bits were scaled to 8.")
        low, high = 0.0, 65535.0 if high > 255 else 255.0
    scaled = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return Image.fromarray(np.round(255 * scaled).astype(np.uint8))


def _smaller(picture: Image.Image) -> Image.Image:
    """The same where it is not larger than enough."""
    if max(picture.size) > _ENOUGH:
        picture = picture.copy()
        picture.thumbnail((_ENOUGH, _ENOUGH))
    return picture


def _check_sides(file: Path, size: tuple[int, int]) -> None:
    width, height = size
    if min(size) < SMALLEST:
        raise _Refused(
            f"{file.name} is {width} wide and {height} high, expected at least {SMALLEST} of both: "
            "give a larger image"
        )
    if width * height > LARGEST_IMAGE:
        raise _Refused(
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
        paper = float(np.median(border))
        if (paper > 0.5) if inverted is None else inverted:
            ink = paper - ink
            notes.append("Dark ink on bright paper was inverted.")
        elif inverted is None:
            ink = ink - paper
        if ink.max() < _FAINTEST:
            raise ValueError("the image is blank: give one with a digit in it")
        digit = centred(np.clip(ink / ink.max(), 0, 1), _SIDE)
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
