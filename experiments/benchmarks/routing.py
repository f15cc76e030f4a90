"""What one further iteration of dynamic routing costs, in passes over the votes.

At CapsNet's size (1,152 children, 10 parents of 16 dimensions, batch 64); a pass is one read-only
reduction over the votes along the children, measured in turn with it. Leave the machine alone
meanwhile. Expected: about 2 to 3 passes; half a minute on 2 cores.

    python -m experiments.benchmarks.routing [--json] [--quick]

writes ``experiments/results/routing_speed.json`` (not with ``--quick``, which is for a look).
"""

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from capsjax.__main__ import use_huge_pages
from capsjax.routing import dynamic
from capsjax.training.run import surroundings

RESULT = Path(__file__).parents[1] / "results" / "routing_speed.json"
MEGABYTE = 1e6


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        parents: number of parents.
        dim: dimension of a parent's pose.
        batch: examples.
        children: number of children.
        rounds: in which everything is timed in turn.
    """

    parents: int = 10
    dim: int = 16
    batch: int = 64
    children: int = 1152
    rounds: int = 25


QUICK = Config(rounds=3)


def passes(config: Config) -> dict[str, Any]:
    """Cost of one further iteration of dynamic routing in passes over the votes."""
    shape = (config.batch, config.parents, config.dim, config.children)
    votes = jax.random.normal(jax.random.key(0), shape) / 4

    def poses(count: int) -> Callable[[], Any]:
        own = dynamic.Config(num_iterations=count)
        run = jax.jit(jax.vmap(lambda votes: dynamic.route(votes, config=own).poses))
        return lambda: run(votes)

    reduce = jax.jit(lambda votes: votes.sum(-1))
    calls = {"pass": lambda: reduce(votes), 2: poses(2), 3: poses(3), 6: poses(6)}
    seconds: dict[Any, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(config.rounds):
        for name, call in calls.items():
            seconds[name].append(_time(call))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    iteration = (median[6] - median[2]) / 4
    return {
        "votes_megabytes": votes.nbytes / MEGABYTE,
        "seconds_per_pass": median["pass"],
        "seconds_per_iteration": iteration,
        "passes_per_iteration": iteration / median["pass"],
        "seconds_of_3_iterations": median[3],
    }


def _time(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--quick", action="store_true", help="a short look, nothing written")
    arguments = parser.parse_args()
    config = QUICK if arguments.quick else Config()
    load = os.getloadavg()[0]
    report = {
        "config": dataclasses.asdict(config),
        "dynamic": passes(config),
        "load_before": load,
        "cores": os.cpu_count(),
        **surroundings(),
    }
    if not arguments.quick:
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(report, indent=1))
        return
    first = report["dynamic"]
    print(
        f"dynamic, batch {config.batch}: one further iteration "
        f"{1e3 * first['seconds_per_iteration']:.2f} ms, a pass "
        f"{1e3 * first['seconds_per_pass']:.2f} ms: {first['passes_per_iteration']:.2f} passes"
    )


if __name__ == "__main__":
    use_huge_pages()
    main()
