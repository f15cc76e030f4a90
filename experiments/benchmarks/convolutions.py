"""Which lowering of a convolution is fastest, by geometry and direction.

Every geometry that the networks use, each of its three directions (output, gradient of the kernel,
gradient of the images) by each lowering of ``capsjax.ops.convolution``, in turn and several times
over. The table is what the rules in that file are read from; the last column names the lowering
that they choose. Leave the machine alone meanwhile: about three minutes.

    python -m experiments.benchmarks.convolutions [--batch-size 64]
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from capsjax.__main__ import use_huge_pages
from capsjax.ops import convolution
from capsjax.training.run import surroundings

RESULT = Path(__file__).parents[1] / "results" / "convolutions.json"
ROUNDS = 5


class Geometry(NamedTuple):
    """A convolution without padding: a network's, its padding added to the side."""

    network: str
    side: int
    channels: int
    kernel_size: int
    features: int
    stride: int

    def __str__(self) -> str:
        return (
            f"{self.kernel_size}x{self.kernel_size} /{self.stride} {self.channels}->"
            f"{self.features} {self.side}x{self.side}"
        )


GEOMETRIES = (
    Geometry("capsnet", 28, 1, 9, 256, 1),
    Geometry("capsnet", 20, 256, 9, 256, 2),
    Geometry("efficient_capsnet", 28, 1, 5, 32, 1),
    Geometry("efficient_capsnet", 24, 32, 3, 64, 1),
    Geometry("efficient_capsnet", 22, 64, 3, 64, 1),
    Geometry("efficient_capsnet", 20, 64, 3, 128, 2),
    Geometry("matrix_capsules_small", 28, 1, 5, 64, 2),
    Geometry("matrix_capsules", 32, 2, 5, 32, 2),
    Geometry("self_routing_resnet", 34, 16, 3, 16, 1),
    Geometry("self_routing_resnet", 34, 16, 3, 32, 2),
    Geometry("self_routing_resnet", 18, 32, 3, 32, 1),
    Geometry("self_routing_resnet", 10, 64, 3, 64, 1),
    Geometry("inverted_attention_resnet", 34, 64, 3, 64, 1),
    Geometry("inverted_attention_resnet", 18, 128, 3, 128, 1),
    Geometry("sabour_cnn", 32, 256, 5, 256, 1),
    Geometry("sabour_cnn", 32, 256, 5, 128, 1),
)


def measure(geometry: Geometry, batch_size: int, rounds: int = ROUNDS) -> dict[str, Any]:
    """Median milliseconds of every direction by every lowering, and the rules' choice."""
    side, size, stride = geometry.side, geometry.kernel_size, geometry.stride
    out = (side - size) // stride + 1
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(keys[0], (batch_size, side, side, geometry.channels))
    kernel = jax.random.normal(keys[1], (size, size, geometry.channels, geometry.features))
    gradient = jax.random.normal(keys[2], (batch_size, out, out, geometry.features))
    arguments = {
        "forward": (images, kernel),
        "kernel_gradient": (images, gradient),
        "images_gradient": (kernel, gradient),
    }
    rows = {}
    for direction, given in arguments.items():
        calls = {
            name: partial(jax.jit(_call(lowering, direction, images, kernel, stride)), *given)
            for name, lowering in convolution.LOWERINGS.items()
            if _worth_trying(name, geometry, direction)
        }
        rows[direction] = {
            "milliseconds": _interleaved(calls, rounds),
            "chosen": convolution.rule(direction, images.shape, kernel.shape, stride, images.dtype),
        }
    return {"geometry": str(geometry), "network": geometry.network, **rows}


def _worth_trying(name: str, geometry: Geometry, direction: str) -> bool:
    taps = -(-geometry.kernel_size // geometry.stride)
    if name == "library" and direction == "images_gradient":
        return geometry.stride == 1 or taps < 3  # 9x9 of stride 2 takes half a minute
    return not name.startswith("winograd") or int(name[-1]) + taps <= 7


def _call(
    lowering: convolution.Lowering, direction: str, images: Array, kernel: Array, stride: int
) -> Callable[[Array, Array], Array]:
    if direction == "forward":
        return lambda x, k: lowering.forward(x, k, stride)
    if direction == "kernel_gradient":
        return lambda x, g: lowering.kernel_gradient(x, kernel.shape, g, stride)
    return lambda k, g: lowering.images_gradient(images.shape, k, g, stride)


def _interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(each)) for name, each in times.items()}


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64)
    batch_size = parser.parse_args().batch_size
    rows = []
    for geometry in GEOMETRIES:
        rows.append(measure(geometry, batch_size))
        for direction in ("forward", "kernel_gradient", "images_gradient"):
            each = rows[-1][direction]
            times = "".join(f"{n}: {t:.1f}, " for n, t in each["milliseconds"].items())
            print(f"{geometry!s:30} {direction:16} {times}chosen: {each['chosen']}", flush=True)
    if batch_size == 64:
        report = {"batch_size": batch_size, "rows": rows, "cores": os.cpu_count(), **surroundings()}
        RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    use_huge_pages()
    main()
