"""What a decoder makes of two overlapping digits: how near each reconstruction is to its digit."""

import base64
import zlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from capsjax import data, figures
from capsjax.training.evaluation import Prediction

# Shades of a kept picture: enough to look at, few enough for a small file.
_SHADES = 15
_NUMBERS = ("reconstruction", "other", "picture", "blank")


def squared_errors(prediction: Prediction, arrays: data.Arrays) -> dict[str, Any]:
    """How near the reconstruction of every digit that was found is to it.

    Args:
        prediction: two classes of each picture, with reconstructions.
        arrays: the pictures, their labels and their sources.

    Returns:
        Mean squared errors of pixels in [0, 1]: of the "reconstruction", and of what might be in
        its place: the "other" digit, the whole "picture", a "blank". "by_class" has the first one
        for each digit, None where it was never found. "digits" were found, of "digits_shown".
    """
    rows, labels = [], []
    same = arrays["label"][:, :, None] == prediction.labels[:, None, :]
    for image, place, slot in np.argwhere(same):
        sources = arrays["sources"][image] / 255
        compared = (_drawn(prediction)[image, slot], sources[1 - place], arrays["image"][image])
        scaled = (*compared[:2], compared[2] / 255, 0.0)
        rows.append([float(np.mean((each - sources[place]) ** 2)) for each in scaled])
        labels.append(arrays["label"][image, place])
    errors, classes = np.array(rows).reshape(-1, len(_NUMBERS)), np.array(labels)
    return {
        "digits": len(rows),
        "digits_shown": arrays["label"].size,
        **{
            name: float(column.mean()) if len(column) else None
            for name, column in zip(_NUMBERS, errors.T, strict=True)
        },
        "by_class": [
            float(errors[classes == label, 0].mean()) if (classes == label).any() else None
            for label in range(prediction.activations.shape[1])
        ],
    }


def _drawn(prediction: Prediction) -> np.ndarray:
    if prediction.reconstructions is None:
        raise ValueError("prediction holds no reconstructions, expected two of each picture")
    return prediction.reconstructions


def kept(prediction: Prediction, arrays: data.Arrays, count: int) -> dict[str, Any]:
    """The first pictures for a result: both sources, and what was drawn of each, in few shades.

    A digit that was found is beside its own reconstruction; one that was not, beside that of the
    class that was named in its place.

    Args:
        prediction: two classes of each picture, with reconstructions.
        arrays: the pictures' labels and sources.
        count: how many.

    Returns:
        JSON values; ``sheet`` draws them.
    """
    said, labels = prediction.labels[:count], arrays["label"][:count]
    swapped = (labels[:, 0] == said[:, 1]) | (labels[:, 1] == said[:, 0])
    order = np.where(swapped[:, None], [[1, 0]], [[0, 1]])
    drawn = np.stack([_drawn(prediction)[n, places] for n, places in enumerate(order)])
    pictures = np.stack([arrays["sources"][: len(drawn)] / 255, drawn], 2)
    shades = np.round(_SHADES * pictures).astype(np.uint8)
    errors = np.square(pictures[:, :, 0] - pictures[:, :, 1]).mean((2, 3, 4))
    return {
        "labels": labels.tolist(),
        "said": np.take_along_axis(said, order, 1).tolist(),
        "squared_errors": errors.round(4).tolist(),
        "shape": list(shades.shape),
        "shades": base64.b64encode(zlib.compress(shades.tobytes(), 9)).decode(),
    }


def sheet(kept: dict[str, Any], title: str) -> Figure:
    """Five images of each picture: itself, then twice a source and its reconstruction.

    Args:
        kept: what the function of that name gave.
        title: above all.
    """
    shades = np.frombuffer(zlib.decompress(base64.b64decode(kept["shades"])), np.uint8)
    pictures = shades.reshape(kept["shape"]) * np.uint8(255 // _SHADES)
    images, captions = [], []
    rows = zip(pictures, kept["labels"], kept["said"], kept["squared_errors"], strict=True)
    for picture, labels, said, errors in rows:
        whole = np.minimum(picture[:, 0].sum(0, dtype=int), 255).astype(np.uint8)
        images += [whole, *picture.reshape(-1, *whole.shape)]
        captions.append(f"{labels[0]} and {labels[1]}")
        for label, named, error in zip(labels, said, errors, strict=True):
            captions += [f"source, {label}", f"drawn as {named}\nerror {error:.4f}"]
    return figures.contact_sheet(np.stack(images), captions, title=title)
