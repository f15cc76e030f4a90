"""CapsNet's hidden layers: what they pass on, what they start from, what they add in parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import models
from capsjax.models import capsnet
from tests.conftest import bare_config

SMALL: dict[str, Any] = {
    "features": 4,
    "kernel_size": 3,
    "primary_types": 1,
    "primary_dim": 6,
    "hidden": (5, 5, 5),
    "class_dim": 4,
    "decoder": False,
}
IMAGE, CLASSES, EXAMPLES = (9, 9, 1), 3, 7


def network(**options: Any) -> Any:
    config = capsnet.Config(**{**SMALL, **options})
    return models.create("capsnet", config=config, image_shape=IMAGE, num_classes=CLASSES)


def call(net: Any, images: np.ndarray) -> Any:
    """An output, compiled; running statistics stay as they are."""
    graph, state = nnx.split(net)
    run = jax.jit(lambda state, x: nnx.merge(graph, state, copy=True)(x))
    return run(state, jnp.asarray(images, jnp.float32))


def votes_of(layer: Any, poses: np.ndarray) -> np.ndarray:
    weights = np.asarray(layer.votes.weights[...], np.float64)
    return np.einsum("bia,ajdi->bjdi", poses, weights)


def normalised(poses: np.ndarray) -> np.ndarray:
    """Each capsule by its own mean and variance, over examples and entries."""
    centred = poses - poses.mean((0, 2), keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean((0, 2), keepdims=True) + 1e-10)
    return scaled / np.sqrt(poses.shape[-1])


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_hidden_layers_vote_with_what_was_chosen(
    normalise: bool, residual: bool, random: np.random.Generator
) -> None:
    net = network(hidden_normalise=normalise, hidden_residual=residual)
    routed = call(net, random.uniform(size=(EXAMPLES, *IMAGE))).routed
    assert len(routed) == 4
    below = None
    layers = (*net.hidden[1:], net.classes)
    for layer, hidden, above in zip(layers, routed[:-1], routed[1:], strict=True):
        poses = np.asarray(hidden.poses, np.float64)
        passed = normalised(poses) if normalise else poses
        below = passed + below if residual and below is not None else passed
        np.testing.assert_allclose(above.votes, votes_of(layer, below), rtol=2e-3, atol=1e-5)
        # What a layer says of itself is what its routing made.
        lengths = np.linalg.norm(poses, axis=-1)
        np.testing.assert_allclose(hidden.activations, lengths, rtol=1e-4)
        assert lengths.max() < 1


def test_normalised_poses_of_an_evaluation_are_those_of_the_running_statistics(
    random: np.random.Generator,
) -> None:
    net = network(hidden_normalise=True)
    net.eval()
    images = random.uniform(size=(EXAMPLES, *IMAGE))
    together, alone = call(net, images).poses, call(net, images[2:3]).poses
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("balanced", [True, False])
def test_hidden_layers_start_from_the_weights_chosen(balanced: bool) -> None:
    net = network(hidden=(40, 30), class_dim=8, hidden_balanced=balanced)
    # A normal cut at two standard deviations keeps 0.8796 of its own.
    sizes = [(9, 40), (40, 30), (30, CLASSES)]
    for layer, (children, parents) in zip((*net.hidden, net.classes), sizes, strict=True):
        stddev = parents / (children * 8) ** 0.5 if balanced else 0.1
        found = np.std(np.asarray(layer.votes.weights[...]))
        assert found == pytest.approx(0.8796 * stddev, rel=0.06)


def test_choices_of_hidden_layers_cost_no_parameters() -> None:
    # Convolutions with biases, 9 primary capsules of 6 dimensions, three hidden layers of 5
    # capsules of 4 dimensions, 3 classes.
    count = 9 * 4 + 4 + 9 * 4 * 6 + 6 + 9 * 5 * 6 * 4 + 2 * (5 * 5 * 4 * 4) + 5 * 3 * 4 * 4
    for options in ({}, {"hidden_normalise": True, "hidden_residual": True}):

        def make(options: dict[str, Any] = options) -> nnx.Module:
            return network(**options)

        assert models.count_parameters(nnx.eval_shape(make)) == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_normalise": True}, "hidden_normalise is set and there are no hidden capsules"),
        ({"hidden_residual": True}, r"hidden are \(\): give two layers or more, of one size"),
        ({"hidden_residual": True, "hidden": (8,)}, r"hidden are \(8,\): give two"),
        ({"hidden_residual": True, "hidden": (8, 9)}, r"hidden are \(8, 9\): give two"),
    ],
)
def test_choices_of_hidden_layers_that_are_not_there_raise(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bare_config(capsnet.Config, **options)
