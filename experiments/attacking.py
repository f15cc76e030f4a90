"""Attacks on a trained network: attacked images, what it says of them, what that comes to.

FGSM is BIM of one step as long as epsilon, and a targeted loss the negative of an untargeted one,
so that with epsilon, steps and sign as arguments one compilation serves all four.
"""

import base64
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from capsjax.analysis.attacks import (
    Loss,
    bim,
    gradient_statistics,
    log_shares,
    margin,
    pgd,
    untargeted,
    vote_scores,
)
from capsjax.training.step import split
from experiments import training

Kind = Literal["basic", "linf", "l2"]
Raised = Literal["cross-entropy", "margin", "shares", "votes"]


@dataclass(frozen=True)
class Attack:
    """An attack of any strength.

    Attributes:
        kind: "basic" (FGSM, BIM: from the image), "linf" or "l2" (PGD: from a random start).
        num_steps: iterations.
        step: length of one as a share of epsilon.
        raised: the loss: "cross-entropy" or "margin" of logits, or of capsules' lengths where there
            are none; "shares", the negative logarithm of the class's share in all lengths; "votes",
            the same of the lengths that the mean votes would give.
    """

    kind: Kind
    num_steps: int
    step: float
    raised: Raised = "cross-entropy"


FGSM = Attack("basic", 1, 1.0)


class Said(NamedTuple):
    """What a network says of images.

    Attributes:
        labels: ``[N]``, its predictions.
        distances: ``[N]``, Euclidean, of each image from its reconstruction from the winning
            capsule; None without a decoder.
    """

    labels: np.ndarray
    distances: np.ndarray | None


