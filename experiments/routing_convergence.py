"""Which routings converge, in how many iterations, and what they do to the coefficients.

Claim: iterative routings are described as clustering, which suggests that they converge; critics
(Paik, Kwak and Kim 2019) found that more iterations of dynamic routing only polarise the couplings.
Protocol: all eight algorithms, with their default configs and fresh parameters, on three kinds of
votes: clustered (synthetic: each child agrees with its group about one parent and is scattered for
the others), unclustered (synthetic: normal), and those of a CapsNet trained with dynamic routing on
MNIST, for validation images. An iterative one runs until no coefficient of an example changes by
1e-3 or more in one iteration (EM at its last temperature), at most 1,000 times; then with a trace
over 50 iterations. The trained network's validation error is given for 1 to 50 iterations, too.
Expected: variational Bayes, EM and inverted attention converge; dynamic routing ends in one-hot
coefficients. Time on 2 cores: 2 minutes, 4 more for training if there is no trained network yet;
on a GPU less than one.

    python -m experiments.routing_convergence [--preset laptop|smoke] [--table]

writes ``experiments/results/routing_convergence.json`` and its pictures; ``--table`` prints the
table of ``experiments/convergence.md`` from that file.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import capsjax
from capsjax import Capsules, data, figures, routing
from capsjax.cli import dispatch
from capsjax.data import augment
from capsjax.layers.dense import flattened
from capsjax.routing import convergence, measures
from capsjax.training.run import surroundings
from experiments.extrapolation import traced

RESULTS = Path(__file__).parent / "results"
KINDS = ("clustered", "unclustered", "trained")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        workdir: run directory of the trained CapsNet; trained with ``training`` if missing.
        training: options of ``capsjax train``.
        examples: of each kind of votes.
        parents: of the synthetic votes.
        dim: of the synthetic votes.
        children: of the synthetic votes.
        noise: of an agreeing child's votes, relative to their length.
        tolerance: largest change of a coefficient that counts as none.
        max_iterations: of the run until convergence.
        iterations: of the traced run.
        repeats: of each timing.
        seed: of the synthetic votes.
    """

    workdir: str = "runs/quick"
    training: tuple[str, ...] = ("--preset", "quick")
    examples: int = 32
    parents: int = 10
    dim: int = 16
    children: int = 1152
    noise: float = 0.3
    tolerance: float = 1e-3
    max_iterations: int = 1000
    iterations: int = 50
    repeats: int = 5
    seed: int = 0


PRESETS = {
    "laptop": Config(),
    "smoke": Config(
        workdir="runs/smoke",
        training=(
            *("--preset", "quick", "--limit", "64", "--validation", "8"),
            *("--model.features", "8", "--model.kernel-size", "3", "--model.primary-types", "2"),
            *("--model.decoder-widths", "16"),
        ),
        examples=2,
        parents=3,
        dim=4,
        children=12,
        max_iterations=50,
        iterations=5,
        repeats=1,
    ),
}


def synthetic_votes(kind: str, config: Config) -> tuple[np.ndarray, Capsules]:
    """Votes ``[examples, parents, dim, children]`` of length about 1, and children that are on."""
    random = np.random.default_rng(config.seed)
    shape = (config.examples, config.parents, config.dim, config.children)
    votes = random.normal(size=shape)
    if kind == "clustered":
        centres = random.normal(size=(*shape[:3], 1))
        group = np.arange(config.children) % config.parents
        own = (group == np.arange(config.parents)[:, None])[:, None, :]
        votes = np.where(own, centres + config.noise * votes, votes)
    poses: Any = np.zeros((config.examples, config.children, 1), np.float32)
    activations: Any = np.ones((config.examples, config.children), np.float32)
    return (votes / config.dim**0.5).astype(np.float32), Capsules(poses, activations)


def trained_votes(network: Any, images: np.ndarray) -> tuple[np.ndarray, Capsules]:
    """Votes of a CapsNet for uint8 images, and the primary capsules that cast them."""
    pixels = augment.to_unit_interval(jnp.asarray(images))
    children = flattened(network.primary(jax.nn.relu(network.convolution(pixels))))
    votes = jax.jit(lambda children: network.classes(children).votes)(children)
    return np.asarray(votes), jax.tree.map(np.asarray, children)


