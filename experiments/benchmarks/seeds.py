"""Several seeds: training steps one after another against the same ones side by side, by ``vmap``.

One run measures in turn, several times over (leave the machine alone meanwhile), what a training
step of every seed takes together: Efficient-CapsNet narrowed to few features, where a step is
mostly overhead that seeds side by side would share, and as published. Medians and their ratio are
printed, and written to ``experiments/results/seeds.json``. Expected on a CPU: ``vmap`` is slower
for the published network, whose convolutions become batched products; ``capsjax train --seeds``
trains one after another. About five minutes on 2 cores.

    python -m experiments.benchmarks.seeds
"""

import argparse
import dataclasses
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from capsjax import models
from capsjax.__main__ import use_huge_pages
from capsjax.models import efficient_capsnet
from capsjax.training import losses
from capsjax.training.run import surroundings
from capsjax.training.step import State, make_step, split
from experiments.benchmarks.peer_protocol import calls as timed_calls

RESULTS = Path(__file__).parents[1] / "results"
NETWORKS = {
    "narrow": efficient_capsnet.Config(features=(4, 8, 8, 16), decoder_widths=(16,)),
    "published": efficient_capsnet.Config(),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        networks: names in ``NETWORKS``.
        seeds: how many.
        batch_size: of each seed.
        rounds: how often both forms are measured in turn.
        repeats: timed steps of each form in a round.
    """

    networks: tuple[str, ...] = tuple(NETWORKS)
    seeds: int = 5
    batch_size: int = 64
    rounds: int = 5
    repeats: int = 4


PRESETS = {
    "full": Config(),
    "smoke": Config(networks=("narrow",), seeds=2, batch_size=2, rounds=1, repeats=1),
}


def forms(name: str, config: Config) -> dict[str, Callable[[], Any]]:
    """A function for each form that makes one training step from every seed."""
    optimizer = optax.adam(1e-3)
    seeds = range(config.seeds)

    def start(seed: int) -> tuple[Any, State]:
        network = models.create("efficient_capsnet", config=NETWORKS[name], rngs=seed)
        graph, params, rest = split(network)
        return graph, State(params, rest, optimizer.init(params), jnp.zeros((), jnp.int32))

    graph = start(0)[0]

    def one(key: Any, state: State, images: Any, labels: Any) -> tuple[State, Any]:
        step = make_step(graph, optimizer, num_classes=10, limit=2, loss=losses.Config(), key=key)
        state, metrics = step(state, images, labels)
        return state, metrics["loss"]

    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    shape = (config.seeds, config.batch_size, 28, 28, 1)
    images = jax.random.randint(jax.random.key(0), shape, 0, 256).astype(jnp.uint8)
    labels = jax.random.randint(jax.random.key(1), shape[:2], 0, 10)
    alone = jax.jit(one, donate_argnums=1)
    together = jax.jit(jax.vmap(one), donate_argnums=1)
    states = [start(seed)[1] for seed in seeds]
    stacked = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)]

    def one_after_another() -> Any:
        found = []
        for seed in seeds:
            states[seed], loss = alone(keys[seed], states[seed], images[seed], labels[seed])
            found.append(loss)
        return jax.block_until_ready(found)

    def side_by_side() -> Any:
        stacked[0], found = together(keys, stacked[0], images, labels)
        return jax.block_until_ready(found)

    return {"one after another": one_after_another, "vmap": side_by_side}


def run(config: Config) -> dict[str, Any]:
    """Measure everything and return the report."""
    load_before = os.getloadavg()[0]
    rows = {}
    for name in config.networks:
        calls = forms(name, config)
        seconds: dict[str, list[float]] = {form: [] for form in calls}
        for call in calls.values():
            jax.block_until_ready(call())
        for _ in range(config.rounds):
            for form, call in calls.items():
                seconds[form] += timed_calls(call, config.repeats)
        medians = {form: statistics.median(times) for form, times in seconds.items()}
        spread = {form: [min(times), max(times)] for form, times in seconds.items()}
        ratio = medians["one after another"] / medians["vmap"]
        rows[name] = {"seconds": medians, "spread": spread, "speed_of_vmap": ratio}
    return {
        "config": dataclasses.asdict(config),
        "networks": rows,
        "load_before": load_before,
        "cores": os.cpu_count(),
        **surroundings(),
    }


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="full")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    report = run(PRESETS[arguments.preset])
    (arguments.results / "seeds.json").write_text(json.dumps(report, indent=1) + "\n")
    seeds = report["config"]["seeds"]
    for name, row in report["networks"].items():
        times = ", ".join(f"{form} {1e3 * t:.0f} ms" for form, t in row["seconds"].items())
        print(f"{name}, a step from each of {seeds} seeds: {times}")
        print(f"  vmap is {row['speed_of_vmap']:.2f} times as fast")


if __name__ == "__main__":
    use_huge_pages()
    main()
