"""Which images are trained on and which are validated on, and a number that tells data apart."""

import dataclasses
import zlib

import numpy as np

from capsjax.data import Arrays, check_arrays, recipes
from capsjax.data.dataset import Made
from capsjax.training.config import Config
from capsjax.training.evaluation import check_labels


def divide(
    data: Arrays, validation: Arrays | None, config: Config, num_classes: int
) -> tuple[Arrays, Arrays]:
    """Part the data into what is trained on and what is validated on.

    Args:
        data: the training set, as for ``loop.fit``.
        validation: the validation set; None takes the last images of ``data``.
        config: choices of training.
        num_classes: of the network.

    Returns:
        Both parts, checked.

    Raises:
        ValueError: malformed data, labels that there is no class for, parts that do not belong
            together, or too few images.
    """
    data = check_arrays(data, where="data", several=True)
    check_labels(data["label"], num_classes)
    if validation is not None:
        validation = check_arrays(validation, where="the validation set", several=True)
        check_labels(validation["label"], num_classes)
        _check_alike(data, validation)
        config = dataclasses.replace(config, validation=len(validation["label"]))
        data = {key: np.concatenate([data[key], validation[key]]) for key in data}
    count = len(data["label"]) - config.validation
    if config.limit is not None and config.limit > count:
        raise ValueError(
            f"limit is {config.limit}, but {len(data['label'])} images less {config.validation} "
            f"for validation leave {count}: lower limit or validation (--limit, --validation)"
        )
    used = count if config.limit is None else config.limit
    if config.limit is not None and used < config.batch_size:
        raise ValueError(
            f"limit is {used}, fewer than one batch of {config.batch_size}: raise limit or lower "
            "batch_size"
        )
    if used < config.batch_size:
        raise ValueError(
            f"{len(data['label'])} images less {config.validation} for validation leave "
            f"{max(count, 0)}, fewer than one batch of {config.batch_size}: lower validation or "
            "batch_size (--validation, --batch-size)"
        )
    return (
        {key: value[:used] for key, value in data.items()},
        {key: value[count:] for key, value in data.items()},
    )


def check_recipe(recipe: str, image_shape: tuple[int, ...], made: Made | None) -> None:
    """Refuse a recipe that is not made for these images, or for pictures made anew (ValueError)."""
    if made is not None:
        raise ValueError(
            f"recipe {recipe!r} cannot be used on pictures that are made anew in every epoch, "
            "which come as they should be: leave recipe at None"
        )
    height, width, channels = image_shape
    recipes.shape_after(recipe, (height, width, channels))


def _check_alike(data: Arrays, validation: Arrays) -> None:
    shapes = [{key: value.shape[1:] for key, value in part.items()} for part in (data, validation)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the training set has arrays of shapes {shapes[0]} and the validation set "
            f"{shapes[1]}, expected the same"
        )


def fingerprint(config: Config, made: Made | None, *parts: Arrays) -> np.ndarray:
    """Number that tells one config and data from another; how many epochs does not matter."""
    choices = repr(dataclasses.replace(config, epochs=1))
    if made is not None:
        choices += repr((made.example.__module__, made.config, made.seed))
    number = zlib.crc32(choices.encode())
    for part in parts:
        number = zlib.crc32(repr(part["image"].shape).encode(), number)
        for key in sorted(part):
            number = zlib.crc32(part[key].tobytes(), number)
    return np.array(number, np.uint32)
