"""How fast CapsNet trains: against this machine's matrix products, and against PyTorch.

One run measures in turn, several times over (leave the machine alone meanwhile; the load average
before the run is in the result): a 2048^3 float32 matrix product in JAX, the limit for an
implementation that is made of matrix products, CapsNet's training step and inference
at batch 64, and, where an environment with PyTorch is given, the fastest variant of
``torch_peer.py``. Medians are printed with their ratios, and written to
``experiments/results/speed.json``. Expected: at least 45 % of the matrix product's speed in
training; about three minutes, two more with PyTorch.

    python -m experiments.benchmarks.speed [--json]
    python -m venv torch-env && torch-env/bin/pip install torch
    python -m experiments.benchmarks.speed --torch-python torch-env/bin/python
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from capsjax import data, models
from capsjax.__main__ import use_huge_pages
from capsjax.data import augment, feeding
from capsjax.training import losses
from capsjax.training.run import surroundings
from capsjax.training.step import State, make_step, split

RESULT = Path(__file__).parents[1] / "results" / "speed.json"
PEER = Path(__file__).with_name("torch_peer.py")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        batch_size: of training and inference.
        rounds: how often everything is measured in turn.
        repeats: timed calls of each kind in a round.
        matrix_size: of the matrix product.
        seed: of parameters and order.
    """

    batch_size: int = 64
    rounds: int = 5
    repeats: int = 6
    matrix_size: int = 2048
    seed: int = 0


def gflop_per_image() -> tuple[float, float]:
    """GFLOP of one image in training and in inference, a multiply-add counted as 2.

    The paper's algorithm as written, whatever the lowering: convolutions, votes, three weighted
    sums and two agreements, decoder (in training only). Training has a forward pass and the
    gradients of parameters and of inputs, where an input needs one (the image does not).
    """
    first = 20 * 20 * 256 * 81
    second = 6 * 6 * 256 * 81 * 256
    capsules = 1152 * 10 * 16 * (8 + 3 + 2)
    decoder = 160 * 512 + 512 * 1024 + 1024 * 784
    training = 2 * first + 3 * (second + capsules + decoder)
    return 2e-9 * training, 2e-9 * (first + second + capsules)


def run(config: Config, torch_python: str | None) -> dict[str, Any]:
    """Measure everything and return the report."""
    load_before = os.getloadavg()[0]
    matrix = jax.random.normal(jax.random.key(config.seed), (config.matrix_size,) * 2)
    product = jax.jit(jnp.matmul)
    train, infer, compile_seconds, alarm = capsnet(config)
    peer = _fastest_peer(torch_python, config.batch_size) if torch_python else None
    seconds: dict[str, list[float]] = {"matrix_product": [], "training": [], "inference": []}
    peer_rates: dict[str, list[float]] = {"training": [], "inference": []}
    jax.block_until_ready((product(matrix, matrix), infer()))
    for _ in range(config.rounds):
        seconds["matrix_product"] += timed(lambda: product(matrix, matrix), config.repeats)
        seconds["training"] += timed(train, config.repeats)
        seconds["inference"] += timed(infer, config.repeats)
        if peer is not None and torch_python is not None:
            for kind, rate in _measure_peer(torch_python, peer, config.batch_size).items():
                peer_rates[kind].append(rate)
    return _report(config, seconds, peer, peer_rates, compile_seconds, alarm, load_before)


def capsnet(config: Config) -> tuple[Callable[[], Any], Callable[[], Any], float, bool]:
    """Training step and inference call, compiled; seconds to compile the step; alarm or not."""
    network = models.create("capsnet", rngs=config.seed)
    graph, params, rest = split(network)
    optimizer = optax.adam(1e-3)
    arrays = data.load("mnist", split="test")
    order = feeding.Order(len(arrays["label"]), config.batch_size, jax.random.key(config.seed))
    batches = feeding.batches(arrays, order, 0, 10**9)
    first = next(batches)
    step = make_step(
        graph,
        optimizer,
        num_classes=10,
        limit=2,
        loss=losses.Config(),
        key=jax.random.key(config.seed),
    )
    state = State(params, rest, optimizer.init(params), jnp.zeros((), jnp.int32))
    batch = augment.to_unit_interval(jnp.asarray(first["image"]))
    forward = jax.jit(
        lambda params, images: nnx.merge(graph, params, rest, copy=True)(images).activations
    )
    jax.block_until_ready(forward(params, batch))
    inference_params = jax.tree.map(jnp.copy, params)
    with _standard_error() as printed:
        start = time.perf_counter()
        lowered = jax.jit(step, donate_argnums=0).lower(state, first["image"], first["label"])
        compiled = lowered.compile()
        compile_seconds = time.perf_counter() - start
    states = [state]

    def train() -> Any:
        batch = next(batches)
        states[0], metrics = compiled(states[0], batch["image"], batch["label"])
        return metrics["loss"]

    jax.block_until_ready(train())
    alarm = "slow_operation_alarm" in printed[0]
    return train, lambda: forward(inference_params, batch), compile_seconds, alarm