class Subject:
    """A trained network under attack, so many images at once.

    Args:
        network: takes images in [0, 1]; batch normalisation uses the running statistics.
        at_once: of images; fewer are filled up, so that each kind compiles once.
    """

    def __init__(self, network: nnx.Module, at_once: int):
        self.graph, *self.state = split(network)
        self.at_once = at_once

    def attacked(
        self,
        attack: Attack,
        images: np.ndarray,
        labels: np.ndarray,
        epsilon: float,
        *,
        towards: bool = False,
        seed: int = 0,
    ) -> np.ndarray:
        """Images within epsilon of these, away from their labels or towards them.

        Args:
            attack: how they are sought.
            images: float32 ``[N, H, W, C]`` in [0, 1].
            labels: int ``[N]``, the classes to leave, or to reach.
            epsilon: the ball's radius.
            towards: whether to reach them.
            seed: of the random starts.

        Returns:
            float32 ``[N, H, W, C]`` in [0, 1].
        """
        keys = jax.random.split(jax.random.key(seed), len(images))
        numbers = (-1.0 if towards else 1.0, epsilon, attack.step * epsilon)
        work = partial(_attacked, self.graph, attack.kind, attack.raised)
        fixed = (self.state, *(np.float32(number) for number in numbers), attack.num_steps)
        return self._in_parts(lambda *rows: work(*fixed, *rows), images, labels, keys)

    def says(self, images: np.ndarray) -> Said:
        """Predictions, and distances of the reconstructions; images as in ``attacked``."""
        return Said(*self._in_parts(partial(_said, self.graph, self.state), images))

    def gradients(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Statistics of the gradients of the margin, whose scale is that of the scores.

        Args:
            images: float32 ``[N, H, W, C]`` in [0, 1].
            labels: int ``[N]``, their classes.

        Returns:
            "zeros", the share of exact zeros, and "magnitude" of pixels that some image's gradient
            reaches; "unseen", the share of other pixels, and "lost", that of images whose gradient
            is 0 everywhere.
        """
        found = self._in_parts(partial(_gradients, self.graph, self.state), images, labels)
        reaches = found != 0
        seen = reaches.any(0)
        of = gradient_statistics(jnp.asarray(found[:, seen]))
        lost = ~reaches.reshape(len(found), -1).any(1)
        return {
            **{name: float(value) for name, value in of._asdict().items()},
            "unseen": float(1 - seen.mean()),
            "lost": float(lost.mean()),
        }

    def _in_parts(self, work: Callable[..., Any], *rows: Any) -> Any:
        count, parts = len(rows[0]), []
        for start in range(0, count, self.at_once):
            which = np.arange(start, start + self.at_once) % count
            parts.append(jax.device_get(work(*(each[which] for each in rows))))
        return jax.tree.map(lambda *each: np.concatenate(each)[:count], *parts)


def counts(
    labels: np.ndarray, right: np.ndarray, threshold: float | None, said: Said
) -> dict[str, Any]:
    """What an attack did.

    Args:
        labels: of the images.
        right: bool, which of them the network had right before.
        threshold: of the reconstructions' distances; None tells nothing.
        said: of the attacked images.

    Returns:
        Accuracy, which are wrong, how many of those had been right, and how many of these are told
        by their distance; how many are right before and after, and how many of these are told.
    """
    wrong = said.labels != labels
    found = {"accuracy": float(1 - wrong.mean()), "wrong": training.packed(wrong)}
    if threshold is None or said.distances is None:
        return found
    told = said.distances > threshold
    return {
        **found,
        "successful": int((wrong & right).sum()),
        "told": int((told & wrong & right).sum()),
        "withstood": int((~wrong & right).sum()),
        "withstood_told": int((told & ~wrong & right).sum()),
    }


def shaken(images: np.ndarray, epsilon: float, seed: int) -> np.ndarray:
    """Images with epsilon more or less in every pixel, at random: as far away as attacked ones."""
    signs = np.random.default_rng(seed).choice(np.float32([-1, 1]), images.shape)
    return np.clip(images + np.float32(epsilon) * signs, 0, 1)


def reached(
    subject: Subject,
    num_classes: int,
    how: Attack,
    images: np.ndarray,
    labels: np.ndarray,
    epsilon: float,
) -> dict[str, Any]:
    """How often an attack gets what it wants, over all wrong classes of every image."""
    others = num_classes - 1
    targets = ((labels[:, None] + np.arange(1, num_classes)) % num_classes).ravel()
    rows = np.repeat(images, others, axis=0)
    changed = subject.attacked(how, rows, targets, epsilon, towards=True)
    success = float((subject.says(changed).labels == targets).mean())
    return {"success": success, "pairs": len(targets)}


def examples(changed: np.ndarray, labels: np.ndarray, said: Said, epsilon: float) -> dict[str, Any]:
    """Attacked images as text, with their labels and predictions; ``pixels_of`` reads them."""
    pixels = np.round(255 * changed).astype(np.uint8)
    return {
        "epsilon": epsilon,
        "shape": pixels.shape,
        "pixels": base64.b64encode(zlib.compress(pixels.tobytes(), 9)).decode(),
        "labels": labels[: len(pixels)].tolist(),
        "predictions": said.labels[: len(pixels)].tolist(),
    }


def pixels_of(kept: dict[str, Any]) -> np.ndarray:
    """Images of ``examples``, uint8 ``[N, H, W, C]``."""
    pixels = zlib.decompress(base64.b64decode(kept["pixels"]))
    return np.frombuffer(pixels, np.uint8).reshape(kept["shape"])


def _merged(graph: Any, state: Any) -> Any:
    network = nnx.merge(graph, *state, copy=True)
    network.eval()
    return network


def _loss(graph: Any, raised: Raised, state: Any, label: Array) -> Loss:
    def scores(image: Array) -> Array:
        output = _merged(graph, state)(image[None])
        if raised == "votes":
            return log_shares(vote_scores(output.routed[-1].votes[0]))
        if raised == "shares":
            return log_shares(output.activations[0])
        return (output.activations if output.logits is None else output.logits)[0]

    return margin(scores, label) if raised == "margin" else untargeted(scores, label)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _attacked(
    graph: Any,
    kind: Kind,
    raised: Raised,
    state: Any,
    sign: Array,
    epsilon: Array,
    step: Array,
    num_steps: Array,
    images: Array,
    labels: Array,
    keys: Array,
) -> Array:
    lengths = {"epsilon": epsilon, "step": step, "num_steps": num_steps}

    def one(image: Array, label: Array, key: Array) -> Array:
        of = _loss(graph, raised, state, label)

        def loss(x: Array) -> Array:
            return sign * of(x)

        if kind == "basic":
            return bim(loss, image, **lengths)
        return pgd(loss, image, key, **lengths, norm="l2" if kind == "l2" else "linf")

    return jax.vmap(one)(images, labels, keys)


@partial(jax.jit, static_argnums=0)
def _gradients(graph: Any, state: Any, images: Array, labels: Array) -> Array:
    def one(image: Array, label: Array) -> Array:
        return jax.grad(_loss(graph, "margin", state, label))(image)

    return jax.vmap(one)(images, labels)


@partial(jax.jit, static_argnums=0)
def _said(graph: Any, state: Any, images: Array) -> tuple[Array, Array | None]:
    output = _merged(graph, state)(images)
    labels = output.activations.argmax(1)
    if output.reconstruction is None:
        return labels, None
    return labels, jnp.sqrt(jnp.sum((output.reconstruction - images) ** 2, axis=(1, 2, 3)))
