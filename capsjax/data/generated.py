"""Data sets made from the images of another by pure functions, example by example.

Variant k of base image n is a function of (seed, n, k) alone: whatever is made before it, beside it
or on another machine, it comes out the same. Each such data set is a file with a frozen ``Config``
and one function for ONE example,

``example(key, base, index, variant, config) -> dict``

where ``key`` is ``jax.random.key(seed)``, ``base`` is ``{"image": uint8 [N, H, W, C],
"label": int32 [N]}``, ``index`` is n and ``variant`` is k. ``base`` is one split: whatever an
example takes from other images comes from there too.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Integer

from capsjax import checks
from capsjax.data.dataset import Arrays

# What is asked of base images by name: axes and dtype.
_BASE = {"image": (4, np.uint8), "label": (1, np.integer)}

Example = Callable[[Array, Mapping[str, Array], Array, Array, Any], dict[str, Array]]


def example_key(
    key: Array, index: Integer[Array, ""] | int, variant: Integer[Array, ""] | int
) -> Array:
    """The key of all draws for one example.

    Args:
        key: ``jax.random.key(seed)``, the whole data set's.
        index: which base image.
        variant: which of the examples made from it.

    Returns:
        A JAX random key.
    """
    return jax.random.fold_in(jax.random.fold_in(key, index), variant)


def check_base(base: Mapping[str, Any], *names: str) -> None:
    """Refuse what are no images and labels of one split.

    Args:
        base: as the module's docstring says, and whatever else.
        names: what is wanted of it; all without.

    Raises:
        ValueError: one is missing, or of another shape or dtype.
    """
    for name in names or _BASE:
        axes, kind = _BASE[name]
        array: Any = base.get(name)
        fits = checks.is_array(array) and len(array.shape) == axes and 0 not in array.shape
        if not fits or not jnp.issubdtype(array.dtype, kind):
            raise ValueError(
                f"base has {name} {checks.shown(array)}, expected image uint8 [N, H, W, C] and "
                "label integer [N]"
            )
    if not names and base["image"].shape[:1] != base["label"].shape:
        raise ValueError(
            f"base has {base['image'].shape[0]} images and {base['label'].shape[0]} labels, "
            "expected a label for each image"
        )


def examples(
    example: Example,
    base: Mapping[str, np.ndarray],
    seed: int,
    indices: np.ndarray,
    variants: np.ndarray,
    config: Any,
    *,
    batch: int = 1024,
) -> Arrays:
    """Many examples as NumPy arrays, compiled once and made ``batch`` at a time.

    Args:
        example: the data set's function of one example.
        base: images and labels of one split, and whatever else ``example`` wants there.
        seed: of all draws.
        indices: integers ``[M]``, base images.
        variants: integers ``[M]``, at least 0, which variant of each.
        config: the data set's ``Config``.
        batch: how many are on the device at once; the result does not depend on it.

    Returns:
        What ``example`` gives, with an axis of M in front.

    Raises:
        ValueError: indices and variants differ in length, are not integers or are out of range, or
            ``batch`` is not positive.
    """
    indices, variants = np.asarray(indices), np.asarray(variants)
    num_images = len(base["label"])
    if indices.ndim != 1 or indices.shape != variants.shape:
        raise ValueError(
            f"indices and variants have shapes {indices.shape} and {variants.shape}, expected one "
            "axis of the same length"
        )
    for name, numbers, end in (
        ("indices", indices, num_images),
        ("variants", variants, np.iinfo(np.int32).max),
    ):
        if not np.issubdtype(numbers.dtype, np.integer) or (
            numbers.size and not 0 <= numbers.min() <= numbers.max() < end
        ):
            raise ValueError(f"{name} are not all integers from 0 to {end - 1}: {numbers}")
    if batch < 1:
        raise ValueError(f"batch is {batch}, expected at least 1")
    device = {name: jnp.asarray(array) for name, array in base.items()}
    key = jax.random.key(seed)
    shapes = jax.eval_shape(
        lambda key, base, n: example(key, base, n, n, config), key, device, jnp.int32(0)
    )
    made = {
        name: np.empty((len(indices), *array.shape), array.dtype) for name, array in shapes.items()
    }
    for start in range(0, len(indices), batch):
        chosen = [numbers[start : start + batch] for numbers in (indices, variants)]
        count = len(chosen[0])
        # The last batch is filled up, so that one compilation serves all.
        padded = [np.resize(numbers, batch).astype(np.int32) for numbers in chosen]
        part = _batch(example, config, key, device, *padded)
        for name, array in part.items():
            made[name][start : start + count] = np.asarray(array)[:count]
    return made


@partial(jax.jit, static_argnums=(0, 1))
def _batch(
    example: Example,
    config: Any,
    key: Array,
    base: Mapping[str, Array],
    indices: Array,
    variants: Array,
) -> dict[str, Array]:
    return jax.vmap(lambda n, k: example(key, base, n, k, config))(indices, variants)
