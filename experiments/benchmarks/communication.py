"""What data parallelism moves and communicates in a step, and where it stops paying.

Computed, not timed: every network's first published form is taken from its shapes alone. A step
all-reduces the gradient (float32, as large as the parameters), the metrics, and for every batch
normalisation mean and variance of the batch forward and their gradients backward. In a ring of N
devices each sends 2 (N - 1) / N times that. The same is counted in the step that XLA compiles for
8 devices (of one CPU, forced), and must be within a thousandth of it.

Written to ``experiments/results/communication.json`` and, as tables, to
``experiments/benchmarks/README.md``. About five minutes on 2 cores, nearly all of them compiling.

    python -m experiments.benchmarks.communication [--networks NAME ...] [--no-compile]
"""

import argparse
import json
import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from capsjax import models
from capsjax.ops.flops import flops
from capsjax.training import losses, parallel
from capsjax.training.step import State, make_step, split
from experiments.benchmarks.collectives import count

RESULTS = Path(__file__).parents[1] / "results"
README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- communication: begin -->", "<!-- communication: end -->"

DEVICES = (1, 2, 4, 8, 16, 32, 64)
COMPILED_FOR = 8
# Share of the bytes by which the compiled program may differ: what XLA finds to be constant, or the
# same as something else, is not sent (a loss that is 0, gradients that are).
TOLERANCE = 1e-3
# Loss, its two parts, accuracy.
METRICS = 4
# As most of the papers train.
BATCH = 128


class Machine(NamedTuple):
    """What a device is assumed to do.

    Attributes:
        flops: operations a second that it keeps up in these networks.
        bandwidth: bytes a second that it sends to its neighbour.
        latency: seconds from one device to the next.
    """

    flops: float
    bandwidth: float
    latency: float


MACHINES = {
    "0.1 TFLOP/s, 10 Gbit/s": Machine(1e11, 1.25e9, 30e-6),
    "10 TFLOP/s, 100 Gbit/s": Machine(1e13, 12.5e9, 5e-6),
    "50 TFLOP/s, 600 GB/s": Machine(5e13, 6e11, 2e-6),
}


class Step(NamedTuple):
    """What one network's step costs.

    Attributes:
        parameters: trainable ones.
        payload: bytes that are all-reduced.
        reductions: how many all-reduces wait for each other.
        flops: operations for each image.
        fed: bytes of one image and its label.
    """

    parameters: int
    payload: int
    reductions: int
    flops: float
    fed: int


def step_of(name: str) -> Step:
    """A network's step, from its shapes."""
    network = _network(name)
    kept = jax.tree.leaves(nnx.state(network, nnx.BatchStat))
    # A dropout's count of its own steps is not communicated.
    statistics = [leaf.size for leaf in kept if jnp.issubdtype(leaf.dtype, jnp.floating)]
    parameters = models.count_parameters(network)
    # Means and variances, each once forward and its gradient once backward.
    payload = 4 * (parameters + METRICS + 2 * sum(statistics))
    operations = [flops(*_traceable(network, name, batch, None)) for batch in (2, 4)]
    return Step(
        parameters,
        payload,
        1 + len(statistics),  # two statistics of a layer go together, forward and backward
        (operations[1] - operations[0]) / 2,
        math.prod(network.image_shape) + 4,
    )


def compiled(name: str) -> dict[str, dict[str, int]]:
    """Collectives of the step that XLA compiles for 8 devices; see ``collectives.count``."""
    mesh = parallel.make_mesh(COMPILED_FOR, COMPILED_FOR)
    step, *arguments = _traceable(_network(name), name, COMPILED_FOR, mesh)
    return count(jax.jit(step, donate_argnums=0).lower(*arguments).compile().as_text() or "")


def ring(payload: int, devices: int) -> float:
    """Bytes that each device sends to all-reduce so many."""
    return 2 * (devices - 1) / devices * payload


def communicating(step: Step, machine: Machine, devices: int) -> float:
    """Seconds of a step in which devices wait for each other, nothing of it hidden."""
    if devices == 1:
        return 0.0
    # Small ones go along a tree, up and down; each waits for the one before.
    hops = 2 * math.ceil(math.log2(devices)) * step.reductions
    return ring(step.payload, devices) / machine.bandwidth + hops * machine.latency


def images_to_pay(step: Step, machine: Machine, devices: int) -> int:
    """Images for each device from which on it computes at least as long as it communicates."""
    seconds = communicating(step, machine, devices)
    return max(1, math.ceil(seconds * machine.flops / step.flops))


def most_devices(step: Step, machine: Machine, batch: int) -> int:
    """Of ``DEVICES``, the most that share a batch and still compute half of their time."""
    return max(
        devices
        for devices in DEVICES
        if devices == 1 or images_to_pay(step, machine, devices) * devices <= batch
    )


