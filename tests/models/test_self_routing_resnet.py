"""Self-routing on a residual network: heads, what each routing is given, class capsules, depth."""

from dataclasses import replace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from capsjax import Capsules, models
from capsjax.layers import DenseCapsules
from capsjax.models import self_routing_resnet
from capsjax.routing import dynamic, em, self_routing, uniform, variational_bayes
from tests.conftest import bare_config
from tests.reference import self_routing as reference

SHAPE = (4, 3, 1)
CONFIG = self_routing_resnet.Config(widths=(4,), blocks=(1,), types=3, dim=4)
NARROW: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "self_routing_resnet": (replace(CONFIG, widths=(4, 8), blocks=(1, 1)), (12, 12, 1))
}


def create(config: Any = CONFIG, **options: Any) -> Any:
    options = {"image_shape": SHAPE, "num_classes": 3, **options}
    return models.create("self_routing_resnet", config=config, **options)


def abstract(config: Any) -> Any:
    return nnx.eval_shape(lambda: create(config))


def normalised(layer: Any, features: Any) -> np.ndarray:
    """A 3x3 convolution, in evaluation with fresh statistics: normalisation divides by 1 + 1e-5."""
    out = lax.conv_general_dilated(
        features,
        layer.convolution.kernel[...],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    if layer.convolution.bias is not None:
        out = out + layer.convolution.bias[...].reshape(1, 1, 1, -1)
    return np.asarray(out, np.float64) / np.sqrt(1 + 1e-5)


class _Same(nnx.Module):
    """Features as they are, in place of a trunk."""

    def __call__(self, x: Any) -> Any:
        return x


def outputs(network: Any, random: np.random.Generator) -> tuple[Any, np.ndarray]:
    """Of the head in evaluation, and the features that it was given."""
    network.eval()
    features = jnp.asarray(random.normal(size=(2, 4, 3, 4)), jnp.float32)
    network.trunk = _Same()
    network.image_shape = features.shape[1:]
    return jax.jit(lambda x: network(x))(features), np.asarray(features)


def test_class_capsules_are_the_self_routed_primary_capsules(random: np.random.Generator) -> None:
    network = create()
    params = network.head.classes.routing.params
    for name in ("kernel", "bias"):
        shape = params[name].shape
        params[name][...] = jnp.asarray(random.normal(size=shape), jnp.float32)
    output, features = outputs(network, random)
    poses = normalised(network.head.poses, features).reshape(2, 36, 4)
    logits = normalised(network.head.activations, features).reshape(2, 36)
    arrays = {name: np.asarray(params[name][...], np.float64) for name in params}
    for example in range(2):
        # Votes are the poses themselves, for every parent.
        votes = np.stack([poses[example].T] * 3)
        activations = 1 / (1 + np.exp(-logits[example]))
        expected = reference.route(votes, poses[example], activations, arrays)
        np.testing.assert_allclose(output.poses[example], expected.poses, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(output.activations[example], expected.activations, rtol=1e-4)
        np.testing.assert_allclose(output.routed[0].votes[example], votes, rtol=1e-4, atol=1e-5)
    assert output.logits is None


def test_votes_without_a_transformation_need_poses_of_the_parents_dimension() -> None:
    def layer(dim: int) -> DenseCapsules:
        return DenseCapsules(
            5, 4, 3, dim, config=uniform.Config(), transform=False, rngs=nnx.Rngs(params=0)
        )

    with pytest.raises(ValueError, match="poses have dimension 4 below and 6 here, expected the"):
        layer(6)
    assert models.count_parameters(layer(4)) == 0
    poses = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4)), jnp.float32)
    votes = jax.jit(layer(4))(Capsules(poses, jnp.ones((2, 5)))).votes
    np.testing.assert_array_equal(votes, np.stack([np.swapaxes(poses, 1, 2)] * 3, axis=1))


@pytest.mark.parametrize(
    ("routing", "squashed", "weights"),
    [
        # [inner, parents, columns, children]
        (dynamic.Config(), True, (4, 3, 4, 36)),
        (em.Config(), False, (2, 3, 2, 36)),
        (variational_bayes.Config(), False, (2, 3, 2, 36)),
        (uniform.Config(), True, (4, 3, 4, 36)),
    ],
)
def test_children_are_what_their_routing_looks_at(
    routing: Any, squashed: bool, weights: tuple[int, ...]
) -> None:
    head = abstract(replace(CONFIG, routing=routing)).head
    assert head.classes.votes.weights.shape == weights
    assert (head.activations is None) == squashed
    vectors = abstract(replace(CONFIG, routing=routing, matrix=False)).head
    assert vectors.classes.votes.weights.shape == (4, 3, 4, 36)


