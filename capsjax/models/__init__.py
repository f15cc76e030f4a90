"""Published networks, one file each, behind one door: ``create``."""

import dataclasses
import math
from functools import partial
from types import ModuleType
from typing import Any

import jax
from flax import nnx

from capsjax.checks import arguments
from capsjax.models import (
    affine_capsnet,
    baselines,
    capsnet,
    deepcaps,
    efficient_capsnet,
    inverted_attention_resnet,
    matrix_capsules,
    self_routing_resnet,
    small_resnet,
    variational_capsnet,
)
from capsjax.models.published import Form, Model
from capsjax.routing import ALGORITHMS, config_of

__all__ = ["MODELS", "Form", "Model", "count_parameters", "create", "find", "pairs"]

MODELS: dict[str, Model] = {
    "capsnet": capsnet.MODEL,
    "efficient_capsnet": efficient_capsnet.MODEL,
    "matrix_capsules": matrix_capsules.MODEL,
    "matrix_capsules_small": matrix_capsules.SMALL,
    "variational_capsnet": variational_capsnet.MODEL,
    "inverted_attention_resnet": inverted_attention_resnet.MODEL,
    "self_routing_resnet": self_routing_resnet.MODEL,
    "small_resnet": small_resnet.MODEL,
    "affine_capsnet": affine_capsnet.MODEL,
    "sabour_cnn": baselines.SABOUR_CNN,
    "sabour_cnn_pooled": baselines.SABOUR_CNN_POOLED,
    "hinton_cnn": baselines.HINTON_CNN,
    "efficient_cnn": baselines.EFFICIENT_CNN,
    "deepcaps": deepcaps.MODEL,
}


@arguments
def find(name: str) -> Model:
    """What is known of a network.

    Args:
        name: a key of ``MODELS``.

    Returns:
        Its class, its default config, its published forms.

    Raises:
        ValueError: there is no such network.

    Example:
        >>> find("capsnet").source
        'Sabour, Frosst and Hinton 2017'
        >>> [form.dataset for form in find("efficient_capsnet").forms]
        ['mnist', 'multi_mnist', 'smallnorb']
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}, expected one of: {', '.join(MODELS)}")
    return MODELS[name]


@arguments
def create(
    name: str,
    *,
    rngs: nnx.Rngs | int = 0,
    image_shape: tuple[int, int, int] = (28, 28, 1),
    num_classes: int = 10,
    config: Any = None,
    routing: Any = None,
) -> nnx.Module:
    """A network with fresh parameters.

    Args:
        name: a key of ``MODELS``.
        rngs: whose stream ``params`` the initial parameters are drawn from; a number seeds it.
        image_shape: height, width and channels of the images.
        num_classes: number of classes.
        config: the network's ``Config``; None is the published one.
        routing: another routing than the config's: a name, a module that follows the routing
            contract (your own too), or an instance of its ``Config``. By a name, the config's own
            algorithm keeps the choices that it has there.

    Returns:
        A Flax NNX module that takes images ``[batch, height, width, channels]`` in [0, 1] and
        returns an ``Output``.

    Raises:
        ValueError: an unknown name or routing, a config of another network, a routing that the
            network cannot take, or images that it cannot.

    Example:
        >>> network = create("capsnet", image_shape=(28, 28, 1), num_classes=10)
        >>> count_parameters(network)
        8215568
    """
    model = find(name)
    config = model.config if config is None else config
    if type(config) is not type(model.config):
        raise ValueError(
            f"config is {config!r}, expected an instance of {type(model.config).__module__}.Config"
        )
    if min(image_shape) < 1:
        raise ValueError(f"image_shape is {image_shape}, expected sizes of at least 1")
    if routing is not None:
        if not hasattr(config, "routing"):
            raise ValueError(f"{name} has no capsules to route: leave routing at None")
        config = dataclasses.replace(config, routing=chosen_routing(config, routing))
    rngs = nnx.Rngs(params=rngs) if isinstance(rngs, int) else rngs
    network: Any = model.network
    return network(config, image_shape=image_shape, num_classes=num_classes, rngs=rngs)


def chosen_routing(config: Any, routing: Any) -> Any:
    """The config of a routing that is put into a network.

    Args:
        config: the network's.
        routing: as for ``create``.

    Returns:
        The network's own one where a name or a module names its algorithm, since its choices were
        made for it; else the routing's.

    Raises:
        ValueError: it is no routing.
    """
    wanted = config_of(routing)
    named = isinstance(routing, str | ModuleType)
    return config.routing if named and type(wanted) is type(config.routing) else wanted


def count_parameters(network: nnx.Module) -> int:
    """Number of trainable parameters of a network, or of an abstract one from ``eval_shape``.

    Args:
        network: of ``create``, or an abstract one.

    Returns:
        How many numbers its parameters hold; running statistics are none.

    Example:
        >>> count_parameters(nnx.eval_shape(lambda: create("capsnet")))  # nothing is computed
        8215568
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))


def pairs(*names: str) -> dict[str, dict[str, str | None]]:
    """Which routing each network can take: all are built, without computing anything.

    Every network has the sizes of its first published form, every routing its default choices.

    Args:
        names: of the networks; all of them without.

    Returns:
        For each model and each routing None, or why they cannot be together.

    Example:
        >>> pairs()["capsnet"]["em"] is None
        True
    """
    return {
        name: {routing: _refusal(name, routing) for routing in ALGORITHMS}
        for name in names or MODELS
    }


def _refusal(name: str, routing: str) -> str | None:
    form = MODELS[name].forms[0]
    if not hasattr(form.config, "routing"):
        return "it has no capsules to route"
    build = partial(
        create,
        name,
        image_shape=form.image_shape,
        num_classes=form.num_classes,
        config=form.config,
        routing=routing,
    )
    try:
        nnx.eval_shape(build)
    except ValueError as error:
        return str(error)
    return None
