"""The peers' protocol, with a framework of two variants that only sleep."""

import gzip
import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import peer_inputs, peer_protocol

BENCHMARKS = Path(peer_protocol.__file__).parent

SCRIPT = f"""
import itertools, os, sys, time
sys.path.insert(0, {str(BENCHMARKS)!r})
import peer_protocol

def build(network, variant, batch_size):
    if variant == "broken":
        raise ValueError("no such kernel")
    seconds = {{"slow": 0.02, "fast": 0.002}}[variant] / int(os.environ.get("PEER_SPEED", 1))
    losses = itertools.count(1000, -10)
    def train():
        print("a framework's chatter")
        time.sleep(seconds)
        return float(next(losses)) + (variant == "wrong")
    lengths = [[0.5] * 10] * batch_size
    return peer_protocol.Peer(train, lambda: time.sleep(seconds / 2), lambda: lengths)

names = ["slow", "fast", "broken", "fast@quick", "fast@bf16"]
settings = {{"quick": {{"PEER_SPEED": "2"}}, "bf16": {{"PEER_SPEED": "4"}}}}
peer_protocol.main(
    peer_protocol.Framework(
        "sleep", "1", __file__, {{"capsnet": names, "efficient_capsnet": names[:1]}},
        {{"capsnet": ["fast"], "efficient_capsnet": ["slow"]}}, build,
        lambda n: lambda: time.sleep(0.01), lambda: 7, settings,
    ),
    "A peer that sleeps.",
)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "sleep_peer.py"
    path.write_text(SCRIPT)
    return path


def call(script, *options):
    command = [sys.executable, script, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_all_variants_are_measured_each_in_the_process_of_its_setting(script):
    done = call(script, "--variants", "all", "--seconds", 0.05, "--batch-size", 4, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    rates = {r["name"]: r["train_images_per_second"] for r in report["variants"]}
    assert set(rates) == {"slow", "fast", "fast@quick", "fast@bf16"}
    assert 50 < rates["slow"] <= 4 / 0.02
    # a sleep is never shorter than asked for, however busy the machine
    assert rates["slow"] < rates["fast"] <= 4 / 0.002
    assert "no such kernel" in report["failed"]["broken"]
    assert report["best"]["inference"]["name"] in ("fast", "fast@quick")
    assert (report["threads"], report["network"], report["batch_size"]) == (7, "capsnet", 4)
    assert 0 < report["matmul_gflops"] <= 2e-9 * 2048**3 / 0.01
    assert "chatter" not in done.stdout
    assert "| broken | failed: ValueError: no such kernel | | |" in done.stdout


def test_a_worker_answers_one_request_after_the_other(script):
    with peer_protocol.Worker(sys.executable, script, "capsnet", 2) as worker:
        assert worker.about == {"name": "sleep", "version": "1", "threads": 7}
        rates = worker.ask("slow", "train", 0.1)
        assert 1 < len(rates) <= 5
        assert max(rates) <= 2 / 0.02
        assert len(worker.ask("fast", "inference", 0)) == 1
        with pytest.raises(RuntimeError, match="no such kernel"):
            worker.ask("broken", "train")
        assert worker.ask("slow", "inference", 0)[0] <= 2 / 0.01
    with pytest.raises((RuntimeError, ValueError), match=r"ended|closed"):
        worker.ask("slow", "train")


def test_the_command_line_lists_checks_and_refuses(script):
    listed = call(script, "--list").stdout.split()
    assert listed == ["slow", "fast", "broken", "fast@quick", "fast@bf16"]
    assert call(script, "--list", "--network", "efficient_capsnet").stdout.split() == ["slow"]
    refused = call(script, "--only", "none")
    assert refused.returncode == 2
    assert "'none', expected a name that --list prints" in refused.stderr
    assert call(script, "--batch-size", 0).returncode == 2
    checked = call(script, "--check", "--only", "fast", "--only", "slow")
    assert "capsnet: 2 variants agree, and every loss falls" in checked.stdout


def test_best_leaves_reduced_precision_out_unless_nothing_else_is_there():
    def row(name, train, inference):
        return {
            "name": name,
            "train_images_per_second": train,
            "inference_images_per_second": inference,
        }

    rows = [row("a", 1, 4), row("b@threads", 2, 3), row("a@bf16", 9, 9)]
    best = peer_protocol.best(rows)
    assert (best["train"]["name"], best["inference"]["name"]) == ("b@threads", "a")
    assert peer_protocol.best(rows[2:])["train"]["name"] == "a@bf16"


def peer(lengths, losses):
    steps = iter(losses)
    return peer_protocol.Peer(lambda: next(steps), lambda: None, lambda: [lengths])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (peer([0.1, 0.2002], [2.0 - i / 20 for i in range(20)]), "lengths are off"),
        (peer([0.1, 0.2], [2.001 - i / 20 for i in range(20)]), "first loss is not 2.0"),
        (peer([0.1, 0.2], [2.0] * 20), "does not fall"),
    ],
)
def test_check_finds_a_variant_that_computes_something_else(other, message):
    peers = {"first": peer([0.1, 0.2], [2.0 - i / 20 for i in range(20)]), "other": other}
    framework = peer_protocol.Framework(
        "none", "0", "", {}, {}, lambda network, name, batch_size: peers[name], print, print
    )
    with pytest.raises(AssertionError, match=message):
        peer_protocol.check(framework, "capsnet", ["first", "other"], 1)


@pytest.mark.parametrize(
    ("network", "trained"), [("capsnet", 8_215_568), ("efficient_capsnet", 1_573_168)]
)
def test_weights_are_all_of_a_network_and_always_the_same(network, trained):
    weights = peer_inputs.weights(network)
    assert sum(len(w.raw) // 4 for w in weights.values() if w.trained) == trained
    assert all(len(w.raw) == 4 * math.prod(w.shape) for w in weights.values())
    assert weights == peer_inputs.weights(network)
    assert weights["capsules"].raw != peer_inputs.weights(network, seed=1)["capsules"].raw
    drawn = struct.unpack("=512i", weights["dense0.bias"].raw)
    assert min(drawn) < -(2**30)
    assert max(drawn) > 2**30


def test_digits_are_the_archive_s_first():
    images, labels = peer_inputs.digits(16)
    archive = Path("capsjax/data/mnist")
    path = Path(peer_inputs.__file__).parents[2] / archive
    whole = gzip.decompress((path / "train-images-idx3-ubyte.gz").read_bytes())
    assert images == whole[16 : 16 + 16 * 784]
    assert labels[:5] == list(
        gzip.decompress((path / "train-labels-idx1-ubyte.gz").read_bytes())[8:13]
    )


@pytest.mark.parametrize("name", ["torch_peer.py", "keras_peer.py"])
def test_without_its_framework_a_peer_says_how_to_get_it(name):
    # -S: no site-packages, so no framework whatever is installed
    done = subprocess.run(
        [sys.executable, "-S", BENCHMARKS / name, "--list"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
