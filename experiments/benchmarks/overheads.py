"""What is spent beside the step: compiling it, a second start, Python and the input, votes' memory.

Leave the machine alone meanwhile; about two minutes on 2 cores.

    python -m experiments.benchmarks.overheads

writes ``experiments/results/overheads.json``. Three parts:

- seconds to trace and compile CapsNet's training step (batch 64) in a new process: without JAX's
  persistent compilation cache (``JAX_COMPILATION_CACHE_DIR``), with an empty one, and with what the
  second left there;
- the share of an epoch in ``fit`` that is not spent in the compiled step: epochs of ``fit`` beside
  as many calls of the step alone, on a batch that is already there, each dispatched while the one
  before it is computed, as ``fit`` does;
- temporary memory and time of CapsNet's class capsules, forward and backward at batch 128, where
  the votes of all images, of half of them or of fewer exist at a time (``votes_at_once``).

Expected: 6 s, as much, 2 s; at most 2 % of an epoch; half the memory in at most 1.3 times the time.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from capsjax import data, models
from capsjax.__main__ import use_huge_pages
from capsjax.layers import DenseCapsules
from capsjax.ops.squash import safe_norm
from capsjax.routing import dynamic
from capsjax.training import loop, losses
from capsjax.training.run import surroundings
from capsjax.training.step import State, make_step, split
from capsjax.types import Capsules
from experiments.benchmarks.ours import Measured
from experiments.benchmarks.peer_protocol import timed

RESULT = Path(__file__).parents[1] / "results" / "overheads.json"


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        network: whose step.
        batch_size: of the step.
        steps: of an epoch.
        rounds: how often both are measured in turn.
        votes: of how many of 128 images votes exist at a time.
    """

    network: str = "efficient_capsnet"
    batch_size: int = 64
    steps: int = 60
    rounds: int = 3
    votes: tuple[int, ...] = (128, 64, 32, 16)


def compile_seconds(cache: str | None) -> float:
    """Of CapsNet's training step, traced and compiled in a new process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    if cache is not None:
        environment |= {"JAX_COMPILATION_CACHE_DIR": cache}
    command = [sys.executable, "-m", __spec__.name, "--compile"]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(result.stdout.splitlines()[-1])


def beside_the_step(config: Config, cache: str) -> dict[str, float]:
    """Seconds of an epoch in ``fit``, of its steps alone, and the share that is neither."""
    images = config.steps * config.batch_size
    digits = {name: array[: images + 64] for name, array in data.load("mnist", "train").items()}
    network = models.create(config.network, rngs=0)

    # Compiling is not part of an epoch, and is to take as long in every call.
    jax.config.update("jax_compilation_cache_dir", cache)

    def epochs(count: int) -> float:
        choices = loop.Config(epochs=count, batch_size=config.batch_size, validation=64)
        result = loop.fit(network, digits, choices)
        return count * images / result.images_per_second

    epochs(1)
    call = _step_alone(network, digits, config.batch_size)
    fits, alone = [], []
    for _ in range(config.rounds):
        fits.append((epochs(5) - epochs(1)) / 4)  # the first also compiles
        start = time.perf_counter()
        for _ in range(config.steps):
            metrics = call()
        jax.block_until_ready(metrics)
        alone.append(time.perf_counter() - start)
    whole, inside = statistics.median(fits), statistics.median(alone)
    return {"epoch_seconds": whole, "steps_seconds": inside, "share": 1 - inside / whole}


def _step_alone(network: Any, digits: Any, batch_size: int) -> Any:
    graph, params, rest = split(network)
    optimizer = optax.adam(1e-3)
    step = make_step(
        graph,
        optimizer,
        num_classes=10,
        limit=2,
        loss=losses.Config(),
        key=jax.random.key(0),
    )
    state = State(params, rest, optimizer.init(params), jnp.zeros((), jnp.int32))
    compiled = jax.jit(step, donate_argnums=0)
    images = jnp.asarray(digits["image"][:batch_size])
    labels = jnp.asarray(digits["label"][:batch_size].astype(np.int32))
    held = [jax.tree.map(jnp.copy, state)]

    def call() -> Any:
        held[0], metrics = compiled(held[0], images, labels)
        return metrics

    jax.block_until_ready(call())
    return call


def votes_at_once(config: Config) -> dict[int, dict[str, float]]:
    """Temporary memory and seconds of CapsNet's class capsules, by how many images' votes exist."""
    layer = DenseCapsules(1152, 8, 10, 16, config=dynamic.Config(), rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    poses = jax.random.normal(jax.random.key(0), (config.votes[0], 1152, 8))
    calls, found = {}, {}
    for size in config.votes:

        def loss(state: Any, poses: Any, size: int = size) -> Any:
            layer = nnx.merge(graph, state)
            layer.set_attributes(votes_at_once=size)
            return jnp.sum(layer(Capsules(poses, safe_norm(poses))).activations ** 2)

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(state, poses).compile()
        memory = compiled.memory_analysis().temp_size_in_bytes
        found[size] = {"temporary_megabytes": memory / 1e6}
        calls[size] = partial(compiled, state, poses)
    times: dict[int, list[float]] = {size: [] for size in config.votes}
    for _ in range(4 * config.rounds):
        for size, call in calls.items():
            times[size] += timed(lambda call=call: jax.block_until_ready(call()), 0)
    for size in config.votes:
        found[size]["seconds"] = statistics.median(times[size][1:])
    return found


def main() -> None:
    """Measure, print, write the result."""
    if sys.argv[1:] == ["--compile"]:
        measured = Measured("capsnet", "default", 64)
        measured.call("train")
        report = measured.report["train"]
        print(report["trace_seconds"] + report["compile_seconds"])
        return
    load, config = os.getloadavg()[0], Config()
    with tempfile.TemporaryDirectory() as cache:
        compiled = {
            "without a cache": compile_seconds(None),
            "with an empty one": compile_seconds(cache),
            "second start": compile_seconds(cache),
        }
        votes = votes_at_once(config)
        epoch = beside_the_step(config, cache)
    report = {
        "config": dataclasses.asdict(config),
        "compile_seconds": compiled,
        "epoch": epoch,
        "votes_at_once": votes,
        "load_before": load,
        **surroundings(),
    }
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    print(
        json.dumps({k: report[k] for k in ("compile_seconds", "epoch", "votes_at_once")}, indent=2)
    )


if __name__ == "__main__":
    use_huge_pages()
    main()
