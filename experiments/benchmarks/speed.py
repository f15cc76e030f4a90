r"""How fast the networks are: against this machine's limits, and against well-made peers.

One run; leave the machine alone meanwhile (the load average before it is in the result). For every
network and batch size, in processes of their own, asked in turn several times over: training steps
and inference of ours; the same with uniform routing, and a CNN on the same convolutions (batch 64);
the variants in PyTorch and in Keras on TensorFlow that are fastest at that batch size, of the
shortlists in ``*_peer.py`` (``--table`` there measures all), where they have environments;
and the machine: 2048^3 matrix products (float32 and bfloat16), read and copy bandwidth. Medians and
quartiles are printed with their ratios and written to ``experiments/results/speed.json``, from
which ``python -m experiments.benchmarks.speed_table`` makes README's table and plot.

    python -m experiments.benchmarks.speed [--json] [--quick]

About 15 minutes on two cores, 35 with both peers, which need these environments:

    python -m venv torch-env && torch-env/bin/pip install torch
    python3.11 -m venv tf-env && tf-env/bin/pip install tensorflow==2.21.0
    python -m experiments.benchmarks.speed --torch-python torch-env/bin/python \
        --keras-python tf-env/bin/python
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from capsjax.training.run import surroundings
from experiments.benchmarks.peer_inputs import NETWORKS as PEER_NETWORKS
from experiments.benchmarks.peer_protocol import Worker

HERE = Path(__file__).parent
RESULT = HERE.parent / "results" / "speed.json"
# What our commands start themselves with (capsjax.__main__); the peers get it too.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
MACHINE = ("matrix_product", "matrix_product_bf16", "read", "copy")
KINDS = ("train", "inference")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        batch_sizes: of every network.
        compared: the batch size at which variants of ours are measured too.
        rounds: how often everything is measured in turn.
        seconds: for how long each time.
        peer_seconds: to choose a peer's fastest variant, for each.
    """

    batch_sizes: dict[str, tuple[int, ...]] = dataclasses.field(
        default_factory=lambda: {
            "capsnet": (64, 1, 16, 128),
            "efficient_capsnet": (64, 1, 16, 128),
            "matrix_capsules_small": (64, 1, 16, 128),
            "matrix_capsules": (1, 16),
        }
    )
    compared: int = 64
    rounds: int = 4
    seconds: float = 0.5
    peer_seconds: float = 4.0


QUICK = Config(batch_sizes={"efficient_capsnet": (16,)}, rounds=1, seconds=0.2, peer_seconds=0.5)


def run(config: Config, peers: dict[str, str]) -> dict[str, Any]:
    """Measure everything and return the report.

    Args:
        config: what to measure.
        peers: interpreter of each peer's environment, by the peer's name.

    Returns:
        The report, as it is written.
    """
    load = os.getloadavg()[0]
    rows, reports = [], {}
    for network, batch_sizes in config.batch_sizes.items():
        for batch_size in batch_sizes:
            try:
                chosen = {
                    name: _fastest(name, python, network, batch_size, config)
                    for name, python in peers.items()
                    if network in PEER_NETWORKS
                }
                reports |= {f"{name} {network} {batch_size}": chosen[name] for name in chosen}
                rows.append(_measure(config, network, batch_size, peers, chosen))
            except RuntimeError as error:  # the others are worth keeping
                print(f"{network}, batch {batch_size} failed: {error}", file=sys.stderr)
                continue
            print(line(rows[-1]), flush=True)
    return {
        "config": dataclasses.asdict(config),
        "load_before": load,
        "cores": os.cpu_count(),
        **surroundings(),
        "rows": rows,
        "peers": reports,
    }