def measure(module: Any, votes: np.ndarray, children: Capsules, config: Config) -> dict[str, Any]:
    """One algorithm on one batch of votes; numbers are means over the examples."""
    default = module.Config()
    _, parents, dim, count = votes.shape
    sizes = {"parents": parents, "dim": dim, "children": count}
    params = module.init(default, jax.random.key(0), child_dim=children.poses.shape[-1], **sizes)
    inputs = jax.tree.map(jnp.asarray, (votes, children, params))
    if not hasattr(default, "num_iterations"):
        ends, *_ = _measured(default)(*inputs)
        return {"default": _mean(ends), "seconds": _seconds(lambda: _routed(default)(*inputs))}
    loop = convergence.Loop(
        "last_iteration", tolerance=config.tolerance, max_iterations=config.max_iterations
    )
    ends, _, iterations, converged = _measured(dataclasses.replace(default, loop=loop))(*inputs)
    least, median, most = np.percentile(np.asarray(iterations), [0, 50, 100])
    _, curves, *_ = _measured(convergence.extrapolate(default, config.iterations), True)(*inputs)
    curves = _mean(curves)
    last = default.num_iterations - 1
    return {
        "default": {name: curves[name][last] for name in ends},
        "default_iterations": default.num_iterations,
        "converged": _mean(ends),
        "converged_share": float(np.asarray(converged).mean()),
        "iterations": {"median": median, "least": least, "most": most},
        "curves": curves,
        "seconds_per_iteration": _per_iteration(default, inputs, config.repeats),
    }


@functools.cache
def _measured(own: Any, trace: bool = False) -> Callable[..., Any]:
    """A compiled routing of a batch that returns measures, not coefficients and votes."""

    def route(votes: Any, children: Any, params: Any) -> Any:
        found = routing.algorithm_of(own).route(votes, children, params, own, trace=trace)
        curves = None
        if found.trace is not None:
            entries = found.trace
            curves = measures.by_iteration(entries.coefficients, votes, entries.poses)
        ends = {
            "entropy": measures.entropy(found.coefficients),
            "polarisation": measures.polarisation(found.coefficients),
            "agreement": measures.agreement(found.coefficients, votes, found.poses),
        }
        return ends, curves, found.iterations, found.converged

    return jax.jit(jax.vmap(route, in_axes=(0, 0, None)))


@functools.cache
def _routed(own: Any) -> Callable[..., Any]:
    """A compiled routing of a batch that returns what a network needs: for timing."""

    def route(votes: Any, children: Any, params: Any) -> Any:
        found = routing.algorithm_of(own).route(votes, children, params, own)
        return found.poses, found.activations

    return jax.jit(jax.vmap(route, in_axes=(0, 0, None)))


def _mean(values: dict[str, Any]) -> dict[str, Any]:
    """Means over the examples, the first axis."""
    return {name: np.asarray(value, float).mean(0).tolist() for name, value in values.items()}


def _per_iteration(default: Any, inputs: Any, repeats: int) -> float:
    """Seconds of one further iteration for the whole batch, forward: median of differences."""
    few, many = 2, 6
    short, long = (_routed(convergence.extrapolate(default, count)) for count in (few, many))
    differences = [
        (_seconds(lambda: long(*inputs)) - _seconds(lambda: short(*inputs))) / (many - few)
        for _ in range(repeats)
    ]
    return statistics.median(differences)


