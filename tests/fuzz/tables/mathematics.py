"""ops, losses, metrics and attacks: arrays in, arrays out."""

import jax
import jax.numpy as jnp
import numpy as np

from capsjax.analysis import attacks
from capsjax.ops import convolution, pooling, precision, votes, windows
from capsjax.ops.squash import safe_norm, squash, squash_exponential
from capsjax.training import losses, metrics
from tests.fuzz.judge import NEGATIVE, OVERFLOW, Row

_RANDOM = np.random.default_rng(0)
COUNTED = "an example with a NaN counts as wrong"


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(_RANDOM.normal(size=shape), jnp.float32)


def uniform(*shape: int) -> jax.Array:
    return jnp.asarray(_RANDOM.uniform(0.1, 0.9, shape), jnp.float32)


def _scores(image: jax.Array) -> jax.Array:
    return image.reshape(-1)[:3]


_POSES, _MATRICES = normal(2, 5, 4), normal(4, 3, 6, 5)
_MAPS, _KERNEL = normal(2, 6, 6, 3), normal(3, 3, 3, 4)
_LENGTHS, _TARGETS = uniform(3), jnp.array([0.0, 1.0, 0.0])
_IMAGE = uniform(4, 4, 1)
_KEY = jax.random.key(0)
_BALL = {"image": _IMAGE, "epsilon": 0.1}
_STEPS = {"step": 0.05, "num_steps": 2}
_CLASSES = {"targets": _TARGETS, "config": losses.Config()}

ROWS = [
    Row("squash", squash, {"x": normal(3, 4), "axis": -1}),
    Row("squash_exponential", squash_exponential, {"x": normal(3, 4), "axis": -1}),
    Row("safe_norm", safe_norm, {"x": normal(3, 4), "axis": 0, "keepdims": True}),
    Row("working_dtype", precision.working_dtype, {"dtype": "bfloat16"}, False),
    Row("dense_votes", votes.dense_votes, {"poses": _POSES, "weights": _MATRICES, "rows": 1},
        makes=OVERFLOW),
    Row("shared_votes", votes.shared_votes,
        {"poses": _POSES[:, None], "weights": _MATRICES, "rows": 1}, makes=OVERFLOW),
    Row("add_coordinates", votes.add_coordinates,
        {"votes": normal(2, 3, 4, 5), "coordinates": uniform(5, 2), "rows": 2}),
    Row("conv2d", convolution.conv2d,
        {"images": _MAPS, "kernel": _KERNEL, "stride": 1, "padding": "SAME"}, makes=OVERFLOW),
    Row("depthwise_conv2d", convolution.depthwise_conv2d,
        {"images": _MAPS, "kernel": normal(3, 3, 1, 3), "stride": 1}, makes=OVERFLOW),
    Row("max_pool", pooling.max_pool, {"images": _MAPS, "size": 2}),
    Row("windows_of", windows.windows_of,
        {"grid": _MAPS, "kernel_size": 2, "stride": 1, "padding": "VALID"}),
    Row("slots_of", windows.slots_of,
        {"shape": (4, 4, 2), "kernel_size": 2, "stride": 1, "padding": "VALID"}, False),
    Row("coordinates_of", windows.coordinates_of,
        {"shape": (4, 4, 2), "kernel_size": 2, "stride": 1, "padding": "SAME"}, False),
    Row("margin_loss", losses.margin_loss, {"lengths": _LENGTHS, **_CLASSES}, makes=OVERFLOW),
    Row("spread_loss", losses.spread_loss,
        {"activations": _LENGTHS, "margin": 0.5, **_CLASSES}, makes=OVERFLOW),
    Row("spread_margin", losses.spread_margin,
        {"step": 3, "total_steps": 10, "config": losses.Config()}),
    Row("cross_entropy", losses.cross_entropy,
        {"logits": _LENGTHS, "targets": _TARGETS}, makes=OVERFLOW),
    Row("negative_log_likelihood", losses.negative_log_likelihood,
        {"activations": _LENGTHS, "targets": _TARGETS},
        makes=NEGATIVE),
    Row("classification_loss", losses.classification_loss,
        {"activations": _LENGTHS, "logits": _LENGTHS, "margin": 0.9, **_CLASSES}, makes=OVERFLOW,
        hides="logits and margin are of other kinds of loss"),
    Row("reconstruction_loss", losses.reconstruction_loss,
        {"reconstruction": _IMAGE, "image": _IMAGE, "config": losses.Config()}),
    Row("accuracy", metrics.accuracy,
        {"activations": uniform(4, 3), "labels": jnp.array([0, 1, 2, 0])}, hides=COUNTED),
    Row("exact_match", metrics.exact_match,
        {"activations": uniform(2, 4), "labels": jnp.array([[0, 1], [2, 3]])}, hides=COUNTED),
    Row("confusion_matrix", metrics.confusion_matrix,
        {"predictions": jnp.array([0, 1]), "labels": jnp.array([1, 1]), "num_classes": 3}),
    Row("fgsm", attacks.fgsm, {"loss": lambda x: x.sum(), **_BALL}),
    Row("bim", attacks.bim, {"loss": lambda x: x.sum(), **_BALL, **_STEPS}),
    Row("pgd", attacks.pgd,
        {"loss": lambda x: x.sum(), "key": _KEY, "norm": "l2", **_BALL, **_STEPS}),
    Row("untargeted", lambda image, label: attacks.untargeted(_scores, label)(image),
        {"image": _IMAGE, "label": 1}, only=("label",)),
    Row("targeted", lambda image, label: attacks.targeted(_scores, label)(image),
        {"image": _IMAGE, "label": 1}, only=("label",)),
    Row("margin", lambda image, label: attacks.margin(_scores, label)(image),
        {"image": _IMAGE, "label": 1}, only=("label",)),
    Row("log_shares", attacks.log_shares, {"activations": _LENGTHS},
        makes=NEGATIVE),
    Row("vote_scores", attacks.vote_scores, {"votes": normal(3, 4, 5)}),
    Row("gradient_statistics", attacks.gradient_statistics, {"gradients": normal(2, 3)}),
]  # fmt: skip
