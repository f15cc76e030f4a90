"""Inverted attention on a residual network: both modes against loops in NumPy, refusals."""

import math
from dataclasses import replace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import models
from capsjax.models import inverted_attention_resnet
from capsjax.routing import convergence, dynamic, inverted_attention, self_attention
from tests.conftest import bare_config

SHAPE, CLASSES = (4, 4, 1), 3
CONFIG = inverted_attention_resnet.Config(widths=(2,), blocks=(1,), types=2, dim=4, strides=(1,))
NARROW: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "inverted_attention_resnet": (
        replace(CONFIG, widths=(4,), types=4, strides=(2, 1)),
        (11, 11, 1),
    )
}


def create(config: Any = CONFIG, **options: Any) -> Any:
    options = {"image_shape": SHAPE, "num_classes": CLASSES, **options}
    return models.create("inverted_attention_resnet", config=config, **options)


def iterated(count: int, **options: Any) -> Any:
    return replace(CONFIG, routing=inverted_attention.Config(num_iterations=count), **options)


def stirred(config: Any, random: np.random.Generator) -> Any:
    """In evaluation, its normalisations' scales and offsets not 1 and 0, its votes large."""
    network = create(config)
    network.eval()
    learned = [network.primary_norm.scale, network.primary_norm.bias]
    for layer in network.layers:
        learned += [layer.routing.params["scale"], layer.routing.params["offset"]]
        layer.votes.weights[...] = 5 * layer.votes.weights[...]
    for variable in learned:
        drawn = random.normal(1, 0.5, size=variable.shape)
        variable[...] = jnp.asarray(drawn, jnp.float32)
    return network


def array(variable: Any) -> np.ndarray:
    return np.asarray(variable[...], np.float64)


def layer_norm(x: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5) * scale + offset


# The grid of 4x4x2 primary capsules under windows of 3x3: the children in each of 2x2 windows, in
# the order of its slots.
WINDOWS = [
    [(row + a, column + b, kind) for a in range(3) for b in range(3) for kind in range(2)]
    for row in range(2)
    for column in range(2)
]


