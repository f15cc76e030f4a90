"""Every network's training step, lowered for platforms that are not here: nothing is run.

``jax.export`` writes the program that a platform's compiler would get. It must hold nothing that
was made for another platform, and nothing that would call back into Python.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

from capsjax import models
from capsjax.training import losses
from capsjax.training.step import State, make_step, split
from tests.models.test_all_models import FORMS, NAMES, NARROW, create

# One place for the kernel: a contraction.
NOT_CONVOLUTIONS = {"efficient_capsnet": 1}
# What adds many numbers up, and would lose most of them in bfloat16.
SUMS = {
    "cumlogsumexp", "cumprod", "cumsum", "dot_general", "reduce_prod", "reduce_sum",
    "reduce_window_sum", "scatter-add",
}  # fmt: skip


def lowered(network: Any, name: str) -> Iterator[tuple[str, str]]:
    """Platforms, and the program of one training step on two images that each would get."""
    graph, params, rest = split(network)
    optimizer = optax.adam(1e-3)

    def start(params: Any, rest: Any) -> State:
        return State(params, rest, optimizer.init(params), jnp.zeros((), jnp.int32))

    step = make_step(
        graph,
        optimizer,
        num_classes=network.num_classes,
        limit=2,
        loss=losses.Config(**models.find(name).training.get("loss", {})),
        key=jax.random.key(0),
        layer_metrics=True,
    )
    arguments = (
        jax.eval_shape(start, params, rest),
        jax.ShapeDtypeStruct((2, *network.image_shape), jnp.uint8),
        jax.ShapeDtypeStruct((2,), jnp.int32),
    )
    compiled = jax.jit(step)  # traced once for all
    for platform in ("cpu", "cuda", "tpu"):
        yield platform, jax.export.export(compiled, platforms=[platform])(*arguments).mlir_module()


def custom_calls(text: str) -> set[str]:
    return set(re.findall(r"custom_call\W+(\w+)", text))


def branches(text: str) -> list[list[list[str]]]:
    """The lines of each branch of each ``case``."""
    lines = text.splitlines()
    cases = []
    for number, line in enumerate(lines):
        if "stablehlo.case" in line:
            indent = re.match(" *", line)[0]
            found: list[list[str]] = [[]]
            for inner in lines[number + 1 :]:
                if inner.startswith(f"{indent}}}) :"):
                    break
                if inner == f"{indent}}}, {{":
                    found.append([])
                else:
                    found[-1].append(inner)
            cases.append(found)
    return cases


def check(network: Any, name: str) -> None:
    kernels = [
        path
        for path, leaf in nnx.to_flat_state(nnx.state(network, nnx.Param))
        if path[-1] == "kernel" and len(leaf.shape) == 4
    ]
    count = len(kernels) - NOT_CONVOLUTIONS.get(name, 0)
    for platform, text in lowered(network, name):
        assert custom_calls(text) == set(), platform
        for case in branches(text):
            # One platform has one branch. Only its number is still chosen, among the same ones.
            numbers = {re.sub(" loc.*", "", line) for lines in case for line in lines}
            assert len(case) == 1 or len(numbers) == 1, platform
        if platform != "cpu":
            # Forward, for the kernel's gradient, and for the input's, but of the images.
            assert text.count("stablehlo.convolution") == 3 * count - 1, platform
            # The CPU's loops over parents and examples.
            assert "stablehlo.while" not in text, platform


@pytest.mark.parametrize("name", NAMES)
def test_a_step_has_native_convolutions_and_no_callbacks(name):
    check(nnx.eval_shape(partial(create, name)), name)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_so_has_a_step_of_every_published_form(name, form):
    make = partial(
        models.create,
        name,
        config=form.config,
        image_shape=form.image_shape,
        num_classes=form.num_classes,
    )
    check(nnx.eval_shape(make), name)


def test_a_callback_or_a_choice_of_platform_would_be_seen():
    def back(x: Any) -> Any:
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    def choose(x: Any) -> Any:
        return jax.lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos)

    def text(function: Any, *platforms: str) -> str:
        lowering = jax.jit(function).trace(jnp.ones(())).lower(lowering_platforms=platforms)
        return lowering.as_text()

    assert len(custom_calls(text(back, "cpu"))) == 1  # for others it is not even lowered
    assert sorted(map(len, branches(text(choose, "cuda")))) == [1, 2]
    assert max(map(len, branches(text(choose, "cuda", "tpu", "cpu")))) > 1


def halved(tree: Any) -> Any:
    """The shapes of a pytree, floats in bfloat16."""

    def half(leaf: Any) -> Any:
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16 if floating else leaf.dtype)

    return jax.tree.map(half, tree)


def equations(jaxpr: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Every equation, with the files in which it was written, or the one that it is part of."""
    for equation in jaxpr.eqns:
        frames = getattr(equation.source_info.traceback, "frames", ())
        own = (frame.file_name.replace("\\", "/") for frame in frames)
        files = (*above, *own)
        yield equation, files
        for body in jaxprs_in_params(equation.params):
            yield from equations(getattr(body, "jaxpr", body), files)


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(NARROW[name][0], "routing")])
def test_votes_and_routing_in_bfloat16_sum_in_float32(name):
    network: Any = nnx.eval_shape(partial(create, name))
    graph, params, rest = split(network)

    def loss(params: Any, rest: Any, images: Any) -> Any:
        network: Any = nnx.merge(graph, params, rest)
        network.eval()  # running statistics would be updated in float32
        output = network(images)
        return output.activations.astype(jnp.float32).sum()

    images = halved(jax.ShapeDtypeStruct((2, *network.image_shape), jnp.float32))
    jaxpr = jax.make_jaxpr(jax.value_and_grad(loss))(halved(params), halved(rest), images).jaxpr
    seen = []
    for equation, files in equations(jaxpr):
        inside = any("capsjax/routing/" in file or "capsjax/ops/votes" in file for file in files)
        if inside and equation.primitive.name in SUMS:
            seen.append(equation.primitive.name)
            # Of the operands only indices are integers.
            assert equation.outvars[0].aval.dtype != jnp.bfloat16, equation
    assert "dot_general" in seen
