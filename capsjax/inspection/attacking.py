"""Images that were changed a little so that a network errs."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from capsjax import checks
from capsjax.analysis.attacks import bim, untargeted
from capsjax.inspection.inputs import check_labels, checked, merged
from capsjax.training.run import Run
from capsjax.training.step import split

_STEPS = 10


@checks.arguments(empty=True)
def attacked(run: Run, images: np.ndarray, labels: np.ndarray, *, epsilon: float) -> np.ndarray:
    """Images that the basic iterative method leads away from their classes, in ten steps.

    Args:
        run: the trained network.
        images: uint8 ``[N, H, W, C]``.
        labels: int ``[N]``, their classes.
        epsilon: the largest change of a pixel, of 1.

    Returns:
        float32 ``[N, H, W, C]`` from 0 to 1.

    Raises:
        ValueError: images or labels that the network does not take, an epsilon that is not from 0
            to 1, or a network trained with a recipe, whose pixels are not from 0 to 1.

    Source: Kurakin, Goodfellow and Bengio 2017, section 2.2.

    Example:
        >>> from capsjax import data, load_pretrained
        >>> run = load_pretrained("efficient_capsnet_mnist")
        >>> test = data.load("mnist", "test")
        >>> images, labels = test["image"][:2], test["label"][:2]
        >>> changed = attacked(run, images, labels, epsilon=0.1)
        >>> round(float(np.abs(changed - images / 255).max()), 3)
        0.1
    """
    recipe = run.settings.training.recipe
    if recipe is not None:
        raise ValueError(f"the network was trained with the recipe {recipe}: take one without")
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon is {epsilon}, expected 0 to 1, the whole range of a pixel")
    images = checked(run, images)
    labels = check_labels(labels, len(images), len(run.settings.class_names))
    graph, *state = split(run.model)
    return np.asarray(_attacked(graph, state, images / np.float32(255), labels, epsilon))


@partial(jax.jit, static_argnums=0)
def _attacked(graph: Any, state: Any, images: Array, labels: Array, epsilon: float) -> Array:
    def scores(image: Array) -> Array:
        output = merged(graph, state)(image[None])
        # Without logits the cross-entropy is of the capsules' lengths.
        return (output.activations if output.logits is None else output.logits)[0]

    def one(image: Array, label: Array) -> Array:
        loss = untargeted(scores, label)
        return bim(loss, image, epsilon=epsilon, step=epsilon / _STEPS, num_steps=_STEPS)

    return jax.vmap(one)(images.astype(jnp.float32), labels)