def _seconds(call: Callable[[], Any], repeats: int = 3) -> float:
    """Median time of a call, after one that compiles."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def extrapolation(network: Any, arrays: data.Arrays, iterations: int) -> list[float]:
    """Error of a trained CapsNet with 1 to so many iterations."""
    predicted, _ = traced(network, arrays["image"], iterations)
    return (predicted != arrays["label"][:, None]).mean(0).tolist()


def run(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure everything: the report, and what its pictures show besides."""
    start = time.perf_counter()
    if dispatch(["train", *config.training, "--workdir", config.workdir]) != 0:
        raise SystemExit(f"no trained network in {config.workdir}: see above")
    trained = capsjax.load(config.workdir)
    count = trained.settings.training.validation
    held_out = {name: value[-count:] for name, value in data.load("mnist", split="train").items()}
    report: dict[str, Any] = {
        "config": dataclasses.asdict(config),
        "validation_images": count,
        "error_by_iterations": extrapolation(trained.model, held_out, config.iterations),
        "votes": {},
    }
    shown: dict[str, Any] = {}
    for kind in KINDS:
        if kind == "trained":
            votes, children = trained_votes(trained.model, held_out["image"][: config.examples])
            module = routing.ALGORITHMS["dynamic"]
            own = convergence.extrapolate(module.Config(), config.iterations)
            shown["coefficients"] = module.route(
                jnp.asarray(votes[0]), config=own, trace=True
            ).trace.coefficients
        else:
            votes, children = synthetic_votes(kind, config)
        rows = {}
        for name, module in routing.ALGORITHMS.items():
            rows[name] = measure(module, votes, children, config)
            print(kind, name, json.dumps(rows[name]["default"]), flush=True)
        report["votes"][kind] = rows
    report |= {"seconds": round(time.perf_counter() - start, 1), **surroundings()}
    return report, shown


def table(report: dict[str, Any]) -> str:
    """The table of ``experiments/convergence.md``, in Markdown."""
    tolerance, most = report["config"]["tolerance"], report["config"]["max_iterations"]
    lines = [
        f"| votes | routing | iterations to a change of {tolerance:g} | entropy (nats) | "
        "polarisation | agreement | ms per iteration |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, rows in report["votes"].items():
        for name, row in rows.items():
            default = row["default"]
            if "iterations" in row:
                found = row["iterations"]
                needed = f"{found['median']:.0f} ({found['least']:.0f} to {found['most']:.0f})"
                if row["converged_share"] < 1:
                    needed = f"not within {most:,} for {1 - row['converged_share']:.0%}"
                cost = row["seconds_per_iteration"]
            else:
                needed, cost = "none: one pass", row["seconds"]
            values = [default[key] for key in ("entropy", "polarisation", "agreement")]
            if "converged" in row:
                ends = [row["converged"][key] for key in ("entropy", "polarisation", "agreement")]
                cells = [f"{a:.2f} to {b:.2f}" for a, b in zip(values, ends, strict=True)]
            else:
                cells = [f"{value:.2f}" for value in values]
            lines.append(f"| {kind} | {name} | {needed} | {' | '.join(cells)} | {1e3 * cost:.1f} |")
    return "\n".join(lines)


def draw(report: dict[str, Any], shown: dict[str, Any], folder: Path) -> None:
    """Write the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"entropy": "entropy (nats)", "change": "largest change of a coefficient"}
    pictures = {"coefficients": figures.coefficients(shown["coefficients"])}
    for kind in KINDS:
        for name in ("entropy", "polarisation", "agreement", "change"):
            curves = {
                algorithm: _curve(row, name) for algorithm, row in report["votes"][kind].items()
            }
            pictures[f"{kind}_{name}"] = figures.curves_by_iteration(
                curves, ylabel=labels.get(name, name), title=f"{kind} votes", log=name == "change"
            )
    pictures["error"] = figures.curves_by_iteration(
        {"dynamic, trained with 3": [100 * error for error in report["error_by_iterations"]]},
        ylabel="validation error (%)",
        title="The trained network, run with other numbers of iterations",
    )
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=100)


def _curve(row: dict[str, Any], name: str) -> list[float]:
    """A measure by iteration; one point, or none, for a routing of one pass."""
    if "curves" not in row:
        return [row["default"].get(name, np.nan)]
    # The first change is that of the second iteration.
    return [np.nan, *row["curves"][name]] if name == "change" else row["curves"][name]


def main() -> None:
    """Run a preset and write its results, or print the table of the last one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="laptop")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for what is written")
    parser.add_argument(
        "--table", action="store_true", help="print the table of experiments/convergence.md and end"
    )
    arguments = parser.parse_args()
    path = arguments.results / "routing_convergence.json"
    if not arguments.table:
        report, shown = run(PRESETS[arguments.preset])
        draw(report, shown, arguments.results / "routing_convergence")
        path.write_text(json.dumps(report, indent=1) + "\n")
    print(table(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
