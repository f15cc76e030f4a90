"""What a compiled training step costs: its temporaries, and its time beside others' on a machine.

The steps are timed in turns, so that whatever else the machine does meets all of them alike.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from capsjax.training.settings import Settings
from capsjax.training.step import State, make_step, split


def measure(chosen: Mapping[str, Settings], rounds: int) -> dict[str, dict[str, Any]]:
    """Measure some trainings' steps.

    Args:
        chosen: what to train, by any names.
        rounds: in each of which every step is timed.

    Returns:
        By the same names ``step_seconds`` (the median), its quartiles, and ``temporaries_bytes``.
    """
    steps, found = {}, {}
    for name, settings in chosen.items():
        steps[name], temporaries = _compiled(settings)
        found[name] = {"temporaries_bytes": temporaries}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            step()  # after another one's the caches are cold
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {
        name: {
            **found[name],
            "step_seconds": statistics.median(each),
            "step_seconds_quartiles": np.quantile(each, [0.25, 0.75]).tolist(),
        }
        for name, each in times.items()
    }


def _compiled(chosen: Settings) -> tuple[Callable[[], None], int]:
    """A training step that goes on from its own result, and the bytes of its temporaries."""
    graph, params, rest = split(chosen.create())
    own = chosen.training
    optimizer = optax.adam(own.peak_learning_rate)
    step = make_step(
        graph,
        optimizer,
        num_classes=len(chosen.class_names),
        limit=own.shift,
        loss=own.loss,
        key=jax.random.key(own.seed),
        recipe=own.recipe,
    )
    # What an image shows does not matter to time and memory.
    drawn = np.random.default_rng(own.seed)
    images = drawn.integers(256, size=(own.batch_size, *chosen.shape_of_data), dtype=np.uint8)
    labels = drawn.integers(len(chosen.class_names), size=own.batch_size, dtype=np.int32)
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    state = State(params, rest, optimizer.init(params), jnp.zeros((), jnp.int32))
    compiled = jax.jit(step, donate_argnums=0).lower(state, images, labels).compile()

    def advance() -> None:
        nonlocal state
        state, metrics = compiled(state, images, labels)
        jax.block_until_ready(metrics)

    return advance, int(compiled.memory_analysis().temp_size_in_bytes)