def votes_of(children: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """2x2 matrices times 2x2 matrices ``[inner, parents, columns, children]``: [parents, 4, n]."""
    votes = np.zeros((weights.shape[1], 4, len(children)))
    for i, pose in enumerate(children):
        for j in range(weights.shape[1]):
            votes[j, :, i] = (pose.reshape(2, 2) @ weights[:, j, :, i]).reshape(4)
    return votes


def attended(
    groups: list[np.ndarray],
    keys: list[list[Any]],
    before: list[np.ndarray] | None,
    layer: Any,
    over: str,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """One iteration: poses [parents, 4] and coefficients [parents, n] of each window.

    ``groups`` are each window's votes and ``keys`` say which child of the grid cast each; one that
    is in several windows shares itself out among their parents ("all"), or anew in each.
    """
    exponentials = []
    for window, votes in enumerate(groups):
        parents, _, count = votes.shape
        logits = np.zeros((parents, count))
        for j in range(parents):
            for i in range(count):
                if before is not None:
                    logits[j, i] = before[window][j] @ votes[j, :, i] / math.sqrt(4)
        exponentials.append(np.exp(logits))
    scale, offset = (array(layer.routing.params[name]) for name in ("scale", "offset"))
    poses, coefficients = [], []
    for window, votes in enumerate(groups):
        shares = np.zeros(exponentials[window].shape)
        for i, key in enumerate(keys[window]):
            total = sum(
                exponentials[other][:, keys[other].index(key)].sum()
                for other in range(len(groups))
                if key in keys[other] and (over == "all" or other == window)
            )
            shares[:, i] = exponentials[window][:, i] / total
        coefficients.append(shares)
        sums = [votes[j] @ shares[j] for j in range(len(votes))]
        poses.append(np.stack([layer_norm(s, scale, offset) for s in sums]))
    return poses, coefficients


class Oracle:
    """Both layers of the narrow network, for one example's primary capsules ``[4, 4, 2, 4]``."""

    def __init__(self, network: Any, primary: np.ndarray, over: str):
        self.layers, self.primary, self.over = network.layers, primary, over

    def convolutional(self, before: Any) -> Any:
        weights = array(self.layers[0].votes.weights)
        groups = [votes_of([self.primary[key] for key in keys], weights) for keys in WINDOWS]
        return attended(groups, WINDOWS, before, self.layers[0], self.over)

    def classes(self, below: list[np.ndarray], before: Any) -> Any:
        children = [pose for window in below for pose in window]
        votes = votes_of(children, array(self.layers[1].votes.weights))
        return attended([votes], [list(range(8))], before, self.layers[1], "all")

    def concurrent(self, count: int) -> tuple[list[Any], list[Any]]:
        """Every iteration of each layer."""
        lower = [self.convolutional(None)]
        upper = [self.classes(lower[0][0], None)]
        for t in range(1, count):
            lower.append(self.convolutional(lower[t - 1][0]))
            upper.append(self.classes(lower[t - 1][0], upper[t - 1][0]))
        return lower, upper

    def sequential(self, count: int) -> tuple[list[Any], list[Any]]:
        lower, upper = [self.convolutional(None)], []
        for t in range(1, count):
            lower.append(self.convolutional(lower[t - 1][0]))
        for t in range(count):
            upper.append(self.classes(lower[-1][0], upper[t - 1][0] if t else None))
        return lower, upper


@pytest.mark.parametrize(
    ("mode", "over"), [("concurrent", "all"), ("concurrent", "position"), ("sequential", "all")]
)
def test_every_iteration_is_the_one_by_hand(
    random: np.random.Generator, mode: Any, over: Any
) -> None:
    network = stirred(iterated(3, mode=mode, over=over), random)
    images = jnp.asarray(random.uniform(size=(2, *SHAPE)), jnp.float32)
    output, features = jax.jit(
        lambda x: (network(x, trace=True), network.primary(network.trunk(x)))
    )(images)
    norm = network.primary_norm
    readout = network.layers[1].routing.readout.linear
    for example in range(2):
        poses = np.asarray(features[example], np.float64).reshape(-1, 4)
        primary = [layer_norm(pose, array(norm.scale), array(norm.bias)) for pose in poses]
        oracle = Oracle(network, np.stack(primary).reshape(4, 4, 2, 4), over)
        iterations = getattr(oracle, mode)(3)
        for routed, expected in zip(output.routed, iterations, strict=True):
            for t, (parents, coefficients) in enumerate(expected):
                found = jax.tree.map(lambda x: x[example, t], routed.trace)  # noqa: B023
                shape = found.poses.shape
                np.testing.assert_allclose(
                    found.poses, np.stack(parents).reshape(shape), rtol=1e-3, atol=2e-4
                )
                np.testing.assert_allclose(
                    found.coefficients,
                    np.stack(coefficients).reshape(found.coefficients.shape),
                    rtol=2e-3,
                    atol=1e-5,
                )
        last = iterations[1][-1][0][0]
        np.testing.assert_allclose(output.poses[example], last, rtol=1e-3, atol=2e-4)
        logits = last @ array(readout.kernel)[:, 0] + array(readout.bias)[0]
        np.testing.assert_allclose(output.logits[example], logits, rtol=1e-3, atol=5e-4)
        np.testing.assert_allclose(
            output.activations[example], 1 / (1 + np.exp(-logits)), rtol=1e-3, atol=5e-4
        )


def test_one_iteration_is_the_same_in_both_modes_and_two_are_not(
    random: np.random.Generator,
) -> None:
    images = jnp.asarray(random.uniform(size=(2, *SHAPE)), jnp.float32)

    def logits(count: int) -> list[np.ndarray]:
        found = []
        for mode in ("concurrent", "sequential"):
            network = create(iterated(count, mode=mode))
            network.eval()
            found.append(np.asarray(jax.jit(network)(images).logits))
        return found

    once = logits(1)
    np.testing.assert_array_equal(*once)
    twice = logits(2)
    assert np.abs(twice[0] - twice[1]).max() > 1e-4


def test_weights_start_as_in_the_authors_code() -> None:
    network = create(replace(CONFIG, types=16), image_shape=(6, 6, 1))
    convolutional, classes = (array(layer.votes.weights) for layer in network.layers)
    # sqrt(parents / (rows of a matrix * children)): 3x3 windows of 16, then 4x4x16 capsules.
    np.testing.assert_allclose(convolutional.std(), math.sqrt(16 / (2 * 144)), rtol=0.05)
    np.testing.assert_allclose(classes.std(), math.sqrt(3 / (2 * 256)), rtol=0.05)


def test_only_the_class_capsules_have_a_readout() -> None:
    config = replace(CONFIG, hidden=(5,))
    network = nnx.eval_shape(lambda: create(config))
    flat = nnx.to_flat_state(nnx.state(network, nnx.Param))
    linear = ["/".join(map(str, path)) for path, _ in flat if "linear" in path]
    assert linear == [f"layers/2/routing/readout/linear/{name}" for name in ("bias", "kernel")]
    # A child sees 3x3 windows of 2 types, then 2x2x2 capsules, then 5; all dimensions are 4.
    layers = 18 * 2 * 4 + 8 * 5 * 4 + 5 * CLASSES * 4 + 3 * 2 * 4
    head = 2 * 8 + 2 * 4 + 4 + 1
    trunk = models.count_parameters(network.trunk)
    assert models.count_parameters(network) == trunk + head + layers
    images = jax.ShapeDtypeStruct((2, *SHAPE), jnp.float32)
    output = nnx.eval_shape(lambda x: create(config)(x), images)
    assert [routed.activations is None for routed in output.routed] == [True, True, False]
    assert [routed.poses.shape for routed in output.routed] == [
        (2, 2, 2, 2, 4),
        (2, 5, 4),
        (2, CLASSES, 4),
    ]
    assert output.routed[0].trace is None


@pytest.mark.parametrize(
    ("routing", "mode"),
    [("dynamic", "concurrent"), ("dynamic", "sequential"), ("self_attention", "sequential")],
)
def test_another_routing_may_take_its_place(routing: str, mode: Any) -> None:
    images = jax.ShapeDtypeStruct((2, *SHAPE), jnp.float32)

    def run(images: Any) -> Any:
        return create(replace(CONFIG, mode=mode), routing=routing)(images, trace=True)

    output = nnx.eval_shape(run, images)
    chex.assert_shape(output.activations, (2, CLASSES))
    assert output.logits is None
    count = 3 if routing == "dynamic" else 1
    assert [routed.trace.poses.shape[1] for routed in output.routed] == [count, count]


USABLE = "dynamic, self_attention, inverted_attention, uniform, random_coupling"


@pytest.mark.parametrize("name", ["em", "variational_bayes", "self_routing"])
def test_a_routing_that_looks_at_activations_is_refused(name: str) -> None:
    said = f"routing is '{name}', which looks at its children's activations, and .*: {USABLE}$"
    with pytest.raises(ValueError, match=said):
        create(routing=name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strides": ()}, "mode is 'concurrent' and the class capsules are the only layer"),
        (
            {"routing": self_attention.Config()},
            "routing 'self_attention', which has no iterations .* one of: dynamic, inverted_att",
        ),
        (
            {
                "routing": dynamic.Config(loop=convergence.Loop(gradient="last_iteration")),
            },
            "mode is 'concurrent' and the routing's loop .* expected no tolerance and the unrolled",
        ),
        ({"strides": (0,)}, r"strides are \(0,\), expected at least 1 each"),
        ({"hidden": (0,)}, r"hidden are \(0,\), expected at least 1 each"),
        ({"kernel_size": 0}, "kernel_size is 0"),
        ({"mode": "parallel"}, "mode is 'parallel', expected one of: 'concurrent', 'sequential'"),
        ({"over": "none"}, "over is 'none'"),
        ({"padding": "FULL"}, "padding is 'FULL'"),
        ({"dim": 8}, "poses have dimension 8 below and 8 here, expected the same square number"),
        ({"blocks": (1,)}, r"widths are \(64, 128\) and blocks \(1,\), expected as many"),
        ({"routing": 3}, "routing is 3"),
    ],
)
def test_choices_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bare_config(inverted_attention_resnet.Config, **options)


def test_what_is_refused_in_concurrent_mode_is_taken_sequentially() -> None:
    config = inverted_attention_resnet.Config
    assert config(strides=(), mode="sequential").strides == ()
    assert config(routing=self_attention.Config(), mode="sequential").dim == 16
    assert config(strides=(), hidden=(5,)).mode == "concurrent"
    assert config(matrix=False, dim=8).dim == 8


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(
        ValueError, match="a grid of 2x2 capsules is smaller than the window of 3x3"
    ):
        create(image_shape=(2, 2, 1))
    with pytest.raises(ValueError, match="num_classes is 1"):
        create(num_classes=1)
