"""One training step as a pure function, and the learning-rate schedules."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from capsjax.data import augment, recipes
from capsjax.training import losses, parallel
from capsjax.training.layer_metrics import gradient_norms, routed_metrics
from capsjax.training.metrics import accuracy, exact_match
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


def decay(weight: float) -> optax.GradientTransformation:
    """Add to the gradient of every parameter of two axes or more ``weight`` times the parameter.

    Args:
        weight: of the decay; the L2 penalty has half of it.

    Returns:
        An Optax transformation without state.
    """

    def add(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, p: u + weight * p if p.ndim > 1 else u, updates, params)

    return optax.stateless(add)


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
        images: what the reconstructions should be; where there are k of each example, with an axis
            of k behind the batch, and their losses are added.
        targets: ``[batch, classes]``, 1 for each class that is present.
        config: choices of the loss.
        margin: of the spread loss.
    """

    def classify(activations: Array, targets: Array, logits: Array | None) -> Array:
        return losses.classification_loss(
            activations, targets, config, logits=logits, margin=margin
        )

    def compare(reconstruction: Array, image: Array) -> Array:
        return losses.reconstruction_loss(reconstruction, image, config)

    classification = jax.vmap(classify)(output.activations, targets, output.logits)
    if output.reconstruction is None:
        return classification, jnp.zeros_like(classification)
    if output.reconstruction.ndim == 5:
        return classification, jax.vmap(jax.vmap(compare))(output.reconstruction, images).sum(1)
    return classification, jax.vmap(compare)(output.reconstruction, images)


class _Batch(NamedTuple):
    """What a step sees after augmentation."""

    images: Array
    labels: Array
    sources: Array | None


Step = Callable[..., tuple[State, dict[str, Array]]]


def make_step(
    graph: Any,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    limit: int,
    loss: losses.Config,
    key: Array,
    recipe: str | None = None,
    total_steps: int = 1,
    layer_metrics: bool = False,
    mesh: Mesh | None = None,
    compute_dtype: Literal["float32", "bfloat16"] = "float32",
    votes_at_once: int | None = None,
) -> Step:
    """The training step: augment, scale, differentiate, update.

    Args:
        graph: the network's graph definition.
        optimizer: an Optax transformation.
        num_classes: number of classes.
        limit: largest shift of a training image, in pixels.
        loss: choices of the loss.
        key: augmentation of step n uses ``fold_in(key, n)``, whatever came before.
        recipe: name of what is done to an image instead of shifting and scaling it.
        total_steps: of the whole training, for the spread loss's margin.
        layer_metrics: also return the metrics of every layer.
        mesh: devices that share the batch evenly; None is one.
        compute_dtype: as in the training config.
        votes_at_once: as in the training config; None leaves the network's own.

    Returns:
        ``step(state, images, labels, sources=None) -> (state, metrics)``, to be jitted: images
        uint8 ``[batch, H, W, C]`` and labels int32 ``[batch]``. Labels ``[batch, k]`` are of images
        that show k classes; with sources uint8 ``[batch, k, H, W, C]`` each of these is
        reconstructed by itself, without them all in one image.
    """

    def prepare(key: Array, image: Array) -> Array:
        if recipe is not None:
            return recipes.find(recipe).train(key, image)
        return augment.to_unit_interval(augment.shift(key, image, limit=limit))

    def compute(params: Any, rest: Any, batch: _Batch, margin: Array) -> tuple[Array, Any]:
        # Without copy=True an update of running statistics would leak a tracer.
        network = nnx.merge(graph, _cast(params, compute_dtype), rest, copy=True)
        if votes_at_once is not None:
            network.set_attributes(votes_at_once=votes_at_once, raise_if_not_found=False)
        if mesh is not None:
            parallel.name_axis(network)
        several = batch.labels.ndim == 2
        each = jax.nn.one_hot(batch.labels, num_classes, dtype=batch.images.dtype)
        targets = each.max(1) if several else each
        masks = targets if batch.sources is None else each
        output = network(*_cast((batch.images, masks), compute_dtype))
        wide = _cast((output.activations, output.reconstruction, output.logits), batch.images.dtype)
        output = output._replace(activations=wide[0], reconstruction=wide[1], logits=wide[2])
        wanted = batch.images if batch.sources is None else batch.sources
        classification, reconstruction = jax.tree.map(
            jnp.mean, example_losses(output, wanted, targets, loss, margin)
        )
        right = exact_match if several else accuracy
        metrics = {
            "loss": classification + reconstruction,
            "classification_loss": classification,
            "reconstruction_loss": reconstruction,
            "accuracy": right(output.activations, batch.labels),
        }
        if layer_metrics:
            routed = output.routed
            if mesh is not None:  # percentiles are of all examples
                routed = [
                    result._replace(activations=jax.tree.map(parallel.gather, result.activations))
                    for result in routed
                ]
            metrics |= routed_metrics(routed)
        changed = jax.tree.map(_as_before, split(network)[2], rest)
        return metrics["loss"], (metrics, changed)

    def differentiate(
        params: Any,
        rest: Any,
        margin: Array,
        keys: Array,
        images: Array,
        labels: Array,
        sources: Array | None,
    ) -> tuple[Any, dict[str, Array], Any]:
        if sources is not None:  # with the key of their image, they move as it does
            sources = jax.vmap(jax.vmap(prepare, in_axes=(None, 0)))(keys, sources)
        batch = _Batch(jax.vmap(prepare)(keys, images), labels, sources)
        gradients, (metrics, rest) = jax.grad(compute, has_aux=True)(params, rest, batch, margin)
        return gradients, metrics, rest

    if mesh is not None:
        differentiate = parallel.averaged(differentiate, mesh)

    def step(
        state: State, images: Array, labels: Array, sources: Array | None = None
    ) -> tuple[State, dict[str, Array]]:
        # Drawn for the whole batch: an example's key is the same on any number of devices.
        keys = jax.random.split(jax.random.fold_in(key, state.step), len(images))
        margin = losses.spread_margin(state.step, total_steps, loss)
        gradients, metrics, rest = differentiate(
            state.params, state.rest, margin, keys, images, labels, sources
        )
        if layer_metrics:
            metrics |= gradient_norms(gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, rest, optimizer_state, state.step + 1), metrics

    return step


def _cast(tree: Any, dtype: Any) -> Any:
    """All floating-point arrays of a tree in one dtype; 64 bits stay 64 bits."""

    def cast(leaf: Array) -> Array:
        narrow = jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype != jnp.float64
        return leaf.astype(dtype) if narrow else leaf

    return jax.tree.map(cast, tree)


def _as_before(new: Array, old: Array) -> Array:
    """Running statistics in the dtype that they had; random keys and counts as they are."""
    return new.astype(old.dtype) if jnp.issubdtype(old.dtype, jnp.floating) else new
