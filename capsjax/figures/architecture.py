"""A network drawn from its layers: maps as sheets, capsules as bars in a grid."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from matplotlib.patches import Rectangle

from capsjax import checks
from capsjax.figures._style import BLUE, GREEN, GREY, ORANGE, PURPLE, Figure

_A_LINE = 7  # so many layers side by side
_WIDTH, _HEIGHT = 3.0, 3.0  # of the place of one, in its own units
_LARGEST = 1.5  # side of the largest map
_SHEETS, _BARS = 6, 10  # at most so many are drawn of a stack


class Layer(Protocol):
    """What is drawn of a layer; ``models.summary.Row`` is one."""

    @property
    def path(self) -> str:
        """Its name; one without is not drawn."""

    @property
    def kind(self) -> str:
        """What it is called by."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Maps ``[H, W, C]``, capsules ``[H, W, types, dim]`` or ``[capsules, dim]``."""

    @property
    def parameters(self) -> int:
        """How many it has."""


@checks.arguments(empty=True, nan=True)
def architecture(
    layers: Sequence[Layer], image_shape: tuple[int, int, int], *, title: str = ""
) -> Figure:
    """The layers of a network in the order of their calls, from the image on.

    Maps are stacks of sheets whose sides go with the map's, capsules in rows and columns stacks of
    dotted sheets, capsules without places bars as long as their dimension, decoded images green.
    Stacks of many are cut short; the numbers below are exact.

    Args:
        layers: as ``capsjax.models.summary.summary`` lists them.
        image_shape: height, width and channels.
        title: above all.

    Returns:
        A figure of one axis.

    Raises:
        ValueError: no layers.

    Example:
        >>> from flax import nnx
        >>> from capsjax import models
        >>> from capsjax.models.summary import summary
        >>> network = nnx.eval_shape(lambda: models.create("capsnet"))
        >>> figure = architecture(summary(network), (28, 28, 1), title="capsnet")
        >>> [text.get_text() for text in figure.axes[0].texts][1].splitlines()
        ['convolution', '20 x 20 x 256', 'Convolution', '20,992 parameters']
    """
    named = [layer for layer in layers if layer.path]
    if not named:
        raise ValueError("layers are empty, expected the rows of models.summary.summary")
    lines = math.ceil((len(named) + 1) / _A_LINE)
    columns = min(_A_LINE, len(named) + 1)
    figure = Figure(figsize=(1.55 * columns, 1.75 * lines + 0.4), layout="constrained")
    axis = figure.subplots()
    sides = [max(image_shape[:2]), *(max(s.output_shape[:2]) for s in named if _placed(s))]
    scale = _LARGEST / max(sides)
    _draw_sheets(axis, (0, 0), image_shape, scale, GREY)
    _label(axis, (0, 0), ["image", _sizes(image_shape)])
    for number, layer in enumerate(named, 1):
        corner = ((number % _A_LINE) * _WIDTH, -(number // _A_LINE) * _HEIGHT)
        shape = layer.output_shape
        if len(shape) == 4:
            _draw_sheets(axis, corner, (shape[0], shape[1], shape[2]), scale, ORANGE, dots=True)
        elif len(shape) == 3:
            decoded = layer.path == "decoder"
            _draw_sheets(axis, corner, shape, scale, GREEN if decoded else BLUE)
        else:
            _draw_bars(axis, corner, shape)
        _label(
            axis,
            corner,
            [layer.path, _sizes(shape), layer.kind, f"{layer.parameters:,} parameters"],
        )
        if number % _A_LINE:
            arrow = {"arrowstyle": "->", "color": GREY}
            start = (corner[0] - 1.0, corner[1] + 0.9)
            axis.annotate("", (corner[0] - 0.45, start[1]), start, arrowprops=arrow)
    axis.set(
        xlim=(-0.6, columns * _WIDTH - 0.9),
        ylim=(-(lines - 1) * _HEIGHT - 1.15, 2.0),
        aspect="equal",
    )
    axis.axis("off")
    kinds = {"maps": BLUE, "capsules by place": ORANGE, "capsules": PURPLE, "decoded": GREEN}
    handles = [Rectangle((0, 0), 1, 1, facecolor=color, label=k) for k, color in kinds.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _placed(layer: Layer) -> bool:
    return len(layer.output_shape) > 2


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _label(axis: Any, corner: tuple[float, float], lines: list[str]) -> None:
    place = (corner[0] + _LARGEST / 2, corner[1] - 0.12)
    axis.text(*place, "\n".join(lines), ha="center", va="top", fontsize=7)


def _draw_sheets(
    axis: Any,
    corner: tuple[float, float],
    shape: tuple[int, ...],
    scale: float,
    color: str,
    *,
    dots: bool = False,
) -> None:
    """A stack, the last sheet in front."""
    height, width, count = shape
    sheets = min(_SHEETS, count)
    size = (max(width * scale, 0.12), max(height * scale, 0.12))
    left = corner[0] + (_LARGEST - size[0]) / 2
    low = corner[1] + (_LARGEST - size[1]) / 2
    for sheet in range(sheets):
        back = 0.08 * (sheets - 1 - sheet)
        where = (left + back, low + back)
        axis.add_patch(Rectangle(where, *size, facecolor=color, edgecolor="white", lw=0.7))
    if dots and max(height, width) <= 16:
        x = [left + (column + 0.5) * size[0] / width for column in range(width)] * height
        y = [low + (row + 0.5) * size[1] / height for row in range(height) for _ in range(width)]
        axis.plot(x, y, ".", color="white", ms=max(1.0, 26 * size[0] / width / 2))


def _draw_bars(axis: Any, corner: tuple[float, float], shape: tuple[int, ...]) -> None:
    """A bar a capsule, or a square a number where they have no dimension."""
    count, dim = (*shape, 1)[:2]
    shown = min(_BARS, count)
    length = 0.12 if dim == 1 else float(min(_LARGEST, 0.3 + 0.05 * dim))
    for bar in range(shown):
        low = corner[1] + _LARGEST * (1 - (bar + 0.8) / shown)
        where = (corner[0] + (_LARGEST - length) / 2, low)
        high = 0.6 * _LARGEST / max(shown, 4)
        axis.add_patch(Rectangle(where, length, high, facecolor=PURPLE, edgecolor="white"))