def run(names: list[str], *, compiling: bool) -> dict[str, Any]:
    """The report on these networks."""
    rows = {}
    for name in names:
        step = step_of(name)
        rows[name] = {
            **step._asdict(),
            "form": models.find(name).forms[0].dataset,
            "sent_by_each": {str(n): round(ring(step.payload, n)) for n in DEVICES},
            "sent_by_all": {str(n): round(n * ring(step.payload, n)) for n in DEVICES},
            "images_to_pay": {
                kind: {str(n): images_to_pay(step, machine, n) for n in DEVICES[1:]}
                for kind, machine in MACHINES.items()
            },
            "most_devices": {
                kind: most_devices(step, machine, BATCH) for kind, machine in MACHINES.items()
            },
        }
        if compiling:
            found = compiled(name)
            rows[name]["compiled"] = found
            reduced = found.get("all-reduce", {}).get("bytes", 0)
            print(f"{name}: {step.payload:,} bytes, {reduced:,} compiled", flush=True)
            if set(found) != {"all-reduce"} or abs(reduced / step.payload - 1) > TOLERANCE:
                sys.exit(f"communication: {name} was computed to need {step}, compiled: {found}")
    return {
        "batch": BATCH,
        "machines": {kind: machine._asdict() for kind, machine in MACHINES.items()},
        "compiled_for": COMPILED_FOR,
        "networks": rows,
    }


def tables(report: dict[str, Any]) -> str:
    """Both tables of the README."""
    shown = [n for n in DEVICES if n in (2, 8, 64)]
    kinds = list(report["machines"])
    head = ["network", "parameters", "GFLOP an image", "fed with an image, kB"]
    head += ["all-reduced, bytes", f"in the program for {report['compiled_for']}"]
    head += [f"each of {n} sends, MB" for n in shown]
    lines = [_line(head), _line(["---"] * len(head))]
    for name, row in report["networks"].items():
        found = row.get("compiled", {}).get("all-reduce", {}).get("bytes")
        cells = [name, f"{row['parameters']:,}", f"{row['flops'] / 1e9:.3g}"]
        cells += [f"{row['fed'] / 1e3:.3g}", f"{row['payload']:,}"]
        cells += ["not compiled" if found is None else f"{found:,}"]
        cells += [_mega(row["sent_by_each"][str(n)]) for n in shown]
        lines.append(_line(cells))
    head = ["network"]
    for kind in kinds:
        head += [f"{kind}: images each", f"devices for {report['batch']}"]
    lines += ["", _line(head), _line(["---"] * len(head))]
    for name, row in report["networks"].items():
        cells = [name]
        for kind in kinds:
            cells += [str(row["images_to_pay"][kind]["8"]), str(row["most_devices"][kind])]
        lines.append(_line(cells))
    return "\n".join(lines)


def between_markers(text: str, tables: str) -> str:
    """A text with what is between its two markers replaced."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{tables}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Compute, compile, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(models.MODELS), metavar="NAME")
    parser.add_argument("--no-compile", action="store_true", help="leave the check out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--readme", type=Path, default=README)
    arguments = parser.parse_args()
    if not arguments.no_compile:
        # The same exchanges, in a fifth of the time: the program is read, not run.
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", COMPILED_FOR)
    names = arguments.networks or list(models.MODELS)
    report = run(names, compiling=not arguments.no_compile)
    (arguments.results / "communication.json").write_text(json.dumps(report, indent=1) + "\n")
    shown = tables(report)
    print(shown)
    arguments.readme.write_text(between_markers(arguments.readme.read_text(), shown))


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mega(size: float) -> str:
    return f"{size / 1e6:.3g}"


def _network(name: str) -> Any:
    form = models.find(name).forms[0]
    make = partial(
        models.create,
        name,
        config=form.config,
        image_shape=form.image_shape,
        num_classes=form.num_classes,
    )
    return nnx.eval_shape(make)


def _traceable(network: Any, name: str, batch: int, mesh: Mesh | None) -> tuple[Any, ...]:
    """A training step and the shapes of what it takes."""
    graph, params, rest = split(network)
    optimizer = optax.adam(1e-3)
    step = make_step(
        graph,
        optimizer,
        num_classes=network.num_classes,
        limit=2,
        loss=losses.Config(**models.find(name).training.get("loss", {})),
        key=jax.random.key(0),
        mesh=mesh,
    )

    def start(params: Any, rest: Any) -> State:
        return State(params, rest, optimizer.init(params), jnp.zeros((), jnp.int32))

    def place(tree: Any, sharding: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    images = jax.ShapeDtypeStruct((batch, *network.image_shape), jnp.uint8)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    state = jax.eval_shape(start, params, rest)
    whole, parts = (None, None) if mesh is None else (parallel.on_all(mesh), parallel.cut(mesh))
    return step, place(state, whole), place(images, parts), place(labels, parts)


if __name__ == "__main__":
    main()
