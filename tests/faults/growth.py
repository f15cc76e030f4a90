"""What a long training takes: host memory after a warm-up, and compilations.

``python -m tests.faults.growth --steps 10000`` prints the figures as JSON. It trains ``Level``,
whose short last batch of an epoch is dropped, and validates after every epoch on a set whose last
batch is short and is not. Memory is the process's resident set, which depends on the kernel, too.
"""

import argparse
import gc
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import jax

from capsjax.training import loop
from capsjax.training.metric_log import MetricLog
from tests.training.small import Level, flat_images

_COMPILED = "/jax/core/compile/backend_compile_duration"
EPOCH = 400  # steps, about as many as MNIST has at 128 images a step
_BATCH = 8  # images; 7 are left over in every epoch
_SHARE = 4  # of all steps, one in so many warms up


def measure(steps: int, workdir: Path, *, epoch: int = EPOCH) -> dict[str, Any]:
    """Train so many steps, at least 8 epochs, in a work directory.

    Every epoch ends with a validation and a checkpoint.

    Returns:
        ``megabytes`` of the process after the warm-up and ``megabytes_at_end``, ``growth`` as a
        share, ``compilations`` in all, and ``compilations_after`` the second epoch.
    """
    compiled, sizes, late = [0], {}, []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.__setitem__(0, compiled[0] + (event == _COMPILED))
    )
    write = MetricLog.write

    def write_and_look(self: MetricLog, step: int, split: str, values: dict[str, float]) -> None:
        write(self, step, split, values)
        if split == "validation":
            gc.collect()
            sizes[step] = _megabytes()
            if step >= 2 * epoch:
                late.append(compiled[0])

    MetricLog.write = write_and_look  # type: ignore[method-assign]
    try:
        config = loop.Config(
            epochs=steps // epoch,
            batch_size=_BATCH,
            validation=130,
            learning_rate=1e-4,
            schedule="recipe",
            checkpoint_every=1000,
            shift=1,
        )
        images = flat_images([number % 256 for number in range(130 + epoch * _BATCH + 7)], label=0)
        done = loop.fit(Level(), images, config, workdir=workdir).steps
    finally:
        MetricLog.write = write  # type: ignore[method-assign]
    warm = max(size for step, size in sizes.items() if step <= done / _SHARE)
    return {
        "steps": done,
        "megabytes": round(warm, 1),
        "megabytes_at_end": round(sizes[done], 1),
        "growth": round(sizes[done] / warm - 1, 4),
        "checkpoints": len(sizes),
        "compilations": late[-1],
        "compilations_after": late[-1] - late[0],
    }


def _megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Train and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--epoch", type=int, default=EPOCH, help="steps of one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options.steps, Path(folder) / "run", epoch=options.epoch)))


if __name__ == "__main__":
    main()
