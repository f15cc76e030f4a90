"""The library's errors are within the table that is committed, in every mode that JAX has."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import routing
from capsjax.routing import competition, convergence
from tests.numerics import bounds, cut, measure, routings
from tests.training.small import assert_same_bits
from tests.training.test_parallel import FORCED

ROOT = Path(__file__).parents[2]
SEEDS = range(2)


def assert_within(name: str, size: str, seed: int, dtype: str, results: Any) -> None:
    """Both errors are within the table; a float64 gradient is held to the reference's slopes."""
    bound = bounds.read()["bounds"][name][size]
    found = measure.errors(results, measure.exact(name, size, seed, dtype))
    if dtype == "float64":
        found = found[0], measure.error_of_exact_gradients(name, size, seed)
    for kind, error in zip(("value", "gradient"), found, strict=True):
        most = bound[kind][dtype]
        assert error <= most, f"{kind} of {name} is off by {error:.2g} in {dtype}, bound {most}"


@pytest.mark.core
@pytest.mark.parametrize("name", measure.CASES)
def test_errors_are_within_the_table_with_nan_checks_too(name: str) -> None:
    for dtype in measure.DTYPES:
        for seed in SEEDS:
            with jax.enable_x64(dtype == "float64"):
                results = measure.found(name, "small", seed, dtype)
                with jax.debug_nans(True):
                    assert_same_bits(measure.found(name, "small", seed, dtype), results)
            assert_within(name, "small", seed, dtype, results)


@pytest.mark.slow
@pytest.mark.parametrize("name", measure.CASES)
def test_errors_at_published_sizes_are_within_the_table(name: str) -> None:
    for dtype in measure.DTYPES:
        with jax.enable_x64(dtype == "float64"):
            results = measure.found(name, "published", 0, dtype)
        assert_within(name, "published", 0, dtype, results)


def program(name: str, dtype: str) -> str:
    """What is compiled, but for the width of integers, which count iterations and places."""
    arguments = measure.in_dtype(measure.drawn(name, "small", 0), dtype)
    text = str(jax.make_jaxpr(measure.differentiated(measure.CASES[name].library))(*arguments))
    return re.sub(r"\b(i|u|int|uint)64\b", r"\g<1>32", re.sub(r"0x[0-9a-f]+", "", text))


@contextlib.contextmanager
def strict() -> Any:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.mark.core
@pytest.mark.parametrize("name", measure.CASES)
def test_64_bits_and_strict_promotion_change_no_program(name: str) -> None:
    """Where what is compiled is the same, letter by letter, nothing has to be measured again."""
    for dtype in ("float32", "bfloat16"):
        plain = program(name, dtype)
        with strict():
            assert program(name, dtype) == plain
        with jax.enable_x64(True):
            if program(name, dtype) != plain:  # what counts and draws may do so in other steps
                results = measure.found(name, "small", 0, dtype)
                assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {jnp.dtype(dtype)}
                assert_within(name, "small", 0, dtype, results)
    with jax.enable_x64(True):
        plain = program(name, "float64")
        with strict():
            assert program(name, "float64") == plain


LOOPS = {
    "scanned": convergence.Loop(unroll=0),
    "computed again": convergence.Loop(checkpoint=True),
    "last iteration": convergence.Loop("last_iteration"),
    "until at rest": convergence.Loop("last_iteration", tolerance=1e-3),
    "fixed point": convergence.Loop("implicit", tolerance=1e-3),
}
ITERATIVE = [name for name, module in routing.ALGORITHMS.items() if hasattr(module, "State")]
PAIRS = [
    (name, loop)
    for name in ITERATIVE
    for loop in LOOPS
    if (name, loop) != ("dynamic", "fixed point")  # which it has not
]


@pytest.mark.core
@pytest.mark.parametrize(("name", "loop"), PAIRS)
def test_every_loop_is_traced_under_strict_promotion(name: str, loop: str) -> None:
    """With a trace, going on from an earlier result, and competing across windows."""
    module = routing.find(name)
    config = module.Config(loop=LOOPS[loop])
    given, _ = measure.drawn(name, "small", 0)
    compete = competition.across(np.arange(given["votes"].shape[-1]))

    def total(given: Any) -> Any:
        arguments = routings.arguments(given)
        first = module.route(*arguments, config, compete=compete, trace=True)
        again = module.route(*arguments, config, compete=compete, initial=first)
        assert again.poses.dtype == first.trace.poses.dtype == arguments[0].dtype
        return again.poses.sum()

    for wide, dtype in ((False, "float32"), (True, "float32"), (True, "float64")):
        with jax.enable_x64(wide), strict():
            gradients = jax.eval_shape(jax.grad(total), measure.in_dtype(given, dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {np.dtype(dtype)}


@pytest.mark.parametrize(
    "devices", [8, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 2, 4))]
)
def test_a_batch_cut_over_devices_is_within_the_table(devices: int, tmp_path: Path) -> None:
    flags, file = f"{os.environ.get('XLA_FLAGS', '')} {FORCED}", tmp_path / "results.npz"
    done = subprocess.run(
        [sys.executable, "-m", "tests.numerics.cut", str(devices), str(file)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = cut.read(file)
    assert found.keys() == measure.CASES.keys()
    for name, each in found.items():
        for seed, results in enumerate(each):
            assert_within(name, "small", seed, "float32", results)


# The table


def test_every_case_has_bounds() -> None:
    found = {name: set(sizes) for name, sizes in bounds.read()["bounds"].items()}
    assert found == {name: set(case.sizes) for name, case in measure.CASES.items()}


def test_contributing_has_the_table() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    [found] = re.findall(r"<!-- bounds -->\n\n(.*?)\n\n<!-- end of bounds -->", text, re.DOTALL)
    expected = bounds.table(bounds.read()["bounds"])
    assert found == expected, "between the marks of bounds it should have:\n\n" + expected


@pytest.mark.parametrize(
    ("error", "bound"), [(1.1e-7, 2e-7), (0.03, 0.05), (5e-3, 5e-3), (5.1e-3, 0.01), (1.0, 1.0)]
)
def test_bounds_are_rounded_up_to_1_2_or_5(error: float, bound: float) -> None:
    assert bounds.rounded_up(error) == bound


def test_an_error_is_beside_the_largest_number_and_infinite_for_what_is_not_one() -> None:
    assert measure.relative([3.0, -4.0], [3.5, -5.0]) == pytest.approx(0.2)
    assert measure.relative([0.0], [0.0]) == 0
    assert measure.relative([float("nan")], [1.0]) == float("inf")
    assert measure.relative([1e-30], [0.0]) == float("inf")
