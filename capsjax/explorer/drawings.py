"""Pieces of the page: images, bars and lines as HTML that needs nothing from elsewhere.

Colours follow the page's light or dark theme by its own variables; every picture says in words what
it shows.
"""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from capsjax.figures import BLACK, COLORS

_SECONDS = 1.2  # that the moving picture spends on an iteration
_HEIGHT, _LETTERS = 340, 9

STYLE = """
.caps-picture img {width: 100%; max-width: 280px; image-rendering: pixelated; display: block}
.caps-picture figcaption, .caps-note {font-size: 0.9em}
.caps-bars {width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums}
.caps-bars td, .caps-bars th {padding: 1px 4px; border: 0; text-align: left; font-weight: normal}
.caps-bars td.caps-value {width: 4em; text-align: right}
.caps-bars td.caps-track {width: 70%}
.caps-bar {height: 0.9em; border-radius: 2px; background: var(--body-text-color-subdued)}
.caps-most .caps-bar {background: #0072B2}
.caps-most th, .caps-most td {font-weight: bold}
.caps-row {display: flex; flex-wrap: wrap; gap: 12px}
.caps-row > * {flex: 1 1 110px; max-width: 280px; margin: 0}
.caps-row > section {flex-basis: 280px; max-width: 420px}
.caps-flow {width: 100%; max-width: 640px; height: auto}
.caps-flow text {font-size: 15px; fill: var(--body-text-color)}
@media (prefers-reduced-motion: reduce) {.caps-moving {display: none}}
@media not (prefers-reduced-motion: reduce) {.caps-resting {display: none}}
#drawn {position: sticky; top: 0; z-index: 2; background: var(--body-background-fill)}
.caps-error {padding: 8px 12px; border-left: 4px solid #D55E00}
.caps-signed {position: relative; height: 0.9em; background: var(--border-color-primary)}
.caps-signed > div {position: absolute; top: 0; bottom: 0; background: #0072B2}
.caps-signed > div.caps-before {background: none; border: 1px solid var(--body-text-color)}
"""


def picture(image: np.ndarray, caption: str) -> str:
    """An image over its caption.

    Args:
        image: uint8 ``[H, W, C]``, or float from 0 to 1; of two channels both stand side by side.
        caption: what it shows.
    """
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        pixels = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    if pixels.shape[-1] == 2:
        pixels = np.concatenate([pixels[..., :1], pixels[..., 1:]], axis=1)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode()
    said = escape(caption)
    return (
        f'<figure class="caps-picture"><img alt="{said}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{said}</figcaption></figure>"
    )


def row(*pictures: str) -> str:
    """Pictures side by side, where there is room."""
    return f'<div class="caps-row">{"".join(pictures)}</div>'


def bars(values: Sequence[float] | np.ndarray, names: Sequence[str], label: str) -> str:
    """Numbers from 0 to 1 as bars, the largest marked.

    Args:
        values: one a name.
        names: of the rows.
        label: what they are.
    """
    most = int(np.argmax(values))
    rows = "".join(
        f'<tr{" class=caps-most" if number == most else ""}><th scope="row">{escape(name)}</th>'
        f'<td class="caps-track"><div class="caps-bar" style="width:{_percent(value)}"></div></td>'
        f'<td class="caps-value">{value:.2f}</td></tr>'
        for number, (name, value) in enumerate(zip(names, values, strict=True))
    )
    return f'<table class="caps-bars" aria-label="{escape(label)}">{rows}</table>'


def poses(before: np.ndarray, after: np.ndarray, label: str, *, reach: float = 1.0) -> str:
    """A pose's dimensions as bars from the middle, with where they were before as frames.

    Args:
        before: ``[dim]``.
        after: ``[dim]``.
        label: what they are.
        reach: the value at a track's end.
    """
    rows = "".join(
        f'<tr><th scope="row">{number}</th><td class="caps-track"><div class="caps-signed">'
        f'<div style="{_span(now / reach)}"></div>'
        f'<div class="caps-before" style="{_span(was / reach)}"></div>'
        f'</div></td><td class="caps-value">{now:+.2f}</td></tr>'
        for number, (was, now) in enumerate(zip(before, after, strict=True))
    )
    return f'<table class="caps-bars" aria-label="{escape(label)}">{rows}</table>'