def test_poses_are_squashed_for_dynamic_routing(random: np.random.Generator) -> None:
    network = create(replace(CONFIG, routing=dynamic.Config()))
    output, features = outputs(network, random)
    poses = normalised(network.head.poses, features).reshape(2, 36, 4)
    squares = np.square(poses).sum(-1, keepdims=True)
    squashed = squares / (1 + squares) * poses / np.sqrt(squares)
    weights = np.asarray(network.head.classes.votes.weights[...], np.float64)
    votes = np.einsum("bia,ajdi->bjdi", squashed, weights)
    np.testing.assert_allclose(output.routed[0].votes, votes, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("head", ["average", "max", "dense"])
def test_heads_without_capsules_give_logits(random: np.random.Generator, head: Any) -> None:
    network = create(replace(CONFIG, head=head))
    if head == "dense":
        bias = network.head.convolution.convolution.bias
        bias[...] = jnp.asarray(random.normal(size=bias.shape), jnp.float32)
    output, features = outputs(network, random)
    if head == "average":
        seen = features.sum((1, 2)) / 12
    elif head == "max":
        seen = features.max((1, 2))
    else:
        seen = np.maximum(normalised(network.head.convolution, features), 0).reshape(2, 144)
    linear = network.head.linear
    logits = seen @ np.asarray(linear.kernel[...]) + np.asarray(linear.bias[...])
    np.testing.assert_allclose(output.logits, logits, rtol=1e-3, atol=1e-4)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(output.activations, shares, rtol=1e-3, atol=1e-4)
    assert (output.poses, output.reconstruction, output.routed) == (None, None, ())


@pytest.mark.parametrize(
    ("routing", "norms"), [(self_routing.Config(), 2), (em.Config(), 2), (dynamic.Config(), 0)]
)
def test_depth_adds_convolutional_layers_of_which_the_first_halves(
    routing: Any, norms: int
) -> None:
    config = replace(CONFIG, depth=3, routing=routing)
    network = abstract(config)
    assert [layer.out_shape for layer in network.head.hidden] == [(2, 2, 3), (2, 2, 3)]
    assert len(network.head.norms) == norms
    images = jax.ShapeDtypeStruct((2, *SHAPE), jnp.float32)
    output = nnx.eval_shape(lambda x: create(config)(x, trace=True), images)
    shapes = [routed.poses.shape for routed in output.routed]
    assert shapes == [(2, 2, 2, 3, 4), (2, 2, 2, 3, 4), (2, 3, 4)]
    assert all(routed.trace is not None for routed in output.routed)
    chex.assert_shape(output.activations, (2, 3))


def test_hidden_poses_are_normalised_over_the_batch(random: np.random.Generator) -> None:
    network = create(replace(CONFIG, depth=2))
    images = jnp.asarray(random.uniform(size=(4, *SHAPE)), jnp.float32)
    output = nnx.jit(lambda network, x: network(x))(network, images)
    hidden, classes = output.routed
    flat = np.asarray(hidden.poses, np.float64).reshape(16, 12)
    expected = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    # The class capsules' votes are their children's poses.
    found = np.swapaxes(classes.votes[:, 0], 1, 2).reshape(16, 12)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"head": "mean"},
            "head is 'mean', expected one of: 'capsules', 'average', 'max', 'dense'",
        ),
        ({"over": "none"}, "over is 'none'"),
        ({"types": 0}, "types is 0"),
        ({"depth": 0}, "depth is 0"),
        ({"blocks": (3, 3)}, r"widths are \(16, 32, 64\) and blocks \(3, 3\), expected as many"),
        ({"routing": 3}, "routing is 3"),
        ({"dim": 8, "routing": em.Config()}, "poses have dimension 8 below and 8 here, expected"),
        ({"dim": 8, "matrix": True}, "poses have dimension 8 below and 8 here, expected"),
        (
            {"head": "max", "depth": 2},
            "head is 'max', which has no capsules to route, beside depth",
        ),
        ({"head": "max", "routing": em.Config()}, "head is 'max', which has no capsules to route"),
    ],
)
def test_choices_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bare_config(self_routing_resnet.Config, **options)
