"""Two processes of four devices each, as two hosts: one is killed, and the run goes on."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from capsjax.training import hosts, run
from tests.training.small import cache_environment, saved_digits

COMMAND = shlex.split(
    "train --model.features 8 --model.kernel-size 3 --model.primary-types 2 "
    "--model.decoder-widths 16 --epochs 3 --batch-size 16 --validation 20 --schedule recipe "
    "--learning-rate 0.002 --checkpoint-every 2 --dataset digits.npz"
)
STEPS = 15

Start = Callable[..., subprocess.Popen]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """``start(workdir, devices, *options)``: the command, beside its data; stderr in a file."""
    folder = tmp_path_factory.mktemp("hosts")
    saved_digits(folder / "digits.npz", 100, 50)

    def begin(workdir: Path, devices: int, *options: str) -> subprocess.Popen:
        flags = os.environ.get("XLA_FLAGS", "")
        environment = {
            **os.environ,
            **cache_environment(folder / "compiled"),
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
        }
        with workdir.with_suffix(f".{options[-1] if options else 'one'}").open("w") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "capsjax", *COMMAND, "--workdir", str(workdir), *options],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    return begin


def start_both(start: Start, workdir: Path) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = ("--coordinator", address, "--num-hosts", "2", "--host-id")
    return [start(workdir, 4, *together, host) for host in ("0", "1")]


def said(workdir: Path, host: str) -> str:
    return workdir.with_suffix(f".{host}").read_text()


def steps_saved(workdir: Path) -> int:
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def wait_for_step(processes: list[subprocess.Popen], workdir: Path, step: int) -> None:
    while steps_saved(workdir) < step and all(p.poll() is None for p in processes):
        time.sleep(0.01)


def wait_for_words(workdir: Path, host: str, words: str) -> None:
    """Last words may come just after the process's end."""
    until = time.monotonic() + 10
    while words not in said(workdir, host) and time.monotonic() < until:
        time.sleep(0.05)
    assert words in said(workdir, host)


@pytest.fixture(scope="module")
def alone(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("alone") / "run"
    assert start(workdir, 1).wait(300) == 0, said(workdir, "one")
    return workdir


def assert_same_results(found: Path, expected: Path) -> None:
    ours, theirs = (
        jax.tree.leaves(nnx.state(run.load(workdir).model, nnx.Param))
        for workdir in (found, expected)
    )
    for mine, other in zip(ours, theirs, strict=True):
        # As on eight devices: Adam shows the rounding of gradients that are nearly 0.
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4 * np.max(np.abs(other)))
    logs = [
        [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        for workdir in (found, expected)
    ]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]
    for mine, other in zip(*logs, strict=True):
        for key in other.keys() - {"split"}:
            assert mine[key] == pytest.approx(other[key], rel=1e-4), key
    summaries = [
        json.loads((workdir / "summary.json").read_text()) for workdir in (found, expected)
    ]
    for name in ("test_error", "validation_error", "steps", "settings"):
        assert summaries[0][name] == summaries[1][name], name


@pytest.mark.parametrize("killed", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_host_is_killed_the_other_says_so_and_both_go_on_to_one_processs_result(
    start: Start, alone: Path, tmp_path: Path, killed: int
) -> None:
    workdir, other = tmp_path / "run", 1 - killed
    both = start_both(start, workdir)
    wait_for_step(both, workdir, 4)
    both[killed].kill()
    assert both[other].wait(60) not in (0, 2)
    wait_for_words(
        workdir, str(other), "start the same command on all hosts again to go on from the last\n"
    )
    assert f"capsjax: host {other} of 2 " in said(workdir, str(other))
    assert both[killed].wait(10) == -signal.SIGKILL
    assert 4 <= steps_saved(workdir) < STEPS
    both = start_both(start, workdir)
    for host, process in enumerate(both):
        assert process.wait(300) == 0, said(workdir, str(host))
    assert_same_results(workdir, alone)
    assert "img/s" in said(workdir, "0")
    assert "img/s" not in said(workdir, "1")


@pytest.mark.slow
def test_a_signal_to_one_host_stops_both_and_eight_devices_of_one_process_go_on(
    start: Start, alone: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    both = start_both(start, workdir)
    wait_for_step(both, workdir, 4)
    both[1].send_signal(signal.SIGTERM)
    assert [process.wait(60) for process in both] == [143, 143]
    assert 4 <= steps_saved(workdir) < STEPS
    assert start(workdir, 8, "--devices", "8").wait(300) == 0, said(workdir, "8")
    assert_same_results(workdir, alone)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nowhere", 2, 0), "coordinator is 'nowhere', expected HOST:PORT of host 0"),
        (("there:99999", 2, 0), "coordinator is 'there:99999', expected HOST:PORT of host 0"),
        (("there:1234", 1, 0), "host_id is 0 and num_hosts 1, expected at least two hosts"),
        (("there:1234", 2, 2), "host_id is 2 and num_hosts 2, expected"),
    ],
)
def test_hosts_that_cannot_be(arguments: tuple[str, int, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        hosts.join(*arguments)


def test_a_host_without_the_address_of_the_first_is_refused(start: Start, tmp_path: Path) -> None:
    process = start(tmp_path / "run", 1, "--num-hosts", "2")
    assert process.wait(60) == 2
    assert "--coordinator HOST:PORT" in said(tmp_path / "run", "2")
