"""Training on eight devices equals training on one; run by ``test_parallel`` where there are eight.

In float64 it does to 1e-9. In float32 losses do to 1e-4, and parameters to 1e-4 of their array's
largest: Adam divides by the size of the gradient, so where that is nearly 0 its rounding shows.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from capsjax.data import augment, feeding, multi_mnist
from capsjax.data.dataset import Made
from capsjax.layers.dropout import Dropout
from capsjax.models import capsnet, efficient_capsnet
from capsjax.training import evaluation, loop, losses, parallel
from capsjax.training import step as training_step
from tests.training.small import Level, Pair, assert_same_bits, digits, flat_images, pairs_of

BATCH = 16
SHAPE, CLASSES = (16, 16, 1), 3

NETWORKS: dict[str, Callable[[], nnx.Module]] = {
    "capsnet": lambda: capsnet.Network(
        capsnet.Config(features=8, kernel_size=5, primary_types=2, decoder_widths=(16,)),
        image_shape=SHAPE,
        num_classes=CLASSES,
        rngs=nnx.Rngs(params=0),
    ),
    "batch-normalised": lambda: efficient_capsnet.Network(
        efficient_capsnet.Config(
            features=(4, 4, 4, 8),
            kernel_sizes=(3, 3, 3, 3),
            primary_dim=4,
            class_dim=4,
            decoder_widths=(16,),
        ),
        image_shape=SHAPE,
        num_classes=CLASSES,
        rngs=nnx.Rngs(params=0),
    ),
}


def pictures(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (count, *SHAPE), np.uint8),
        "label": random.integers(0, CLASSES, count, np.int32),
    }


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def scale(images: jax.Array) -> jax.Array:
        return images.astype(request.param) / 255

    monkeypatch.setattr(augment, "to_unit_interval", scale)
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


def in_dtype(network: nnx.Module, dtype: Any) -> nnx.Module:
    graph, state = nnx.split(network)
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
    return nnx.merge(graph, jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, state))


def arrays(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_close_histories(found: loop.Result, expected: loop.Result, tolerance: float) -> None:
    for ours, theirs in zip(found.history, expected.history, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"split"}:
            # Those of activations are taken in float32.
            near = max(tolerance, 1e-6) if key.startswith(("dead", "activation_")) else tolerance
            assert ours[key] == pytest.approx(theirs[key], rel=near, abs=1e-12), key


@pytest.mark.parametrize("name", NETWORKS)
def test_twenty_steps_equal_those_of_one_device(name: str, dtype: Any) -> None:
    tolerance = 1e-4 if dtype == jnp.float32 else 1e-9
    config = loop.Config(
        epochs=4,
        batch_size=BATCH,
        validation=21,
        layer_metrics=True,
        schedule="recipe",  # Optax computes the cosine in float32, and its rounding may differ
    )
    eight, one = (
        loop.fit(in_dtype(NETWORKS[name](), dtype), pictures(101), config, devices=devices)
        for devices in (8, 1)
    )
    assert eight.steps == 20
    assert_close_histories(eight, one, tolerance)
    assert eight.validation_error == one.validation_error
    for place in (lambda result: result.state, lambda result: nnx.state(result.model)):
        for found, expected in zip(arrays(place(eight)), arrays(place(one)), strict=True):
            assert found.dtype == expected.dtype
            largest = np.max(np.abs(expected), initial=1e-12)
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * largest)
    mesh = parallel.make_mesh(8, BATCH)
    for leaf in jax.tree.leaves(eight.state):
        assert leaf.sharding == NamedSharding(mesh, P())
        copies = {np.asarray(shard.data).tobytes() for shard in leaf.addressable_shards}
        assert len(copies) == 1
    for leaf in jax.tree.leaves(nnx.state(eight.model)):
        assert len(leaf.sharding.device_set) == 1


def collectives(name: str, **options: Any) -> tuple[dict[str, list[int]], int]:
    """Bytes of each collective in the compiled step, by kind, and bytes of the parameters."""
    mesh = parallel.make_mesh(8, BATCH)
    graph, params, rest = training_step.split(NETWORKS[name]())
    optimizer = optax.adam(1e-3)
    step = training_step.make_step(
        graph,
        optimizer,
        num_classes=CLASSES,
        limit=2,
        loss=losses.Config(),
        key=jax.random.key(0),
        mesh=mesh,
        **options,
    )
    state = training_step.State(params, rest, optimizer.init(params), jnp.zeros((), jnp.int32))
    images, labels = (pictures(BATCH)[key] for key in ("image", "label"))
    text = (
        jax.jit(step)
        .lower(
            parallel.replicate(state, mesh), *jax.device_put((images, labels), parallel.cut(mesh))
        )
        .compile()
        .as_text()
    )
    found: dict[str, list[int]] = {}
    kinds = (
        "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast"
    )
    for shapes, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text):
        sizes = [
            np.prod([int(number) for number in axes.split(",") if number], dtype=int)
            for axes in re.findall(r"\w+\[([\d,]*)\]", shapes)
        ]
        found.setdefault(kind, []).append(4 * int(sum(sizes)))
    return found, sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def test_a_step_communicates_its_gradients_and_four_metrics_once() -> None:
    found, size = collectives("capsnet")
    assert found.keys() == {"all-reduce"}
    assert sum(found["all-reduce"]) == size + 4 * 4


def test_batch_normalisation_adds_its_statistics() -> None:
    found, size = collectives("batch-normalised")
    assert found.keys() == {"all-reduce"}
    # Mean and mean square of 4 + 4 + 4 + 8 features, and their gradients.
    assert sum(found["all-reduce"]) == size + 4 * 4 + 2 * 2 * 20 * 4


def test_dropout_draws_what_it_draws_on_one_device() -> None:
    values = jnp.ones((BATCH, 5))
    expected = Dropout(0.5, rngs=nnx.Rngs(params=0))(values)
    layer = Dropout(0.5, rngs=nnx.Rngs(params=0))
    parallel.name_axis(layer)
    graph, state = nnx.split(layer)

    def drop(state: Any, values: jax.Array) -> jax.Array:
        return nnx.merge(graph, state, copy=True)(values)

    found = parallel.by_example(drop, parallel.make_mesh(8, BATCH))(state, values)
    assert_same_bits(found, expected)


BASE = digits(64)
MADE = Made(multi_mnist.example, multi_mnist.PAPER, 7, multi_mnist.prepare)


@pytest.mark.parametrize(
    "way", [{}, {"stream": True}, {"made": MADE}], ids=["held", "streamed", "made"]
)
def test_batches_are_those_of_one_device_and_cut_along_the_mesh(way: dict[str, Any]) -> None:
    mesh = parallel.make_mesh(8, BATCH)
    order = feeding.Order(len(BASE["label"]), BATCH, jax.random.key(3))
    cut = list(feeding.batches(BASE, order, 2, 6, mesh=mesh, **way))
    whole = list(feeding.batches(BASE, order, 2, 6, **way))
    assert len(cut) == len(whole) == 4
    for found, expected in zip(cut, whole, strict=True):
        assert_same_bits(dict(found), dict(expected))
        assert all(array.sharding == parallel.cut(mesh) for array in found.values())


@pytest.mark.parametrize("feed", ["device", "stream"])
def test_sources_are_reconstructed_as_on_one_device(feed: loop.Feed) -> None:
    data = pairs_of([(0, 1), (2, 3)] * 20, [(0, 1), (2, 1)] * 20)
    config = loop.Config(epochs=3, batch_size=8, validation=8, learning_rate=0.1, limit=32)
    eight, one = (
        loop.fit(Pair(), data, config, devices=devices, feed=feed) for devices in (8, None)
    )
    assert_close_histories(eight, one, 1e-5)


RUN = {"batch_size": 8, "validation": 4, "learning_rate": 0.1, "schedule": "recipe", "shift": 1}


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8), (8, 4)])
def test_a_run_goes_on_with_another_number_of_devices(
    tmp_path: Path, before: int, after: int
) -> None:
    data = flat_images(range(8, 248, 5), label=0)
    straight = loop.fit(Level(), data, loop.Config(epochs=4, **RUN))
    loop.fit(Level(), data, loop.Config(epochs=2, **RUN), workdir=tmp_path, devices=before)
    found = loop.fit(Level(), data, loop.Config(epochs=4, **RUN), workdir=tmp_path, devices=after)
    assert_close_histories(found, straight, 1e-5)
    for ours, theirs in zip(arrays(found.state), arrays(straight.state), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    devices = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(found.state)}
    assert devices == {after}


def test_a_loss_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    data = flat_images(range(8, 248, 5), label=0)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1"):
        loop.fit(Level(np.nan), data, loop.Config(**RUN), devices=8)


@pytest.mark.parametrize("count", [1, 8, 100, 103, 217])
def test_predictions_are_those_of_one_device(count: int) -> None:
    network = NETWORKS["batch-normalised"]()
    images = pictures(count)["image"]
    one = evaluation.predict(network, images, reconstruct=True)
    eight = evaluation.predict(network, images, reconstruct=True, mesh=parallel.make_mesh(8, BATCH))
    np.testing.assert_array_equal(eight.labels, one.labels)
    for found, expected in ((eight[1], one[1]), (eight[2], one[2])):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (5, "batch_size is 8, which 5 devices cannot share evenly: expected a multiple of 5"),
        (9, "devices is 9, expected 1 to 8, .*--xla_force_host_platform_device_count=9 "),
        (0, "devices is 0, expected 1 to 8"),
    ],
)
def test_devices_that_are_not_there_or_do_not_divide_the_batch(devices: int, said: str) -> None:
    data = flat_images(range(8, 248, 5), label=0)
    with pytest.raises(ValueError, match=said):
        loop.fit(Level(), data, loop.Config(**RUN), devices=devices)
