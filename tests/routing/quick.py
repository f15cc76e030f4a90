"""``jax.jit`` with a compiler that takes a third of the time and makes slower code.

For tests whose time is the compiler's: many small functions, each called a few times.
"""

import functools
from collections.abc import Callable

import jax

_OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


@functools.cache
def options() -> dict:
    """What to tell the compiler, or nothing where this one has other options."""
    try:
        jax.jit(lambda x: x, compiler_options=_OPTIONS)(0.0)
    except jax.errors.JaxRuntimeError:
        return {}
    return _OPTIONS


def jit(function: Callable) -> Callable:
    return jax.jit(function, compiler_options=options())
