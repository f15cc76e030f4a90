"""Shared settings and fixtures: strict JAX, precisions, ways to call a function, a narrow network.

Fixtures that need 64 bits turn them on for their test alone.
"""

import importlib.metadata
import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax.models import capsnet

# A compiler that takes half the time and makes slower code: nearly all of the suite's time is the
# compiler's. Set before anything is computed, for commands that tests start too. The second only
# where it is known: a compiler that does not know a flag ends the process.
_FLAGS = ["--xla_backend_optimization_level=0"]
if importlib.metadata.version("jax").startswith("0.10."):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))

jax.config.update("jax_numpy_rank_promotion", "raise")
# The same examples in every run; a compiled function's first call may take seconds.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    max_examples=40,
    derandomize=True,
    # How fast a busy machine draws examples says nothing about the code.
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of few tests first: theirs are the long ones, which would keep a core waiting."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (tests[item.path], item.path))


class Precision(NamedTuple):
    """A dtype and how far from exact a result in it may be."""

    dtype: Any
    tolerance: float


def bare(function: Callable) -> Callable:
    """A function without the shape checks that ``--jaxtyping-packages`` wraps around it.

    Under that flag a wrong shape never arrives at the ValueError that users get.
    """
    return inspect.unwrap(function)


def bare_config(config: type, **options: Any) -> Any:
    """An instance of a config's dataclass, made as ``bare`` calls a function."""
    instance = object.__new__(config)
    bare(config.__init__)(instance, **options)
    return instance


def eagerly(function: Callable, *arrays: Any) -> Any:
    return function(*arrays)


def compiled(function: Callable, *arrays: Any) -> Any:
    return jax.jit(function)(*arrays)


def batched(function: Callable, *arrays: Any) -> Any:
    """The second of a batch of two, whose first is all zeros."""
    stacked = [jax.tree.map(lambda x: jnp.stack([jnp.zeros_like(x), x]), a) for a in arrays]
    return jax.tree.map(lambda x: x[1], jax.vmap(function)(*stacked))


@pytest.fixture
def own_answers(request: pytest.FixtureRequest) -> None:
    """For tests of what the library itself says of wrong arguments."""
    if request.config.getoption("--jaxtyping-packages", default=None):
        pytest.skip("the shape checks of --jaxtyping-packages refuse them first")


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def precision(request: pytest.FixtureRequest) -> Iterator[Precision]:
    """What results are compared in with the float64 references."""
    with jax.enable_x64(request.param == "float64"):
        yield Precision(
            jnp.dtype(request.param), {"float32": 1e-5, "float64": 1e-10}[request.param]
        )


@pytest.fixture(params=["bfloat16", "float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Every dtype that the library computes in."""
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


@pytest.fixture(params=[eagerly, compiled, batched])
def apply(request: pytest.FixtureRequest) -> Callable:
    """``apply(function, *arrays)``: calls it as it is, under jit, and under vmap."""
    return request.param


@pytest.fixture(scope="session")
def small_config() -> capsnet.Config:
    """CapsNet narrowed: on 16x16 images it has 32 primary capsules."""
    return capsnet.Config(features=8, kernel_size=5, primary_types=2, decoder_widths=(16,))


@pytest.fixture(scope="session")
def small_network(small_config: capsnet.Config) -> capsnet.Network:
    """The narrow network for images [16, 16, 1] of 3 classes; one for all tests, to be read."""
    with jax.enable_x64(False):
        return capsnet.Network(
            small_config, image_shape=(16, 16, 1), num_classes=3, rngs=nnx.Rngs(params=0)
        )
