"""Bytes between devices: counted in programs, computed from shapes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import communication
from experiments.benchmarks.collectives import count

ROOT = Path(__file__).parents[2]
HLO = """
  %a = f32[2,4]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  %b.1 = (f32[10]{0}, bf16[3,4]{1,0}, f32[], /*index=3*/s8[5]{0}) all-reduce(%p, %q, %r, %s)
  ROOT %c = f64[8]{0} all-gather(f64[4]{0} %y), dimensions={0}
  %d = f32[100]{0} all-reduce-start(%z), to_apply=%add
  %e = f32[100]{0} all-reduce-done(%d)
  %f = f32[7]{0} add(%all-reduce.1, %all-reduce.2)
"""
PROGRAM = """
import jax, jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec as P
from experiments.benchmarks.collectives import count
jax.config.update("jax_num_cpu_devices", 4)
mesh = Mesh(jax.devices(), ("data",))

def part(x, y):
    return jax.lax.psum(x, "data"), jax.lax.all_gather(y, "data", tiled=True)

cut = P("data")
function = jax.shard_map(part, mesh=mesh, in_specs=cut, out_specs=P(), check_vma=False)
arrays = jnp.ones((8, 5)), jnp.ones((12,), jnp.bfloat16)
print(count(jax.jit(function).lower(*arrays).compile().as_text()))
"""


def environment() -> dict[str, str]:
    """The suite's own, but for as many devices as the program asks for."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_collectives_are_counted_in_the_text_of_a_program():
    assert count(HLO) == {
        "all-reduce": {"number": 3, "bytes": 32 + (40 + 24 + 4 + 5) + 400},
        "all-gather": {"number": 1, "bytes": 64},
    }
    assert count("%a = f32[3]{0} add(%x, %y)") == {}


def test_collectives_are_counted_in_a_compiled_program():
    command = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=True
    ).stdout
    # Each of 4 devices sums its [2, 5] with the others', and gets all 12 of the other array.
    gathered = [12 * 2, 12 * 4]  # a CPU may gather bfloat16 as float32
    expected = [
        {
            "all-reduce": {"number": 1, "bytes": 2 * 5 * 4},
            "all-gather": {"number": 1, "bytes": size},
        }
        for size in gathered
    ]
    assert json.loads(found.replace("'", '"')) in expected


def test_capsnet_sends_its_parameters_and_metrics():
    step = communication.step_of("capsnet")
    # Sabour 2017's 8.2 million; loss, its parts, accuracy. It has no batch normalisation.
    assert step.parameters == 8_215_568
    assert (step.payload, step.reductions) == (4 * (8_215_568 + 4), 1)
    assert step.fed == 28 * 28 + 4


def test_batch_normalisation_sends_two_numbers_a_channel_forward_and_backward():
    step = communication.step_of("efficient_capsnet")
    channels = 32 + 64 + 64 + 128
    assert step.payload == 4 * (step.parameters + 4 + 2 * 2 * channels)
    assert step.reductions == 1 + 2 * 4


def test_a_step_pays_from_the_images_on_whose_operations_take_as_long_as_sending():
    step = communication.Step(0, payload=1000, reductions=2, flops=50.0, fed=0)
    machine = communication.Machine(flops=100.0, bandwidth=10.0, latency=1.0)
    # 2 devices: 1000 bytes in 100 s, and 2 all-reduces of 2 hops: 104 s; an image takes half a one.
    assert communication.communicating(step, machine, 2) == 104
    assert communication.images_to_pay(step, machine, 2) == 208
    assert communication.ring(1000, 4) == 1500
    assert communication.most_devices(step, machine, 415) == 1
    assert communication.most_devices(step, machine, 416) == 2
    assert communication.communicating(step, machine, 1) == 0


def test_the_command_writes_its_report_and_its_tables(tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{communication.BEGIN}\nold\n{communication.END}\nafter\n")
    options = ["--networks", "hinton_cnn", "--no-compile"]
    options += ["--results", str(tmp_path), "--readme", str(readme)]
    monkeypatch.setattr(sys, "argv", ["communication", *options])
    communication.main()
    report = json.loads((tmp_path / "communication.json").read_text())
    shown = communication.tables(report)
    assert shown in capsys.readouterr().out
    assert readme.read_text() == (
        f"before\n{communication.BEGIN}\n{shown}\n{communication.END}\nafter\n"
    )


@pytest.mark.slow
def test_a_step_compiled_for_8_devices_sends_what_was_computed(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"{communication.BEGIN}{communication.END}")
    command = [sys.executable, "-m", "experiments.benchmarks.communication"]
    command += ["--networks", "efficient_capsnet", "hinton_cnn", "--results", tmp_path]
    subprocess.run(
        [*command, "--readme", readme], env=environment(), cwd=ROOT, check=True, timeout=500
    )
    report = json.loads((tmp_path / "communication.json").read_text())
    for row in report["networks"].values():
        assert row["compiled"]["all-reduce"]["bytes"] == pytest.approx(row["payload"], abs=20)


def test_the_readme_shows_the_committed_report():
    path = ROOT / "experiments" / "results" / "communication.json"
    shown = communication.tables(json.loads(path.read_text()))
    assert shown in (ROOT / "experiments" / "benchmarks" / "README.md").read_text()
