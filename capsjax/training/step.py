"""One training step as a pure function, and the learning-rate schedules."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from capsjax.data import augment
from capsjax.training import losses
from capsjax.training.metrics import accuracy
from capsjax.types import Output

Schedule = Literal["recipe", "cosine"]

# Official code of Sabour 2017: x0.96 every 2,000 steps, continuously, never below 1e-6.
_DECAY_RATE, _DECAY_STEPS, _FLOOR = 0.96, 2000, 1e-6

# Adam's first steps move each of a primary capsule's 20,736 weights by the learning rate, together
# far more than their initial values; without a warm-up CapsNet can lose its features then and stay
# at chance (seen at 0.003).
_WARM_UP_STEPS = 50


class State(NamedTuple):
    """All that changes in training.

    Attributes:
        params: the network's trainable parameters (an ``nnx.State``).
        rest: its other state (an ``nnx.State``), such as running statistics.
        optimizer: Optax's state.
        step: int32 scalar, steps done.
    """

    params: Any
    rest: Any
    optimizer: Any
    step: Array


def schedule(name: Schedule, learning_rate: float, total_steps: int) -> optax.Schedule:
    """Learning rate by step.

    Args:
        name: "recipe" (the official code's slow exponential decay) or "cosine" (up in a straight
            line for 50 steps, at most a quarter of all, then down to 0 along half a cosine).
        learning_rate: the largest value.
        total_steps: end of the cosine.

    Returns:
        A function from step to learning rate.

    Raises:
        ValueError: an unknown name.
    """
    if name == "cosine":
        warm_up = min(_WARM_UP_STEPS, total_steps // 4)
        first = learning_rate / (warm_up + 1)
        return optax.warmup_cosine_decay_schedule(first, learning_rate, warm_up, total_steps)
    if name == "recipe":
        return optax.exponential_decay(
            learning_rate, _DECAY_STEPS, _DECAY_RATE, end_value=min(_FLOOR, learning_rate)
        )
    raise ValueError(f"schedule is {name!r}, expected 'recipe' or 'cosine'")


def split(network: nnx.Module) -> tuple[Any, Any, Any]:
    """A network's graph definition, its trainable parameters, and the rest of its state."""
    parts: Any = nnx.split(network, nnx.Param, ...)
    return parts


def example_losses(
    output: Output,
    images: Array,
    targets: Array,
    config: losses.Config,
    margin: Array | float = losses.LAST_MARGIN,
) -> tuple[Array, Array]:
    """Classification and reconstruction loss of every example, ``[batch]`` each.

    Args:
        output: of a network, for a batch.
        images: what the reconstructions should be.
        targets: ``[batch, classes]``, 1 for each class that is present.
        config: choices of the loss.
        margin: of the spread loss.
    """

    def classify(activations: Array, targets: Array, logits: Array | None) -> Array:
        return losses.classification_loss(
            activations, targets, config, logits=logits, margin=margin
        )

    classification = jax.vmap(classify)(output.activations, targets, output.logits)
    if output.reconstruction is None:
        return classification, jnp.zeros_like(classification)
    reconstruction = jax.vmap(lambda r, i: losses.reconstruction_loss(r, i, config))(
        output.reconstruction, images
    )
    return classification, reconstruction


def make_step(
    graph: Any,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    limit: int,
    loss: losses.Config,
    key: Array,
    total_steps: int = 1,
) -> Callable[[State, Array, Array], tuple[State, dict[str, Array]]]:
    """The training step: shift, scale, differentiate, update.

    Args:
        graph: the network's graph definition.
        optimizer: an Optax transformation.
        num_classes: number of classes.
        limit: largest shift of a training image, in pixels.
        loss: choices of the loss.
        key: augmentation of step n uses ``fold_in(key, n)``, whatever came before.
        total_steps: of the whole training, for the spread loss's margin.

    Returns:
        ``step(state, images, labels) -> (state, metrics)``, to be jitted: images uint8
        ``[batch, H, W, C]`` and labels int32 ``[batch]``.
    """

    def compute(
        params: Any, rest: Any, images: Array, labels: Array, margin: Array
    ) -> tuple[Array, Any]:
        # Without copy=True an update of running statistics would leak a tracer.
        network = nnx.merge(graph, params, rest, copy=True)
        targets = jax.nn.one_hot(labels, num_classes, dtype=images.dtype)
        output = network(images, targets)
        classification, reconstruction = jax.tree.map(
            jnp.mean, example_losses(output, images, targets, loss, margin)
        )
        metrics = {
            "loss": classification + reconstruction,
            "classification_loss": classification,
            "reconstruction_loss": reconstruction,
            "accuracy": accuracy(output.activations, labels),
        }
        return metrics["loss"], (metrics, split(network)[2])

    def step(state: State, images: Array, labels: Array) -> tuple[State, dict[str, Array]]:
        keys = jax.random.split(jax.random.fold_in(key, state.step), len(images))
        shifted = jax.vmap(lambda key, image: augment.shift(key, image, limit=limit))(keys, images)
        gradients, (metrics, rest) = jax.grad(compute, has_aux=True)(
            state.params,
            state.rest,
            augment.to_unit_interval(shifted),
            labels,
            losses.spread_margin(state.step, total_steps, loss),
        )
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, rest, optimizer_state, state.step + 1), metrics

    return step
