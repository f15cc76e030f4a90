"""What browsers send of drawings, as few and as small as the page needs.

The page's library would keep whatever is sent, without an end, and unfold pictures of any size.
"""

import io
from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
from gradio.components.base import server
from PIL import Image
from starlette.exceptions import HTTPException

from capsjax.explorer.images import FORMATS, LARGEST_DRAWING

LARGEST_LAYER = 1_000_000  # bytes; one of the page's own canvas has a third at most
_LAYERS, _DRAWINGS = 4, 32  # of a drawing; that wait to be asked about


class Strokes:
    """Drawings between their sending and the question that names them."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, dict[int, bytes]] = OrderedDict()
        self._lock = Lock()

    @server
    def accept(self, data: Any) -> None:
        """Keep a part of a drawing; what takes the place of the library's own ``accept_blobs``.

        Args:
            data: ``data`` with the drawing's ``id``, the ``type`` of the part and the ``index`` of
                a layer; ``files`` with its name and its bytes. Only layers are kept.

        Raises:
            HTTPException: 413 for a layer that is too large, 400 for what is none.
        """
        if data.data.get("type") != "layer":
            return
        number = str(data.data.get("index"))
        name = data.data.get("id")
        if not isinstance(name, str) or len(name) > 100 or not data.files:
            raise HTTPException(400, "expected the id of a drawing and a file")
        if not number.isdecimal() or int(number[:9]) >= _LAYERS:
            raise HTTPException(400, f"expected a layer from 0 to {_LAYERS - 1}")
        content = data.files[0][1]
        if len(content) > LARGEST_LAYER:
            raise HTTPException(413, f"expected at most {LARGEST_LAYER} bytes a layer")
        with self._lock:
            self._waiting.setdefault(name, {})[int(number[:9])] = content
            while len(self._waiting) > _DRAWINGS:
                self._waiting.popitem(last=False)

    def layers(self, value: Any) -> list[np.ndarray]:
        """The layers of a drawing, which is forgotten.

        Args:
            value: as the canvas gives it, not processed: ``id`` of a drawing that was accepted, or
                ``layers``, of which each has the ``path`` of an uploaded file.

        Returns:
            uint8 ``[H, W, 4]`` each; none of a drawing that is not there.

        Raises:
            ValueError: a layer that is no picture, or too large.
        """
        if value is None:
            return []
        if value.get("id") is None:
            return [_unfolded(layer["path"]) for layer in (value.get("layers") or [])[:_LAYERS]]
        with self._lock:
            sent = self._waiting.pop(value["id"], {})
        return [_unfolded(io.BytesIO(sent[number])) for number in sorted(sent)]


def _unfolded(file: Any) -> np.ndarray:
    try:
        with Image.open(file, formats=FORMATS) as opened:
            if max(opened.size) > LARGEST_DRAWING:
                raise _TooLarge(
                    f"the drawing is {opened.size[0]} wide and {opened.size[1]} high, expected at "
                    f"most {LARGEST_DRAWING} a side"
                )
            return np.asarray(opened.convert("RGBA"))
    except _TooLarge:
        raise
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise ValueError("the drawing cannot be read: draw it anew") from error


class _TooLarge(ValueError):
    """A drawing that was read and cannot be taken."""