def timed(call: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each of so many calls, until what they give is there."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return times


@contextmanager
def _standard_error() -> Iterator[list[str]]:
    """What the process, XLA's C++ included, writes to standard error; then passed on."""
    printed = [""]
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield printed
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            printed[0] = file.read().decode(errors="replace")
            sys.stderr.write(printed[0])


def _call_peer(python: str, *options: str) -> dict[str, Any]:
    command = [python, str(PEER), "--json", *options]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report


def _fastest_peer(python: str, batch_size: int) -> dict[str, Any]:
    """Every variant once, interleaved, to find the fastest of each kind."""
    return _call_peer(
        python, "--batch-size", str(batch_size), "--variants", "all", "--seconds", "4"
    )


def _measure_peer(python: str, peer: dict[str, Any], batch_size: int) -> dict[str, float]:
    rates = {}
    for kind, key in (("training", "train"), ("inference", "inference")):
        name = peer["best"][key]["name"]
        report = _call_peer(
            python, "--batch-size", str(batch_size), "--only", name, "--seconds", "5"
        )
        rates[kind] = report["variants"][0][f"{key}_images_per_second"]
    return rates


def _report(
    config: Config,
    seconds: dict[str, list[float]],
    peer: dict[str, Any] | None,
    peer_rates: dict[str, list[float]],
    compile_seconds: float,
    alarm: bool,
    load_before: float,
) -> dict[str, Any]:
    limit = 2e-9 * config.matrix_size**3 / statistics.median(seconds["matrix_product"])
    gflop = dict(zip(("training", "inference"), gflop_per_image(), strict=True))
    report: dict[str, Any] = {
        "config": dataclasses.asdict(config),
        "matrix_product_gflops": limit,
        "compile_seconds": compile_seconds,
        "xla_alarm": alarm,
        "load_before": load_before,
        "cores": os.cpu_count(),
        **surroundings(),
    }
    for kind in ("training", "inference"):
        rates = config.batch_size / np.array(seconds[kind])
        rate = float(np.median(rates))
        low, high = np.percentile(rates, [25, 75])
        report[kind] = {
            "images_per_second": rate,
            "quartiles": [float(low), float(high)],
            "share_of_matrix_product": rate * gflop[kind] / limit,
        }
        if peer is not None:
            theirs = statistics.median(peer_rates[kind])
            report[kind] |= {
                "torch_images_per_second": theirs,
                "torch_variant": peer["best"]["train" if kind == "training" else kind]["name"],
                "torch_share_of_jax_matrix_product": theirs * gflop[kind] / limit,
                "ratio_to_torch": rate / theirs,
            }
    if peer is not None:
        report["torch"] = peer
    return report


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--torch-python",
        default=os.environ.get("CAPSJAX_TORCH_PYTHON"),
        help="interpreter of an environment with PyTorch; also CAPSJAX_TORCH_PYTHON",
    )
    arguments = parser.parse_args()
    if arguments.torch_python and not Path(arguments.torch_python).exists():
        sys.exit(
            f"speed: there is no {arguments.torch_python}; make it as the docstring says, or leave "
            "--torch-python out"
        )
    report = run(Config(), arguments.torch_python)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"matrix product {report['matrix_product_gflops']:.0f} GFLOP/s (float32, 2048^3)")
    print(f"compiling the step {report['compile_seconds']:.1f} s, alarm: {report['xla_alarm']}")
    for kind in ("training", "inference"):
        row = report[kind]
        line = f"{kind} {row['images_per_second']:.0f} images/s"
        line += f", {row['share_of_matrix_product']:.0%} of the matrix product"
        if "ratio_to_torch" in row:
            line += f", {row['ratio_to_torch']:.2f}x PyTorch ({row['torch_variant']}, "
            line += f"{row['torch_images_per_second']:.0f}, "
            line += f"{row['torch_share_of_jax_matrix_product']:.0%})"
        print(line)
    if not arguments.torch_python:
        print("PyTorch left out: see --help")


if __name__ == "__main__":
    use_huge_pages()
    main()
