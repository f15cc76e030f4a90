"""The small residual network: what its head makes of the features, and what it refuses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import models
from capsjax.models import small_resnet
from tests.conftest import bare_config

CONFIG = small_resnet.Config(widths=(4, 8), blocks=(1, 1))
NARROW: dict[str, tuple[Any, tuple[int, int, int]]] = {"small_resnet": (CONFIG, (12, 12, 1))}


def test_logits_are_linear_in_the_mean_over_the_map(random: np.random.Generator) -> None:
    network: Any = models.create(
        "small_resnet", config=CONFIG, image_shape=(7, 6, 2), num_classes=3
    )
    network.eval()
    images = jnp.asarray(random.uniform(size=(2, 7, 6, 2)), jnp.float32)
    output, features = jax.jit(lambda x: (network(x), network.trunk(x)))(images)
    features = np.asarray(features, np.float64)
    assert features.shape == (2, 4, 3, 8)
    kernel, bias = (np.asarray(x[...]) for x in (network.linear.kernel, network.linear.bias))
    logits = features.sum((1, 2)) / 12 @ kernel + bias
    np.testing.assert_allclose(output.logits, logits, rtol=1e-4, atol=1e-5)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(output.activations, shares, rtol=1e-4, atol=1e-5)
    assert (output.poses, output.reconstruction, output.routed) == (None, None, ())


def test_the_default_shortcut_has_parameters_and_the_paper_s_has_none() -> None:
    def create(shortcut: Any) -> Any:
        config = small_resnet.Config(widths=(4, 8), blocks=(1, 1), shortcut=shortcut)
        return jax.eval_shape(lambda: models.create("small_resnet", config=config))

    # 1x1 from 4 to 8 features, with a scale and an offset for each.
    difference = models.count_parameters(create("B")) - models.count_parameters(create("A"))
    assert difference == 4 * 8 + 2 * 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"widths": (4,)}, r"widths are \(4,\) and blocks \(3, 3, 3\), expected as many of each"),
        ({"blocks": (1, 0, 1)}, r"blocks are \(1, 0, 1\), expected at least 1 each"),
        ({"shortcut": "C"}, "shortcut is 'C', expected one of: 'A', 'B'"),
    ],
)
def test_choices_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bare_config(small_resnet.Config, **options)


def test_a_routing_is_refused_where_there_are_no_capsules() -> None:
    with pytest.raises(ValueError, match="small_resnet has no capsules to route"):
        models.create("small_resnet", routing="dynamic")
