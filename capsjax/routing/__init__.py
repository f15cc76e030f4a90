"""Routing algorithms: pure functions from votes to parents, all under one contract.

Every file here exports ``Config``, ``init`` and ``route``, and an iterative one also ``State``,
``start``, ``step`` and ``finish``; CONTRIBUTING says what each must do.
"""

import sys
from types import ModuleType
from typing import Any

from capsjax.routing import dynamic

ALGORITHMS: dict[str, ModuleType] = {"dynamic": dynamic}


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
    if not isinstance(module, ModuleType) or type(config) is not getattr(module, "Config", None):
        known = ", ".join(f"routing.{name}.Config" for name in ALGORITHMS)
        raise ValueError(
            f"routing is {config!r}, expected an instance of one of: {known}, or of the Config of "
            "a module of your own that follows the same contract"
        )
    return module
