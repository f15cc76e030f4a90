"""What batches cost beside the training step that they feed.

One run measures in turn, several times over (leave the machine alone meanwhile): CapsNet's training
step on MNIST at batch 64, its own batches included, and alone the batches of MNIST (gathered,
shifted, scaled), of MultiMNIST and of synthetic affNIST (made anew, scaled), held on the device
and, for MNIST, streamed (what is left of it for the step to wait for: the reading goes on beside).
Medians are printed as shares of the step and written to ``experiments/results/feeding.json``.
Expected: below 5 % each. About one minute on 2 cores.

    python -m experiments.benchmarks.feeding
"""

import dataclasses
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from capsjax import data
from capsjax.__main__ import use_huge_pages
from capsjax.data import augment, feeding
from capsjax.training.run import surroundings
from experiments.benchmarks.ours import Measured
from experiments.benchmarks.peer_protocol import calls as timed_calls

RESULT = Path(__file__).parents[1] / "results" / "feeding.json"
_FOREVER = 10**9


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        batch_size: of step and batches.
        rounds: how often everything is measured in turn.
        repeats: timed calls of each kind in a round.
        shift: of MNIST's digits, in pixels.
    """

    batch_size: int = 64
    rounds: int = 5
    repeats: int = 6
    shift: int = 2


def batches(name: str, config: Config, *, stream: bool = False) -> Callable[[], Any]:
    """A function that makes the next batch of a data set, ready for a network."""
    dataset = data.find(name)
    arrays = dataset.base("train") if dataset.base else dataset.load("train")
    order = feeding.Order(len(arrays["label"]), config.batch_size, jax.random.key(0))
    source = feeding.batches(arrays, order, 0, _FOREVER, made=dataset.made, stream=stream)
    limit = 0 if dataset.made else config.shift

    @jax.jit
    def ready(key: Any, images: Any) -> Any:
        keys = jax.random.split(key, config.batch_size)
        shifted = jax.vmap(lambda key, image: augment.shift(key, image, limit=limit))(keys, images)
        return augment.to_unit_interval(shifted)

    key = jax.random.key(1)
    return lambda: jax.block_until_ready(ready(key, next(source)["image"]))


def run(config: Config) -> dict[str, Any]:
    """Measure everything and return the report."""
    load_before = os.getloadavg()[0]
    calls = {
        "capsnet step": Measured("capsnet", "default", config.batch_size).call("train"),
        "mnist": batches("mnist", config),
        "mnist, streamed": batches("mnist", config, stream=True),
        "multi_mnist": batches("multi_mnist", config),
        "affine_mnist": batches("affine_mnist", config),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(config.rounds):
        for name, call in calls.items():
            seconds[name] += timed_calls(call, config.repeats)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    step_seconds = medians.pop("capsnet step")
    return {
        "config": dataclasses.asdict(config),
        "step_seconds": step_seconds,
        "batch_seconds": medians,
        "share_of_step": {name: value / step_seconds for name, value in medians.items()},
        "load_before": load_before,
        "cores": os.cpu_count(),
        **surroundings(),
    }


def main() -> None:
    """Measure, print, write the result."""
    report = run(Config())
    RESULT.write_text(json.dumps(report, indent=1) + "\n")
    print(f"CapsNet's step: {1e3 * report['step_seconds']:.0f} ms")
    for name, value in report["batch_seconds"].items():
        share = report["share_of_step"][name]
        print(f"{name:<16} {1e3 * value:6.2f} ms  {share:6.2%} of the step")


if __name__ == "__main__":
    use_huge_pages()
    main()