def flow(
    coefficients: np.ndarray,
    lengths: np.ndarray,
    parents: Sequence[str],
    label: str,
    *,
    iteration: int | None = None,
) -> str:
    """Lines from parts to wholes, as thick as their coupling, moving over the iterations.

    Args:
        coefficients: ``[iterations, parents, children]``.
        lengths: ``[iterations, parents]``, by which the wholes' discs grow.
        parents: names of the wholes.
        label: what it shows.
        iteration: draw this one alone, from 1, at rest; None moves through all.

    Returns:
        An SVG; of what moves a second one, at rest at the last iteration, for readers whose system
        asks for less motion.
    """
    if iteration is None and len(coefficients) > 1:
        rest = flow(coefficients, lengths, parents, label, iteration=len(coefficients))
        moving = _flow(coefficients, lengths, parents, label, moving=True)
        return f'<div class="caps-moving">{moving}</div><div class="caps-resting">{rest}</div>'
    shown = slice(0, 1) if iteration is None else slice(iteration - 1, iteration)
    return _flow(coefficients[shown], lengths[shown], parents, label, moving=False)


def _flow(
    coefficients: np.ndarray,
    lengths: np.ndarray,
    parents: Sequence[str],
    label: str,
    *,
    moving: bool,
) -> str:
    shares, sizes = np.clip(coefficients, 0, 1), np.clip(lengths, 0, 1)
    count, children = shares.shape[1:]
    low, high = _places(children), _places(count)
    lines = []
    # The strongest of the last iteration lie on top; what is never seen is left out.
    seen = np.argwhere(shares.max(0) >= 0.02)
    for parent, child in sorted(seen.tolist(), key=lambda at: shares[-1, at[0], at[1]]):
        own = shares[:, parent, child]
        lines.append(
            f'<line x1="12" y1="{low[child]:.1f}" x2="340" y2="{high[parent]:.1f}" '
            f'stroke="{_color(parent)}" stroke-width="{0.4 + 4 * own[-1]:.2f}" '
            f'stroke-opacity="{own[-1]:.2f}">{_moving("stroke-opacity", own)}'
            f"{_moving('stroke-width', 0.4 + 4 * own)}</line>"
        )
    discs = [
        f'<circle cx="340" cy="{high[parent]:.1f}" r="{3 + 9 * sizes[-1, parent]:.1f}" '
        f'fill="{_color(parent)}">{_moving("r", 3 + 9 * sizes[:, parent])}</circle>'
        f'<text x="356" y="{high[parent] + 5:.1f}">{escape(_cut(name))}'
        f"{'' if moving else f' {sizes[-1, parent]:.2f}'}</text>"
        for parent, name in enumerate(parents)
    ]
    dots = [
        f'<circle cx="12" cy="{at:.1f}" r="3" fill="var(--body-text-color-subdued)"/>' for at in low
    ]
    numbers = _numbers(len(shares)) if moving else ""
    return (
        f'<svg class="caps-flow" viewBox="0 0 450 {_HEIGHT + 20}" role="img" '
        f'aria-label="{escape(label)}">{"".join(lines)}{"".join(dots)}{"".join(discs)}'
        f"{numbers}</svg>"
    )


def _color(parent: int) -> str:
    """The figures' colours; black is the text's, which can be seen in the dark theme, too."""
    color = COLORS[parent % len(COLORS)]
    return "var(--body-text-color)" if color == BLACK else color


def _numbers(count: int) -> str:
    """Which iteration is seen, each while it is."""
    found = []
    for number in range(count):
        shown = ";".join(str(int(at == number)) for at in range(count))
        found.append(
            f'<text x="12" y="{_HEIGHT + 15}" opacity="{int(number == count - 1)}">iteration '
            f'{number + 1} of {count}<animate attributeName="opacity" calcMode="discrete" '
            f'values="{shown}" dur="{_SECONDS * count:.1f}s" repeatCount="indefinite"/></text>'
        )
    return "".join(found)


def _cut(name: str) -> str:
    """What of a name there is room for."""
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"


def error(message: str) -> str:
    """What went wrong, read out by a screen reader as it appears."""
    return f'<div class="caps-error" role="alert">{escape(message)}</div>'


def note(*sentences: str) -> str:
    """Sentences beside a picture."""
    return f'<p class="caps-note">{escape(" ".join(sentences))}</p>'


def _moving(name: str, values: np.ndarray) -> str:
    if len(values) < 2:
        return ""
    # The last one rests as long as a step takes.
    listed = ";".join(f"{value:.2f}" for value in [*values, values[-1]])
    seconds = _SECONDS * len(values)
    return (
        f'<animate attributeName="{name}" values="{listed}" dur="{seconds:.1f}s" '
        'repeatCount="indefinite"/>'
    )


def _percent(value: float) -> str:
    return f"{100 * min(1.0, max(0.0, float(value))):.1f}%"


def _span(value: float) -> str:
    """From the middle to a value in [-1, 1]."""
    low, high = sorted((0.0, float(np.clip(value, -1, 1))))
    return f"left:{50 + 50 * low:.1f}%;width:{50 * (high - low):.1f}%"


def _places(count: int) -> np.ndarray:
    return _HEIGHT * (np.arange(count) + 0.5) / count
