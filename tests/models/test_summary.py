"""Networks layer by layer, against sizes by hand; who goes with which routing."""

import itertools
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import models
from capsjax.models import efficient_capsnet
from capsjax.models.published import Form, Model
from capsjax.models.summary import Row, summary
from capsjax.ops.flops import flops
from capsjax.routing import ALGORITHMS, uniform
from tests.training.small import assert_same_bits, parameters


def abstract(name: str, **options: Any) -> Any:
    return nnx.eval_shape(partial(models.create, name, **options))


@pytest.mark.core
def test_capsnet_s_layers_are_those_of_the_paper() -> None:
    rows = {row.path: row for row in summary(abstract("capsnet"), depth=2)}
    # 28x28 less 9x9 is 20x20; then 6x6 of 32 types; biases are added.
    assert rows["convolution"] == Row(
        "convolution", "Convolution", (20, 20, 256), 20_992, 400 * (2 * 81 * 256 + 256)
    )
    products = 2 * 36 * 20_736 * 256
    assert rows["primary"][:4] == ("primary", "PrimaryCapsules", (6, 6, 32, 8), 5_308_672)
    assert products < rows["primary"].flops < 1.001 * products
    assert rows["classes.votes"] == Row(
        "classes.votes", "Votes", (10, 16, 1152), 1_474_560, 2 * 1152 * 8 * 160
    )
    # Each of three iterations sums votes, and each but the last compares them with the sum.
    contractions = 5 * 2 * 1152 * 160
    assert rows["classes.routing"][:4] == ("classes.routing", "Router", (10, 16), 0)
    assert contractions < rows["classes.routing"].flops < 1.4 * contractions
    sizes = [160, 512, 1024, 784]
    for number, (ins, outs) in enumerate(itertools.pairwise(sizes)):
        path = f"decoder.layers.{number}"
        row = Row(path, "Linear", (outs,), ins * outs + outs, 2 * ins * outs + outs)
        assert rows[path] == row
    # What is left to these: masking and the activations.
    assert rows["decoder"] == Row("decoder", "DenseDecoder", (28, 28, 1), 0, 160 + 512 + 1024 + 784)
    assert rows["classes"] == Row("classes", "DenseCapsules", (10, 16), 0, 0)
    assert list(rows)[-1] == ""


@pytest.mark.core
@pytest.mark.parametrize("name", models.MODELS)
def test_rows_add_up_to_the_network_at_every_depth(name: str) -> None:
    form = models.find(name).forms[0]
    sizes = {"image_shape": form.image_shape, "num_classes": form.num_classes}
    network = abstract(name, config=form.config, **sizes)
    graph, state = nnx.split(network)

    def forward(state: Any, images: jax.Array) -> Any:
        whole: Any = nnx.merge(graph, state)
        whole.eval()
        return whole(images)

    images = jax.ShapeDtypeStruct((1, *network.image_shape), jnp.float32)
    expected = flops(forward, state, images)
    for depth in (1, 2):
        rows = summary(network, depth=depth)
        assert sum(row.parameters for row in rows) == models.count_parameters(network)
        assert sum(row.flops for row in rows) == expected
        assert len({row.path for row in rows}) == len(rows) > 1
        assert rows[-1].output_shape == (network.num_classes,)


NARROW = efficient_capsnet.Config(features=(4, 4, 4, 8), decoder_widths=(8,))


def test_the_count_is_near_xla_s() -> None:
    network = abstract("efficient_capsnet", config=NARROW)
    network.eval()
    graph, state = nnx.split(network)
    forward = jax.jit(lambda state, images: nnx.merge(graph, state)(images))
    images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    cost: Any = forward.lower(state, images).cost_analysis()
    counted = sum(row.flops for row in summary(network))
    assert counted == pytest.approx(cost["flops"] + cost["transcendentals"], rel=0.1)


