"""Routing algorithms: pure functions from votes to parents, all under one contract.

Every file here exports ``Config``, ``init`` and ``route``, and an iterative one also ``State``,
``start``, ``step`` and ``finish``; CONTRIBUTING says what each must do.
"""

import dataclasses
import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

from capsjax import checks
from capsjax.routing import (
    dynamic,
    em,
    inverted_attention,
    random_coupling,
    self_attention,
    self_routing,
    uniform,
    variational_bayes,
)

ALGORITHMS: dict[str, ModuleType] = {
    "dynamic": dynamic,
    "em": em,
    "variational_bayes": variational_bayes,
    "self_attention": self_attention,
    "self_routing": self_routing,
    "inverted_attention": inverted_attention,
    "uniform": uniform,
    "random_coupling": random_coupling,
}


@checks.arguments
def find(name: str) -> ModuleType:
    """A routing algorithm by its name.

    Args:
        name: a key of ``ALGORITHMS``, or the full name of a module of your own that follows the
            same contract.

    Returns:
        The algorithm's module.

    Raises:
        ValueError: there is no such algorithm or module, or it lacks part of the contract.

    Example:
        >>> find("em").SOURCE
        'Hinton, Sabour and Frosst 2018, Procedure 1'
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    try:
        return _checked(importlib.import_module(name))
    except Exception as error:  # a stranger's module may raise anything
        raise ValueError(
            f"unknown routing {name!r} ({error}), expected one of: {', '.join(ALGORITHMS)}, or the "
            "name (without .py) of a module of your own with Config, init, route, READOUT and "
            "SOURCE, in the current folder or on PYTHONPATH"
        ) from error


def config_of(routing: Any) -> Any:
    """A routing's config, from whatever names the routing.

    Args:
        routing: a name as for ``find``, an algorithm's module, or an instance of its ``Config``.

    Returns:
        An instance of its ``Config``; the default one where only the algorithm was named.

    Raises:
        ValueError: it is none of these.

    Example:
        >>> config_of("dynamic") == config_of(dynamic) == dynamic.Config()
        True
    """
    if isinstance(routing, str):
        return find(routing).Config()
    if isinstance(routing, ModuleType):
        return _checked(routing).Config()
    algorithm_of(routing)
    return routing


def name_of(config: Any) -> str:
    """Name by which ``find`` finds the algorithm of a config.

    Args:
        config: an instance of some algorithm's ``Config``.

    Returns:
        A key of ``ALGORITHMS``, or the full name of a user's module.

    Raises:
        ValueError: it is no routing's config.

    Example:
        >>> name_of(dynamic.Config(num_iterations=5))
        'dynamic'
    """
    module = algorithm_of(config)
    names = [name for name, algorithm in ALGORITHMS.items() if algorithm is module]
    return names[0] if names else module.__name__


def algorithm_of(config: Any) -> ModuleType:
    """The algorithm that a routing config belongs to: the module that defines its class.

    Args:
        config: an instance of some algorithm's ``Config``, ours or a user's own.

    Returns:
        The algorithm's module.

    Raises:
        ValueError: it is no routing's config.

    Example:
        >>> algorithm_of(dynamic.Config(num_iterations=5)) is dynamic
        True
    """
    module = sys.modules.get(type(config).__module__)
    if module is None or type(config) is not getattr(module, "Config", None):
        known = ", ".join(f"routing.{name}.Config" for name in ALGORITHMS)
        raise ValueError(
            f"routing is {config!r}, expected an instance of one of: {known}, or of the Config of "
            "a module of your own that follows the same contract"
        )
    return _checked(module)


def _checked(module: ModuleType) -> ModuleType:
    wanted = ("Config", "init", "route", "READOUT", "SOURCE")
    missing = [name for name in wanted if not hasattr(module, name)]
    if missing:
        raise ValueError(f"{module.__name__} is no routing: it has no {', '.join(missing)}")
    try:
        inspect.signature(module.route).bind(*range(4), compete=None, initial=None, trace=False)
    except TypeError as error:
        raise ValueError(
            f"{module.__name__}.route cannot be called as expected ({error}): it takes votes, "
            "children, params and config, and the keywords compete, initial and trace"
        ) from error
    config = module.Config
    if not dataclasses.is_dataclass(config) or any(
        field.default is field.default_factory is dataclasses.MISSING
        for field in dataclasses.fields(config)
    ):
        raise ValueError(
            f"{module.__name__}.Config is {config!r}, expected a dataclass whose fields all have a "
            "default"
        )
    if config.__module__ != module.__name__:
        raise ValueError(
            f"{module.__name__}.Config is that of {config.__module__}: a config leads back to its "
            "routing, so each routing has to define one of its own"
        )
    return module
