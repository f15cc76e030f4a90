"""What is seen in a network's layers, from a history by hand and from a network by NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import models
from capsjax.models import capsnet
from experiments import layers_seen


def entry(step: int, split: str = "train") -> dict[str, Any]:
    norms = {"hidden.1": 3.0, "classes": 4.0 + step, "primary": 2.0, "hidden.0": 0.0}
    return {"step": step, "split": split, **{f"gradient_norm/{k}": v for k, v in norms.items()}}


def test_parts_go_from_the_images_to_the_classes() -> None:
    history = [{"step": 0, "split": "validation", "error": 0.5}, entry(1)]
    assert layers_seen.parts(history) == ["primary", "hidden.0", "hidden.1", "classes"]


def test_gradient_norms_are_means_over_the_first_steps_and_over_spans() -> None:
    history = [entry(0, "validation"), *(entry(step) for step in range(40))]
    found = layers_seen.gradient_norms(history)
    assert found["primary"] == {"first": 2.0, "spans": [2.0] * 20}
    assert found["hidden.0"]["first"] == 0
    assert found["classes"]["first"] == 8.5  # of 4 to 13
    assert found["classes"]["spans"] == [4.5 + 2 * span for span in range(20)]


def test_a_short_training_has_fewer_spans() -> None:
    found = layers_seen.gradient_norms([entry(0), entry(1)])
    assert found["classes"] == {"first": 4.5, "spans": [4.0, 5.0]}


@pytest.fixture(scope="module")
def network() -> Any:
    config = capsnet.Config(
        features=4,
        kernel_size=3,
        primary_types=1,
        primary_dim=6,
        hidden=(5,),
        hidden_normalise=True,
        class_dim=4,
        decoder=False,
    )
    return models.create("capsnet", config=config, image_shape=(9, 9, 1), num_classes=3)


def test_layers_are_those_of_the_network_on_all_images(
    network: Any, random: np.random.Generator
) -> None:
    images = random.integers(0, 256, (7, 9, 9, 1)).astype(np.uint8)
    found = layers_seen.look(network, images, batch=3)
    assert network.normalisations[0].norm.use_running_average is not True  # left as it was

    network.eval()
    scaled = jnp.asarray(images, jnp.float32) / 255
    primary, routed = jax.jit(
        lambda x: (network.primary(jax.nn.relu(network.convolution(x))), network(x).routed)
    )(scaled)
    lengths = [np.asarray(primary.activations).reshape(7, -1)]
    lengths += [np.asarray(each.activations) for each in routed]
    np.testing.assert_allclose(found["mean_length"], [x.mean() for x in lengths], rtol=1e-3)
    dead = [(x.mean(0) < 0.01).mean() for x in lengths]
    np.testing.assert_allclose(found["dead_share"], dead, rtol=1e-3)
    assert found["still_share"] == [0, 0, 0]
    for layer, each in enumerate(routed):
        coefficients = np.asarray(each.coefficients, np.float64)
        variance = ((coefficients - coefficients.mean(0)) ** 2).mean()
        assert variance > 0
        assert found["coefficient_variance"][layer] == pytest.approx(variance, rel=1e-2)
        even = 1 / coefficients.shape[1]
        deviation = found["coefficient_deviation"][layer]
        assert deviation == pytest.approx(variance**0.5 / even, rel=1e-2)
        share = found["image_share"][layer]
        assert share == pytest.approx(variance / coefficients.var(), rel=1e-2)


def test_a_capsule_is_still_if_no_image_moves_it(network: Any, random: np.random.Generator) -> None:
    same = np.repeat(random.integers(0, 256, (1, 9, 9, 1)).astype(np.uint8), 4, axis=0)
    assert layers_seen.look(network, same)["still_share"] == [1, 1, 1]
    # Lengths of about 10 that vary by 0.05 and by 0.2, and one that is dead but varies.
    poses = random.normal(0, 1, (1000, 3, 1)) * [[0.05], [0.2], [1e-6]] + [[10.0], [10.0], [0.0]]
    assert layers_seen._still_share(poses) == pytest.approx(1 / 3)