class Base(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.dense = nnx.Linear(4, 4, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(self.dense(x))


class Heir(Base):
    """Inherits its call."""


class Uncalled(nnx.Module):
    """Is used by another method than its call."""

    def __init__(self) -> None:
        self.scale = nnx.Param(jnp.ones(4))

    def __call__(self) -> None:
        raise AssertionError

    def scaled(self, x: jax.Array) -> jax.Array:
        return x * self.scale[...][None]


class Toy(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, *, broken: bool = False):
        self.image_shape = (2, 2, 1)
        self.broken = broken
        self.lists = nnx.List([nnx.List([Base(rngs)]), nnx.List([Heir(rngs), Heir(rngs)])])
        self.again = self.lists[0][0]
        self.uncalled = Uncalled()
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, images: jax.Array) -> Any:
        x = self.norm(images.reshape(len(images), 4))
        for row in self.lists:
            for layer in row:
                x = layer(x)
        x = jax.vmap(self.again, out_axes=1)(jnp.stack([x, x])).sum(1)
        x = self.uncalled.scaled(x)
        if self.broken:
            raise ValueError("broken")
        return SimpleNamespace(activations=x)


# A namespace is what the toy returns, in place of an Output.
jax.tree_util.register_pytree_node(
    SimpleNamespace,
    lambda space: ((space.activations,), None),
    lambda _, leaves: SimpleNamespace(activations=leaves[0]),
)


def test_lists_heirs_second_uses_and_uncalled_modules_are_counted_once() -> None:
    rows = {row.path: row for row in summary(Toy(nnx.Rngs(0)))}
    one = 2 * 16 + 4
    # Modules go by the first of their names; this one runs three times.
    assert rows["again"] == Row("again", "Base", (4,), 16, 3 * one)
    assert rows["lists.1.0"] == Row("lists.1.0", "Heir", (4,), 16, one)
    assert rows["lists.1.1"] == Row("lists.1.1", "Heir", (4,), 16, one)
    assert rows["norm"].parameters == 8
    # Two vectors are added, and scaled by a module that is not called.
    assert rows[""] == Row("", "Toy", (4,), 4, 4 + 4)
    assert list(rows) == ["norm", "again", "lists.1.0", "lists.1.1", ""]
    deep = {row.path: row for row in summary(Toy(nnx.Rngs(0)), depth=2)}
    assert deep["again.dense"].flops == 3 * 32
    assert deep["lists.1.1"] == Row("lists.1.1", "Heir", (4,), 0, 4)


def test_network_and_classes_are_left_as_they_were() -> None:
    network = Toy(nnx.Rngs(0))
    before = jax.tree.map(np.array, parameters(network))
    calls = {kind: kind.__call__ for kind in (Base, nnx.BatchNorm, nnx.Linear)}
    summary(network)
    with pytest.raises(ValueError, match="broken"):
        summary(Toy(nnx.Rngs(0), broken=True))
    assert_same_bits(parameters(network), before)
    assert not network.norm.use_running_average
    assert {kind: kind.__call__ for kind in calls} == calls
    assert "__call__" not in vars(Heir)
    with pytest.raises(ValueError, match="depth is 0"):
        summary(network, depth=0)


# Who goes with which routing


class Plain(nnx.Module):
    """Takes no routing but the uniform one."""

    def __init__(self, config: Any, **sizes: Any):
        if not isinstance(config.routing, uniform.Config):
            raise ValueError("it is too plain")


def test_pairs_say_who_goes_with_whom_and_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    config = efficient_capsnet.Config(routing=uniform.Config())
    plain = Model(Plain, config, "", (Form("mnist", config, (28, 28, 1), 10, 0),))
    bare = SimpleNamespace()
    without = Model(Plain, bare, "", (Form("mnist", bare, (28, 28, 1), 10, 0),))
    monkeypatch.setitem(models.MODELS, "plain", plain)
    monkeypatch.setitem(models.MODELS, "cnn", without)
    found = models.pairs("capsnet", "plain", "cnn")
    assert list(found) == ["capsnet", "plain", "cnn"]
    assert found["capsnet"] == dict.fromkeys(ALGORITHMS)
    assert found["plain"] == {**dict.fromkeys(ALGORITHMS, "it is too plain"), "uniform": None}
    said = "it has no capsules to route"
    assert found["cnn"] == dict.fromkeys(ALGORITHMS, said)
