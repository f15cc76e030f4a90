"""What every data set gives: its shape, its splits, and a way to read them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]


class Made(NamedTuple):
    """How a data set's pictures are made of another's images; see ``generated``.

    Attributes:
        example: its function of one example.
        config: its choices.
        seed: of all draws.
        prepare: adds to the base arrays what ``example`` wants there; None adds nothing.
    """

    example: Callable[..., Any]
    config: Any
    seed: int = 0
    prepare: Callable[[Arrays], Arrays] | None = None


@dataclass(frozen=True)
class Dataset:
    """A classification data set.

    Attributes:
        name: what it is loaded by: a name, or a path.
        image_shape: height, width and channels.
        class_names: one for each class, in the order of the labels.
        sizes: number of images of each split.
        source: who made it.
        licence: under which terms.
        origin: where its files come from: "archives" or "rendering" (to be prepared first),
            "embedded", "made from" another, or "the user's own".
        read: reads one split; use ``load``.
        parts: further splits, which are parts of those in ``sizes``, and their sizes.
        divide: parts the training split into one to train on and one for validation, where its last
            examples would not do; None takes these.
        made: how training makes new pictures in every epoch, if it does.
        base: reads the images that they are made of.
        classes_per_image: how many different classes every image shows.

    Example:
        >>> from capsjax import data
        >>> digits = data.find("mnist")
        >>> digits.image_shape, digits.num_classes, digits.sizes["test"]
        ((28, 28, 1), 10, 10000)
        >>> digits.load("test")["label"][:5].tolist()
        [7, 2, 1, 0, 4]
    """

    name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    sizes: Mapping[str, int]
    source: str
    licence: str
    origin: str
    read: Callable[[str], Arrays] = field(repr=False)
    parts: Mapping[str, int] = field(default_factory=dict)
    divide: Callable[[Arrays], tuple[Arrays, Arrays]] | None = field(default=None, repr=False)
    made: Made | None = field(default=None, repr=False)
    base: Callable[[str], Arrays] | None = field(default=None, repr=False)
    classes_per_image: int = 1

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def load(self, split: str) -> Arrays:
        """Images and labels of a split.

        Args:
            split: a key of ``sizes`` or of ``parts``.

        Returns:
            ``{"image": uint8 [N, H, W, C], "label": int32 [N]}``, and the factors that the data set
            has, each with an axis of N in front. Where an image shows k classes, ``label`` is
            ``[N, k]``, and ``sources`` uint8 ``[N, k, H, W, C]`` may show each of them alone.

        Raises:
            ValueError: there is no such split, or a file is corrupt.
        """
        known = [*self.sizes, *self.parts]
        if split not in known:
            raise ValueError(
                f"{self.name} has no split {split!r}, expected one of: {', '.join(known)}"
            )
        return self.read(split)


def check_arrays(arrays: Mapping[str, np.ndarray], *, where: str, several: bool = False) -> Arrays:
    """Images and labels in the one form that the library uses, or a clear error.

    Args:
        arrays: ``image`` uint8 ``[N, H, W]`` or ``[N, H, W, C]`` and ``label`` integer ``[N]``.
        where: named in an error.
        several: also take ``label`` ``[N, k]``, k different classes of each image, and with it
            ``sources`` uint8 ``[N, k, H, W, C]``, each of them alone.

    Returns:
        ``{"image": uint8 [N, H, W, C], "label": int32 [N]}``, or ``[N, k]`` and the sources.

    Raises:
        ValueError: a key is missing, a shape or dtype is wrong, there are no images, a label is
            negative, or an image has one twice.

    Example:
        >>> mine = {"image": np.zeros((2, 8, 8), np.uint8), "label": [1, 0]}
        >>> checked = check_arrays(mine, where="mine")
        >>> checked["image"].shape, checked["label"].dtype.name
        ((2, 8, 8, 1), 'int32')
    """
    missing = [key for key in ("image", "label") if key not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise ValueError(f"{where} holds {found}, expected arrays named image and label")
    image, label = np.asarray(arrays["image"]), np.asarray(arrays["label"])
    if image.ndim == 3:
        image = image[..., None]
    if image.ndim != 4 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(
            f"{where} has images {image.dtype} {image.shape}, expected uint8 [N, H, W] or "
            "[N, H, W, C] with pixels from 0 to 255, and at least one image"
        )
    each = label[:, 0] if several and label.ndim == 2 and label.shape[1] else label
    if each.shape != image.shape[:1] or not np.issubdtype(label.dtype, np.integer):
        raise ValueError(
            f"{where} has labels {label.dtype} {label.shape} for {len(image)} images, expected one "
            f"integer per image, shape ({len(image)},)"
        )
    if label.min() < 0 or label.max() > np.iinfo(np.int32).max:
        raise ValueError(
            f"{where} has labels from {label.min()} to {label.max()}, expected 0, 1, 2, ... "
            "counting the classes from 0"
        )
    checked = {"image": image, "label": label.astype(np.int32)}
    if label.ndim == 2:
        checked.update(_check_several(arrays, checked, where))
    return checked


def _check_several(arrays: Mapping[str, np.ndarray], checked: Arrays, where: str) -> Arrays:
    """The sources of images that show several classes, if there are any."""
    image, label = checked["image"], checked["label"]
    if (np.diff(np.sort(label, axis=1), axis=1) == 0).any():
        raise ValueError(
            f"{where} has images with the same label twice, expected {label.shape[1]} different "
            "classes in each"
        )
    if "sources" not in arrays:
        return {}
    sources, expected = np.asarray(arrays["sources"]), (*label.shape, *image.shape[1:])
    if sources.shape != expected or sources.dtype != np.uint8:
        raise ValueError(
            f"{where} has sources {sources.dtype} {sources.shape}, expected uint8 {expected}: each "
            "class of an image alone"
        )
    return {"sources": sources}