def _measure(
    config: Config,
    network: str,
    batch_size: int,
    peers: dict[str, str],
    chosen: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """One network at one batch size, all workers in turn."""
    with ExitStack() as stack:

        def worker(python: str, script: str, environment: dict[str, str] | None = None) -> Worker:
            every = ENVIRONMENT | (environment or {})
            return stack.enter_context(Worker(python, HERE / script, network, batch_size, every))

        ours = worker(sys.executable, "ours.py")
        # name, variant and kind of everything that is measured, and who measures it
        asked: list[tuple[str, Worker, str, str]] = []
        for kind in KINDS:
            asked.append((f"ours {kind}", ours, "default", kind))
        for kind in KINDS:
            ours.ask("default", kind, 0)  # compiles; before anything else fills the memory
        about = ours.request({"variant": "default", "kind": "about"})["about"]
        if batch_size == config.compared:
            variants = ["uniform", *(["cnn"] if network in PEER_NETWORKS else [])]
            asked += [(f"{v} {kind}", ours, v, kind) for v in variants for kind in KINDS]
            asked.append(("bf16 train", ours, "bf16", "train"))
        asked += [(kind, ours, "default", kind) for kind in MACHINE]
        for name, python in peers.items():
            if name not in chosen:
                continue
            for kind in KINDS:
                best = chosen[name]["best"][kind]
                peer = worker(python, f"{name}_peer.py", best["environment"])
                asked.append((f"{name} {kind}", peer, best["name"].partition("@")[0], kind))
        rates: dict[str, list[float]] = {label: [] for label, *_ in asked}
        failed: dict[str, str] = {}
        for round_ in range(config.rounds + 1):
            for label, who, variant, kind in asked:
                if label in failed:
                    continue
                try:
                    found = who.ask(variant, kind, config.seconds if round_ else 0)
                except RuntimeError as error:
                    failed[label] = str(error)
                    continue
                if round_:  # the first warms up
                    rates[label] += found
    return {
        "network": network,
        "batch_size": batch_size,
        "rates": {label: _summary(found) for label, found in rates.items() if found},
        "failed": failed,
        **about,
    }


def _summary(rates: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(rates, [25, 50, 75])
    return {"median": float(middle), "low": float(low), "high": float(high), "count": len(rates)}


def _fastest(
    name: str, python: str, network: str, batch_size: int, config: Config
) -> dict[str, Any]:
    """A peer's report on its variants that are worth a look."""
    command = [python, str(HERE / f"{name}_peer.py"), "--json", "--network", network]
    command += ["--batch-size", str(batch_size), "--seconds", str(config.peer_seconds)]
    result = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | ENVIRONMENT, check=False
    )
    if result.returncode:
        raise RuntimeError(f"{name} could not be measured: {result.stderr.strip()[-500:]}")
    report: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return report


def share(row: dict[str, Any], kind: str) -> float:
    """Of the float32 matrix product's rate, that a network's FLOPs as published were done at."""
    flops = row["rates"][f"ours {kind}"]["median"] * row[kind]["flops_per_image"]
    return flops / (1e9 * row["rates"]["matrix_product"]["median"])


def ratio(row: dict[str, Any], other: str, kind: str) -> float | None:
    """Of our images a second to another's; None where it was not measured."""
    theirs = row["rates"].get(f"{other} {kind}")
    return None if theirs is None else row["rates"][f"ours {kind}"]["median"] / theirs["median"]


def line(row: dict[str, Any]) -> str:
    """What one row says, in a few lines."""
    return "\n".join(_lines(row))


def _lines(row: dict[str, Any]) -> Iterator[str]:
    product, bf16 = (row["rates"][k]["median"] for k in ("matrix_product", "matrix_product_bf16"))
    yield (
        f"{row['network']}, batch {row['batch_size']}: matrix product {product:.0f} GFLOP/s (bf16 "
        f"{bf16:.0f}), read {row['rates']['read']['median']:.0f} GB/s, copy "
        f"{row['rates']['copy']['median']:.0f} GB/s, peak memory {row['peak_bytes'] / 1e6:.0f} MB"
    )
    for kind in KINDS:
        rates, measured = row["rates"][f"ours {kind}"], row[kind]
        text = (
            f"  {kind}: {rates['median']:.1f} images/s ({rates['low']:.1f} to {rates['high']:.1f})"
            f", {share(row, kind):.0%} of the matrix product, temporaries "
            f"{measured['temporaries_bytes'] / 1e6:.0f} MB, compiled in "
            f"{measured['trace_seconds'] + measured['compile_seconds']:.1f} s"
        )
        if measured["xla_alarm"]:
            text += " (with XLA's slow_operation_alarm)"
        for other in ("bf16", "uniform", "cnn", "torch", "keras"):
            against = ratio(row, other, kind)
            if against is not None:
                text += f", {against:.2f}x {other}"
        yield text
    for label, reason in row["failed"].items():
        yield f"  {label} failed: {reason}"


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the report as JSON, too")
    parser.add_argument("--quick", action="store_true", help="one small look; nothing is written")
    parser.add_argument("--network", choices=Config().batch_sizes, help="only this, at batch 64")
    parser.add_argument("--results", type=Path, default=RESULT.parent, help="folder to write to")
    for name, framework in (("torch", "PyTorch"), ("keras", "Keras on TensorFlow")):
        parser.add_argument(
            f"--{name}-python",
            default=os.environ.get(f"CAPSJAX_{name.upper()}_PYTHON"),
            help=f"interpreter of an environment with {framework}; also "
            f"CAPSJAX_{name.upper()}_PYTHON",
        )
    arguments = parser.parse_args()
    peers = {}
    for name in ("torch", "keras"):
        python = getattr(arguments, f"{name}_python")
        if python and not Path(python).exists():
            sys.exit(
                f"speed: there is no {python}; make it as the docstring says, or leave "
                f"--{name}-python out"
            )
        if python:
            peers[name] = python
        else:
            print(f"{name} is left out: see --{name}-python", file=sys.stderr)
    config = QUICK if arguments.quick else Config()
    if arguments.network:
        config = dataclasses.replace(config, batch_sizes={arguments.network: (config.compared,)})
    report = run(config, peers)
    result = arguments.results / RESULT.name
    whole = len(peers) == 2 and not arguments.quick and not arguments.network
    if whole or result != RESULT:
        result.write_text(json.dumps(report, indent=2) + "\n")
    else:
        print("not written: that takes all networks and peers, or --results", file=sys.stderr)
    if arguments.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
