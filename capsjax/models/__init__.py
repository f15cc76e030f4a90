"""Published networks, one file each, behind one door: ``create``."""

import dataclasses
import math
from types import ModuleType
from typing import Any

import jax
from flax import nnx

from capsjax.models import capsnet, efficient_capsnet
from capsjax.routing import config_of

MODELS: dict[str, ModuleType] = {
    "capsnet": capsnet,
    "efficient_capsnet": efficient_capsnet,
}


def find(name: str) -> ModuleType:
    """The file of a network.

    Args:
        name: a key of ``MODELS``.

    Returns:
        Its module, with ``Config``, ``Network``, ``SOURCE``.

    Raises:
        ValueError: there is no such network.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}, expected one of: {', '.join(MODELS)}")
    return MODELS[name]


def create(
    name: str,
    *,
    image_shape: tuple[int, int, int] = (28, 28, 1),
    num_classes: int = 10,
    config: Any = None,
    routing: Any = None,
    seed: int = 0,
) -> nnx.Module:
    """A network with fresh parameters.

    Args:
        name: a key of ``MODELS``.
        image_shape: height, width and channels of the images.
        num_classes: number of classes.
        config: the network's ``Config``; None is the published one.
        routing: another routing than the config's: a name, a module that follows the routing
            contract (your own too), or an instance of its ``Config``.
        seed: of the initial parameters.

    Returns:
        A Flax NNX module that takes images ``[batch, height, width, channels]`` in [0, 1] and
        returns an ``Output``.

    Raises:
        ValueError: an unknown name or routing, or images that the network cannot take.

    Example:
        >>> network = create("capsnet", image_shape=(28, 28, 1), num_classes=10)
        >>> count_parameters(network)
        8215568
    """
    module = find(name)
    config = module.Config() if config is None else config
    if routing is not None:
        config = dataclasses.replace(config, routing=config_of(routing))
    return module.Network(
        config,
        image_shape=image_shape,
        num_classes=num_classes,
        rngs=nnx.Rngs(params=seed),
    )


def count_parameters(network: nnx.Module) -> int:
    """Number of trainable parameters of a network, or of an abstract one from ``eval_shape``."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
