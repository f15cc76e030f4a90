"""Data-parallel training, in a process that has eight devices: see ``eight_devices``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flax import nnx

from capsjax.training import loop, parallel
from tests.training.small import Level, flat_images

FORCED = "--xla_force_host_platform_device_count=8"


def test_eight_devices_train_as_one() -> None:
    tests = Path(__file__).with_name("eight_devices.py")
    flags = f"{os.environ.get('XLA_FLAGS', '')} {FORCED}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", str(tests)],
        cwd=tests.parents[2],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_one_device_is_not_two() -> None:
    data = flat_images(range(8, 248, 5), label=0)
    with pytest.raises(ValueError, match=r"devices is 2, expected 1 to 1.*device_count=2 "):
        loop.fit(Level(), data, loop.Config(batch_size=8, validation=4), devices=2)


def test_only_what_is_of_a_whole_batch_takes_the_axis_name() -> None:
    class Network(nnx.Module):
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.of_batch = nnx.BatchNorm(3, rngs=rngs)
            norms = [
                nnx.LayerNorm(3, rngs=rngs),
                nnx.InstanceNorm(3, rngs=rngs),
                nnx.GroupNorm(3, num_groups=1, rngs=rngs),
                nnx.RMSNorm(3, rngs=rngs),
            ]
            self.of_example = nnx.List(norms)

    network = Network()
    parallel.name_axis(network)
    assert network.of_batch.axis_name == parallel.AXIS
    assert [norm.axis_name for norm in network.of_example] == [None] * 4
