"""How every routing's time and memory grow: by children, parents, batch and iterations.

One size grows at a time, the others stay; forward, and forward with the gradient of votes, children
and parameters. Sizes of which a child, a parent, an example or an iteration more costs the same are
linear: the table gives cost per unit at the largest size over that at the size before (1 is linear,
below 1 the fixed cost of a call still shows). Leave the machine alone meanwhile.

    python -m experiments.benchmarks.growth [--quick]

writes ``experiments/results/growth.json`` and ``growth.png`` (not with ``--quick``). Expected: 1 to
within a factor of 2, but for time where the votes leave the caches; about six minutes on 2 cores.
"""

import argparse
import dataclasses
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from capsjax import Capsules, routing
from capsjax.__main__ import use_huge_pages
from capsjax.figures._style import line_style
from capsjax.routing import convergence
from capsjax.training.run import surroundings

RESULTS = Path(__file__).parents[1] / "results"
PARTS = ("forward", "backward")
MEASURES = ("seconds", "temporary_megabytes")
MEGABYTE = 1e6


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        sizes: what each size grows through.
        base: the sizes that stay.
        dim: of the parents' poses.
        repeats: timed calls of each kind.
    """

    sizes: dict[str, tuple[int, ...]] = dataclasses.field(
        default_factory=lambda: {
            "children": (100, 1_000, 10_000, 100_000),
            "parents": (10, 40, 160, 640),
            "batch": (1, 8, 64, 256),
            "iterations": (1, 3, 10, 30),
        }
    )
    base: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"children": 500, "parents": 10, "batch": 1, "iterations": 3}
    )
    dim: int = 16
    repeats: int = 5


QUICK = Config(
    sizes={"children": (16, 32), "parents": (2, 4), "batch": (1, 2), "iterations": (1, 2)},
    base={"children": 16, "parents": 2, "batch": 1, "iterations": 1},
    repeats=1,
)


def run(config: Config) -> list[dict[str, Any]]:
    """Every routing at every size."""
    rows = []
    for name, module in routing.ALGORITHMS.items():
        for axis, sizes in config.sizes.items():
            if axis == "iterations" and not hasattr(module.Config(), "num_iterations"):
                continue
            for size in sizes:
                row = {"routing": name, "axis": axis, "size": size}
                rows.append(row | _one(module, config.base | {axis: size}, config))
                print(_line(rows[-1]), flush=True)
    return rows


def _one(module: Any, sizes: dict[str, int], config: Config) -> dict[str, Any]:
    """Seconds and memory of both parts at one size."""
    own = module.Config()
    if hasattr(own, "num_iterations"):
        own = convergence.extrapolate(own, sizes["iterations"])
    batch, count, key = sizes["batch"], sizes["children"], jax.random.key(0)
    votes = jax.random.normal(key, (batch, sizes["parents"], config.dim, count)) / 4
    children = Capsules(
        jax.random.normal(key, (batch, count, 8)), jax.random.uniform(key, (batch, count))
    )
    params = module.init(
        own, key, parents=sizes["parents"], dim=config.dim, children=count, child_dim=8
    )

    def total(votes: Any, children: Any, params: Any) -> Any:
        found = jax.vmap(lambda v, c: module.route(v, c, params, own))(votes, children)
        active = 0.0 if found.activations is None else jnp.sum(found.activations)
        return jnp.sum(jnp.sin(found.poses)) + active

    report = {}
    functions = {"forward": total, "backward": jax.grad(total, argnums=(0, 1, 2))}
    for name, function in functions.items():
        compiled = jax.jit(function).lower(votes, children, params).compile()
        times = []
        for _ in range(config.repeats + 1):
            start = time.perf_counter()
            jax.block_until_ready(compiled(votes, children, params))
            times.append(time.perf_counter() - start)
        temporaries = compiled.memory_analysis().temp_size_in_bytes
        report[name] = {
            "seconds": statistics.median(times[1:]),  # the first warms up
            "temporary_megabytes": temporaries / MEGABYTE,
        }
    return report


def growth(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Cost per unit at the largest size over that at the size before, by routing and axis."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, axis in {(row["routing"], row["axis"]): None for row in rows}:
        own = [row for row in rows if (row["routing"], row["axis"]) == (name, axis)]
        small, large = sorted(own, key=lambda row: row["size"])[-2:]
        scale = large["size"] / small["size"]
        found.setdefault(name, {})[axis] = {
            f"{part}_{measure}": large[part][measure] / small[part][measure] / scale
            for part in PARTS
            for measure in MEASURES
            if small[part][measure]
        }
    return found


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Time above, memory below, forward with gradient; one column a size, one curve a routing."""
    axes_names = list({row["axis"]: None for row in rows})
    names = list({row["routing"]: None for row in rows})
    figure = Figure(figsize=(3.2 * len(axes_names), 6.2), layout="constrained")
    grid = figure.subplots(2, len(axes_names), squeeze=False)
    labels = ("milliseconds, forward + backward", "temporaries, MB")
    for line, measure in enumerate(MEASURES):
        for column, axis_name in enumerate(axes_names):
            axis = grid[line][column]
            for number, name in enumerate(names):
                own = [r for r in rows if (r["routing"], r["axis"]) == (name, axis_name)]
                if not own:
                    continue
                factor = 1e3 if measure == "seconds" else 1
                values = [factor * row["backward"][measure] for row in own]
                axis.loglog([r["size"] for r in own], values, label=name, **line_style(number))
            axis.set_xlabel(axis_name)
            axis.grid(alpha=0.3)
        grid[line][0].set_ylabel(labels[line])
    handles, found = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, found, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _line(row: dict[str, Any]) -> str:
    cells = [f"{row['routing']:<19}{row['axis']:>11} {row['size']:>7,}"]
    for part in PARTS:
        seconds, memory = (row[part][measure] for measure in MEASURES)
        cells.append(f"{part} {1e3 * seconds:9.2f} ms {memory:9.2f} MB")
    return "  ".join(cells)


def main() -> None:
    """Measure, print, write the result and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    arguments = parser.parse_args()
    config = QUICK if arguments.quick else Config()
    load = os.getloadavg()[0]
    rows = run(config)
    report = {
        "config": dataclasses.asdict(config),
        "growth": growth(rows),
        "rows": rows,
        "load_before": load,
        "cores": os.cpu_count(),
        **surroundings(),
    }
    for name, axes in report["growth"].items():
        for axis, ratios in axes.items():
            print(f"{name:<19}{axis:<11}" + ", ".join(f"{k} {v:.2f}" for k, v in ratios.items()))
    if arguments.quick and arguments.results == RESULTS:
        return
    (arguments.results / "growth.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(rows).savefig(arguments.results / "growth.png", dpi=110)


if __name__ == "__main__":
    use_huge_pages()
    main()
