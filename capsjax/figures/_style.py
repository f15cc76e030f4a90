"""What all figures share: colours, markers, and checks of what comes in."""

import io
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import ArrayLike

from capsjax import checks

# Okabe and Ito's palette, without its yellow, which is lost on white paper, and with a grey.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#666666"
COLORS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, GREY)

# Colour alone does not survive a black and white printer.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
# What axes can be scaled to.
_LARGEST = 1e100

LINES = ("-", "--", "-.", ":")

# From paper white to nearly black, so that it also reads in grey.
SHARES = LinearSegmentedColormap.from_list("shares", ["#FFFFFF", SKY, BLUE, "#00223A"])


class Figure(matplotlib.figure.Figure):
    """Matplotlib's, seen in a notebook also before pyplot has drawn anything there."""

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png")
        return drawn.getvalue()


def line_style(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the index-th curve."""
    color, marker = color_and_marker(index)
    return {"color": color, "marker": marker, "linestyle": LINES[index % len(LINES)]}


def color_and_marker(index: int) -> tuple[str, str]:
    """Those of the index-th parent or curve; the first 64 pairs differ."""
    turn = index // len(COLORS)
    return COLORS[index % len(COLORS)], MARKERS[(index + turn) % len(MARKERS)]


def draw_image(axis: Any, image: np.ndarray) -> None:
    """An image ``[H, W, C]`` from 0 to 1: grey, a pair of grey ones side by side, or colours."""
    channels = image.shape[-1]
    shown = np.concatenate(np.moveaxis(image, -1, 0), axis=1) if channels < 3 else image[..., :3]
    axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def checked(name: str, values: ArrayLike, *axes: str | int) -> np.ndarray:
    """The values as a float array, if its axes are those expected.

    Args:
        name: what the caller calls the values.
        values: an array of any kind.
        axes: one entry per axis: its size, or a word for an axis of any size but 0.

    Returns:
        A float array.

    Raises:
        TypeError: no numbers.
        ValueError: another shape, with what was given and what was expected; a number too large to
            draw.
    """
    array = checks.floats(name, values)
    fits = array.ndim == len(axes) and all(
        size == axis if isinstance(axis, int) else size > 0
        for size, axis in zip(array.shape, axes, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(axis) for axis in axes)
        raise ValueError(f"{name} have shape {array.shape}, expected [{wanted}]")
    largest = np.abs(array[np.isfinite(array)]).max(initial=0)
    if largest > _LARGEST:
        raise ValueError(f"{name} hold {largest:g}, expected at most {_LARGEST:g}")
    return array


def known(name: str, values: np.ndarray) -> np.ndarray:
    """The values, if all are finite, where no gap can be drawn for one.

    Raises:
        ValueError: one is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise ValueError(f"{name} hold NaN or infinity, expected finite numbers")
    return values


def checked_names(kind: str, names: Iterable[str] | None, count: int) -> list[str]:
    """The names, if there are as many as needed; "KIND 0", "KIND 1", ... for None.

    Raises:
        ValueError: more names or fewer.
    """
    if names is None:
        return [f"{kind} {number}" for number in range(count)]
    given = list(names)
    if len(given) != count:
        raise ValueError(f"{len(given)} names given, expected {count}, one for each {kind}")
    return given


def chosen(iterations: Sequence[int] | None, count: int, *, most: int) -> list[int]:
    """Iterations to show, as numbers from 1.

    Args:
        iterations: numbers from 1; None is at most ``most`` of them, the first and the last among
            them, the others evenly between.
        count: how many iterations there are.
        most: for None only.

    Raises:
        ValueError: none asked for, or one that there is not.
    """
    if iterations is None:
        return [int(i) for i in np.unique(np.linspace(1, count, min(most, count)).round())]
    numbers = list(iterations)
    if not numbers or min(numbers) < 1 or max(numbers) > count:
        raise ValueError(f"iterations are {numbers}, expected some of 1 to {count}")
    return numbers


def quieten(axis: Any) -> None:
    """No frame at the top and the right, and a faint grid."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#E5E5E5", lw=0.6)
    axis.set_axisbelow(True)
