"""Routing algorithms: pure functions from votes to parents, all under one contract.

Every file here exports ``Config``, ``init`` and ``route``, and an iterative one also ``State``,
``start``, ``step`` and ``finish``; CONTRIBUTING says what each must do.
"""

from types import ModuleType
from typing import Any

from capsjax.routing import dynamic

ALGORITHMS: dict[str, ModuleType] = {"dynamic": dynamic}


def name_of(config: Any) -> str:
    """Name in ``ALGORITHMS`` of the algorithm that a routing config belongs to.

    Args:
        config: an instance of some algorithm's ``Config``.

    Returns:
        The algorithm's name.

    Raises:
        ValueError: it is no routing's config.

    Example:
        >>> name_of(dynamic.Config(num_iterations=5))
        'dynamic'
    """
    for name, algorithm in ALGORITHMS.items():
        if isinstance(config, algorithm.Config):
            return name
    known = ", ".join(f"routing.{name}.Config" for name in ALGORITHMS)
    raise ValueError(f"routing is {config!r}, expected an instance of one of: {known}")
