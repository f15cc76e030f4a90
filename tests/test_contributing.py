"""CONTRIBUTING stays true: its routings pass the check and train, its tables are the modules'."""

import functools
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import data, models, routing, testing
from capsjax.routing import convergence
from tests.training.small import NARROW, cache_environment, digits, saved_digits

ROOT = Path(__file__).parents[1]
ROUTINGS = ("cosine", "cosine_iterated")

# Behind the guide's own options: what makes its run a short one.
SHORT = shlex.split(
    "--dataset own.npz --model.features 8 --model.kernel-size 3 --model.primary-types 2 "
    "--model.decoder-widths 16 --limit 64 --validation 16 --batch-size 16 --epochs 5"
)


@functools.cache
def guide() -> str:
    """The text. Not read where tests are collected: beside an installed wheel there is none."""
    return (ROOT / "CONTRIBUTING.md").read_text()


def fenced(mark: str) -> str:
    """The block of code under a mark."""
    pattern = rf"<!-- {re.escape(mark)} -->\n```(?:python)?\n(.*?)```"
    [block] = re.findall(pattern, guide(), flags=re.DOTALL)
    return block


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader of the guide would be: their two files and a few digits."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ROUTINGS:
        (folder / f"{name}.py").write_text(fenced(f"file: {name}.py"))
    saved_digits(folder / "own.npz", 80, 20)
    return folder


@pytest.fixture
def modules(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The guide's routings, imported from there."""
    monkeypatch.syspath_prepend(folder)
    yield {name: routing.find(name) for name in ROUTINGS}
    for name in ROUTINGS:
        del sys.modules[name]


def run(line: str, folder: Path, *more: str) -> str:
    """Run a line of the guide in its reader's folder, as an installed command would be."""
    script = folder / "bin" / "capsjax"
    script.parent.mkdir(exist_ok=True)
    script.write_text("import sys\nfrom capsjax.__main__ import main\nsys.exit(main())\n")
    name, *words = shlex.split(line)
    start = {"python": [sys.executable], "capsjax": [sys.executable, str(script)]}[name]
    cache = cache_environment(folder / "compiled")
    done = subprocess.run(
        [*start, *words, *more],
        cwd=folder,
        env={**os.environ, **cache},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# The guide's routings


def test_the_line_that_checks_the_first_routing_prints_a_report(folder: Path) -> None:
    [line] = fenced("shell: check").splitlines()
    said = run(line, folder)
    assert said.startswith("routing cosine\n")
    statuses = dict(re.findall(r"^  (\S.*?)  +(\w.*?)(?:: .*)?$", said, flags=re.MULTILINE))
    assert list(statuses) == list(testing.PROPERTIES)
    assert {name for name, status in statuses.items() if status == "not promised"} == {
        "off child",
        "translation",
    }
    assert statuses["two groups"] == "passed"
    assert statuses["initial"] == statuses["scan and checkpoint"] == "left out"


def test_the_iterative_routing_passes_the_check(modules: dict[str, ModuleType]) -> None:
    module = modules["cosine_iterated"]
    report = testing.check_routing(module, module.Config(num_iterations=2), examples=3)
    not_passed = {name for name, result in report.results.items() if result.status != "passed"}
    assert not_passed == {"activations", "off child", "translation"}


def test_the_iterative_routing_runs_as_its_loop_says(modules: dict[str, ModuleType]) -> None:
    module = modules["cosine_iterated"]
    config = module.Config()
    loop = convergence.Loop(gradient="last_iteration", tolerance=1e-4)
    params = module.init(config, jax.random.key(0), parents=3, dim=4, children=6, child_dim=5)
    votes = jnp.asarray(testing.draw_votes("clustered", 0), jnp.float32)
    routed = jax.jit(module.route, static_argnums=3)(
        votes, None, params, replace(config, loop=loop)
    )
    assert routed.converged
    assert 3 < routed.iterations < loop.max_iterations
    # At a fixed point, by the definition: shares are a softmax of 8 times the cosines.
    poses, plain = np.asarray(routed.poses, np.float64), np.asarray(votes, np.float64)
    lengths = np.linalg.norm(poses, axis=1)[:, None] * np.linalg.norm(plain, axis=1)
    weights = np.exp(8 * np.einsum("jd,jdi->ji", poses, plain) / lengths)
    np.testing.assert_allclose(routed.coefficients, weights / weights.sum(0), atol=1e-3)


def test_the_first_routing_s_coefficients_are_what_the_guide_says(
    modules: dict[str, ModuleType],
) -> None:
    module = modules["cosine"]
    # Two children in the plane: they vote (1, 0) and (0, 1) for parent 0, (2, 0) for parent 1.
    votes = jnp.asarray([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 2.0], [0.0, 0.0]]])
    params = {"sharpness": jnp.asarray([2.0, 4.0])}
    found = module.route(votes, None, params).coefficients
    # Parent 0: both votes are 45 degrees from their mean; parent 1: none is.
    share = 1 / (1 + np.exp(4 - 2 * np.sqrt(0.5)))
    np.testing.assert_allclose(found, [[share, share], [1 - share, 1 - share]], rtol=1e-6)
    with pytest.raises(ValueError, match="sharpness is 0, expected a positive number"):
        module.Config(sharpness=0)


