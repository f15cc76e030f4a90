"""Time and memory of every routing, forward and backward, by iterations and number of children.

Leave the machine alone meanwhile. Two parts: what one further iteration of dynamic routing costs at
CapsNet's size (1,152 children, 10 parents of 16 dimensions, batch 64), in passes, a pass being one
read-only reduction over the votes along the children, measured in turn with it; and all eight on
one example with 32 to 100,000 children. Expected: at most 3 passes; memory linear in the children,
time too but for a step where the votes no longer fit the caches. About three minutes on 2 cores.

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
import jax.numpy as jnp

from capsjax import Capsules, routing
from capsjax.__main__ import use_huge_pages
from capsjax.routing import convergence, dynamic
from capsjax.training.run import surroundings

RESULT = Path(__file__).parents[1] / "results" / "routing_speed.json"
MEGABYTE = 1e6


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        parents: number of parents.
        dim: dimension of a parent's pose.
        batch: examples of the first part.
        batch_children: children of the first part.
        children: numbers of children of the second part.
        iterations: numbers of iterations of the second part.
        repeats: timed calls of each kind.
        rounds: of the first part, in which everything is timed in turn.
    """

    parents: int = 10
    dim: int = 16
    batch: int = 64
    batch_children: int = 1152
    children: tuple[int, ...] = (32, 1_000, 10_000, 100_000)
    iterations: tuple[int, ...] = (1, 3, 10)
    repeats: int = 5
    rounds: int = 15


QUICK = Config(children=(32, 1_000), iterations=(1, 3), repeats=2, rounds=3)


def passes(config: Config) -> dict[str, Any]:
    """Cost of one further iteration of dynamic routing in passes over the votes."""
    shape = (config.batch, config.parents, config.dim, config.batch_children)
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


def scaling(config: Config) -> list[dict[str, Any]]:
    """Time and memory of every routing on one example."""
    rows = []
    for name, module in routing.ALGORITHMS.items():
        default = module.Config()
        counts = config.iterations if hasattr(default, "num_iterations") else (None,)
        for count in counts:
            own = default if count is None else convergence.extrapolate(default, count)
            for children in config.children:
                row = {"routing": name, "iterations": count, "children": children}
                rows.append(row | _one(module, own, children, config))
                print(_line(rows[-1]), flush=True)
    return rows


def _one(module: Any, own: Any, count: int, config: Config) -> dict[str, Any]:
    """Forward, and forward with the gradient of votes, children and parameters."""
    key = jax.random.key(0)
    votes = jax.random.normal(key, (config.parents, config.dim, count)) / 4
    children = Capsules(jax.random.normal(key, (count, 8)), jax.random.uniform(key, (count,)))
    sizes = {"parents": config.parents, "dim": config.dim, "children": count, "child_dim": 8}
    params = module.init(own, key, **sizes)

    def total(votes: Any, children: Any, params: Any) -> Any:
        found = module.route(votes, children, params, own)
        active = 0.0 if found.activations is None else jnp.sum(found.activations)
        return jnp.sum(jnp.sin(found.poses)) + active

    report = {}
    inputs = (votes, children, params)
    functions = {"forward": total, "backward": jax.grad(total, argnums=(0, 1, 2))}
    for name, function in functions.items():
        compiled = jax.jit(function).lower(*inputs).compile()
        jax.block_until_ready(compiled(*inputs))
        times = [_time(lambda run=compiled: run(*inputs)) for _ in range(config.repeats)]
        memory = compiled.memory_analysis()
        report[name] = {
            "seconds": statistics.median(times),
            "temporary_megabytes": memory.temp_size_in_bytes / MEGABYTE,
            "arguments_megabytes": memory.argument_size_in_bytes / MEGABYTE,
        }
    return report


def _time(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _line(row: dict[str, Any]) -> str:
    count = "-" if row["iterations"] is None else row["iterations"]
    cells = [f"{row['routing']:<19}{count:>3} iterations {row['children']:>7,} children"]
    for name in ("forward", "backward"):
        part = row[name]
        cells.append(
            f"{name} {1e3 * part['seconds']:9.2f} ms {part['temporary_megabytes']:9.2f} MB"
        )
    return "  ".join(cells)


def growth(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each routing's most iterations: time and memory a child, most children to a tenth of them.

    1 is linear; below 1, the fixed cost of a call still shows at the smaller size.
    """
    found: dict[str, dict[str, float]] = {}
    most = max(row["children"] for row in rows)
    for name in {row["routing"]: None for row in rows}:
        own = [row for row in rows if row["routing"] == name]
        own = [row for row in own if row["iterations"] == own[-1]["iterations"]]
        large = next(row for row in own if row["children"] == most)
        small = max((r for r in own if r["children"] < most), key=lambda row: row["children"])
        scale = large["children"] / small["children"]
        found[name] = {
            f"{part}_{what}": large[part][what] / small[part][what] / scale
            for part in ("forward", "backward")
            for what in ("seconds", "temporary_megabytes")
            if small[part][what]
        }
    return found


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    arguments = parser.parse_args()
    config = QUICK if arguments.quick else Config()
    load = os.getloadavg()[0]
    report = {
        "config": dataclasses.asdict(config),
        "dynamic": passes(config),
        "routings": (rows := scaling(config)),
        "growth": growth(rows),
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
    for name, ratios in report["growth"].items():
        print(f"{name:<19}growth " + ", ".join(f"{k} {v:.2f}" for k, v in ratios.items()))


if __name__ == "__main__":
    use_huge_pages()
    main()
