"""What all networks refuse alike."""

from typing import Any

from jax import Array

from capsjax.routing import algorithm_of


def at_least_one(config: Any, *names: str) -> None:
    """Refuse a config with a size below 1, or a list with one, or an empty list (ValueError)."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, tuple):
            if not value or min(value) < 1:
                raise ValueError(f"{name} are {value}, expected at least 1 each, and at least one")
        elif value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")


def one_of(config: Any, name: str, known: tuple[str, ...]) -> None:
    """Refuse a config whose value is none of these (ValueError)."""
    value = getattr(config, name)
    if value not in known:
        raise ValueError(f"{name} is {value!r}, expected one of: {', '.join(map(repr, known))}")


def check_classes(num_classes: int) -> None:
    """Refuse fewer than two classes (ValueError)."""
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}, expected at least 2")


def check_images(images: Array, image_shape: tuple[int, int, int]) -> None:
    """Refuse images of another shape than the network was made for (ValueError)."""
    if images.ndim != 4 or images.shape[1:] != image_shape:
        raise ValueError(
            f"images have shape {images.shape}, expected [batch, height, width, channels] with "
            f"{image_shape} after the batch"
        )


def uses_activations(routing: Any, *, unknown: bool) -> bool:
    """Whether a routing, by its config, looks at its children's activations.

    Args:
        routing: its config.
        unknown: the answer for a module of a user's own that does not say, by ``USES``.
    """
    uses = getattr(algorithm_of(routing), "USES", None)
    return unknown if uses is None else "activations" in uses


def check_map(
    shape: tuple[int, ...], least: int, image_shape: tuple[int, int, int], what: str
) -> None:
    """Refuse images that leave a map, ``[height, width, ...]``, too small for what sees it next."""
    if min(shape[:2]) < least:
        raise ValueError(
            f"images of {image_shape[0]}x{image_shape[1]} leave a map of {shape[0]}x{shape[1]} for "
            f"{what} of {least}x{least}: use larger images, padding='SAME', or smaller kernels, "
            "strides or pools"
        )