def test_the_lines_that_train_and_evaluate_work_in_the_reader_s_folder(folder: Path) -> None:
    train, evaluate = fenced("shell: train").splitlines()
    assert train.endswith(" --workdir runs/cosine")
    said = run(train, folder, *SHORT)
    assert "training capsnet on own.npz in runs/cosine" in said
    config = (folder / "runs" / "cosine" / "config.json").read_text()
    assert re.search(r'"routing": {\s*"algorithm": "cosine",\s*"sharpness": 6.0\s*}', config)
    [error] = re.findall(r"test error (\S+ %|\S+%)", said)
    assert f"error {error} (95 % interval" in run(evaluate, folder)
    lines = (folder / "runs" / "cosine" / "metrics.jsonl").read_text().splitlines()
    losses = [entry["loss"] for entry in map(json.loads, lines) if entry["split"] == "train"]
    assert len(losses) == 20
    assert losses[-1] < 0.8 * losses[0]


def test_the_lines_of_python_train_a_network(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the iterative routing; the lines of the shell train the first one."""
    name = "cosine_iterated"
    block = fenced("python: train")
    assert block.count("limit=10_000") == 1
    block = block.replace("limit=10_000", "validation=32, batch_size=32, shift=0")
    few = digits(544)
    monkeypatch.setattr(models, "create", functools.partial(models.create, config=NARROW))
    monkeypatch.setattr(data, "load", lambda name, split: few)
    seen: dict = {}
    exec(block.replace("cosine", name), seen)
    network, result = seen["network"], seen["result"]
    assert network.config.routing == modules[name].Config()
    assert network.classes.routing.params["sharpness"].shape == (10,)
    losses = [entry["loss"] for entry in result.history if entry["split"] == "train"]
    assert len(losses) == 16
    assert losses[-1] < 0.8 * losses[0]
    # Trained with the rest: no parameter stays where it started.
    assert np.all(result.model.classes.routing.params["sharpness"][...] != 8)


def test_the_guide_explains_every_argument_of_the_contract() -> None:
    signature = inspect.signature(routing.find("dynamic").route)
    for name in signature.parameters:
        assert re.search(rf"^\* `{name}`: ", guide(), flags=re.MULTILINE), name
    # The contract, as it was laid down: what a file exports, and what each function is given.
    for name in ("Config", "READOUT", "SOURCE", "NOT_PROMISED", "WEIGHTS_STDDEV", "HUGE", "State"):
        assert re.search(rf"^\* `{name}`", guide(), flags=re.MULTILINE), name
    functions = routing.find("em")
    for name in ("init", "start", "step", "finish"):
        given = ", ".join(inspect.signature(getattr(functions, name)).parameters)
        given = given.replace("key, parents", "key, *, parents")
        assert f"* `{name}({given})`: " in guide(), f"{name}({given})"


def test_links_to_files_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", guide())
    assert "capsjax/routing/dynamic.py" in links
    assert [link for link in links if not (ROOT / link).is_file()] == []


# The tables


def applies(name: str, module: ModuleType) -> bool:
    """Whether a property says anything about a routing."""
    if name == "activations":
        return module.READOUT == "own"
    if name == "initial":
        return hasattr(module, "State")
    if name == "scan and checkpoint":
        return hasattr(module.Config(), "loop")
    return True


def promises() -> str:
    """What each property says, who promises it, and why others do not."""
    reasons: list[str] = []
    rows = [["property", *routing.ALGORITHMS]]
    for name in testing.PROPERTIES:
        row = [name]
        for module in routing.ALGORITHMS.values():
            reason = module.NOT_PROMISED.get(name)
            if reason is not None and reason not in reasons:
                reasons.append(reason)
            if reason is not None:
                row.append(f"no ({reasons.index(reason) + 1})")
            else:
                row.append("yes" if applies(name, module) else "-")
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    meanings = [
        textwrap.fill(f"* **{name}**: {meaning}", 100, subsequent_indent="  ")
        for name, meaning in testing.MEANING.items()
    ]
    table = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    notes = [
        textwrap.fill(f"{number}. {reason}", 100, subsequent_indent="   ")
        for number, reason in enumerate(reasons, 1)
    ]
    return "\n".join([*meanings, "", *table, "", *notes])


def test_the_tables_are_what_the_modules_promise() -> None:
    [found] = re.findall(
        r"<!-- promises -->\n\n(.*?)\n\n<!-- end of promises -->", guide(), flags=re.DOTALL
    )
    assert found == promises(), (
        "between the marks of promises CONTRIBUTING should have:\n\n" + promises()
    )


def test_every_property_has_a_meaning() -> None:
    assert list(testing.MEANING) == list(testing.PROPERTIES)
