"""What a trained network says of images, as features to probe."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from capsjax.analysis import probes
from capsjax.data import augment
from capsjax.training.step import split
from experiments.pose_images import Pairs

_ROWS = 100
# As many components of a hidden layer as a capsule has dimensions stand beside its pose.
_FEW = 16


class Said(NamedTuple):
    """What a network says of images.

    Attributes:
        activations: ``[N, classes]``.
        poses: ``[N, classes, dim]``, or None in a network without capsules.
        hidden: ``[N, D]``, what the logits are made of in a network without capsules, else None.
    """

    activations: np.ndarray
    poses: np.ndarray | None
    hidden: np.ndarray | None

    def of(self, labels: np.ndarray) -> np.ndarray:
        """The poses of these classes' capsules, ``[N, dim]``."""
        assert self.poses is not None
        return self.poses[np.arange(len(labels)), labels]


def listen(network: nnx.Module, images: np.ndarray) -> Said:
    """Show a network uint8 images ``[N, H, W, C]``."""
    graph, params, rest = split(network)
    parts = [_said(graph, params, rest, rows) for rows in _in_parts(images, _ROWS)]
    whole = [
        None if column[0] is None else np.concatenate(column)[: len(images)]
        for column in zip(*parts, strict=True)
    ]
    return Said(*whole)  # type: ignore[arg-type]


@partial(jax.jit, static_argnums=0)
def _said(graph: Any, params: Any, rest: Any, images: jax.Array) -> Said:
    network: Any = nnx.merge(graph, params, rest, copy=True)
    network.eval()
    prepared = jax.vmap(augment.to_unit_interval)(images)
    output = network(prepared)
    hidden = network.features(prepared) if output.poses is None else None
    return Said(output.activations, output.poses, hidden)


def _in_parts(rows: np.ndarray, count: int) -> list[np.ndarray]:
    """Parts of one length, so that one compilation serves all; the last is filled up."""
    starts = range(0, len(rows), count)
    return [rows[np.arange(start, start + count) % len(rows)] for start in starts]


class Feature(NamedTuple):
    """One way to read a network: ``[N, D]``, with a map of each class by itself or one for all."""

    values: np.ndarray
    by_class: bool


def representations(said: Said, labels: np.ndarray) -> dict[str, Feature]:
    """What is probed of a network, by name."""
    if said.poses is not None:
        found = said.of(labels)
        return {
            f"capsule of the class ({found.shape[1]})": Feature(found, True),
            f"all class capsules ({said.poses[0].size})": Feature(
                said.poses.reshape(len(labels), -1), False
            ),
        }
    assert said.hidden is not None
    return {
        f"CNN, hidden layer ({said.hidden.shape[1]})": Feature(said.hidden, False),
    }


def few_components(
    hidden: np.ndarray, labels: np.ndarray, fit: np.ndarray, count: int = _FEW
) -> dict[str, Feature]:
    """The hidden layer's widest directions in each class: as many numbers as a class capsule."""
    fewest = min(int((fit & (labels == label)).sum()) for label in np.unique(labels))
    count = min(count, fewest, hidden.shape[1])
    found = probes.principal_components(hidden, count, groups=labels, fit=fit)
    return {f"CNN, {count} components by class": Feature(found, True)}


def probed(
    said: Said, labels: np.ndarray, factors: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """R2 of every factor from every representation of a network."""
    fit = probes.halves(len(labels), groups=labels)
    found = representations(said, labels)
    if said.hidden is not None:
        found |= few_components(said.hidden, labels, fit)
    return {
        name: probes.linear_probes(
            feature.values, factors, groups=labels if feature.by_class else None, fit=fit
        )
        for name, feature in found.items()
    }


def changed(network: nnx.Module, pairs: Pairs) -> dict[str, dict[str, dict[str, float]]]:
    """Equivariance and invariance errors of a network under every change.

    Returns:
        ``{"equivariance": {representation: {change: error}}, "invariance": the same}``.
    """
    labels = pairs.labels
    fit = probes.halves(len(labels), groups=labels)
    before = listen(network, pairs.before)
    errors: dict[str, dict[str, dict[str, float]]] = {"equivariance": {}, "invariance": {}}
    for change, images in pairs.after.items():
        after = listen(network, images)
        features = [representations(said, labels) for said in (before, after)]
        if before.hidden is not None and after.hidden is not None:
            # The directions of both, or a component after would not be the one before.
            both = np.concatenate([before.hidden, after.hidden])
            twice = np.concatenate([fit, fit])
            few = few_components(both, np.concatenate([labels, labels]), twice)
            for number, part in enumerate((slice(len(labels)), slice(len(labels), None))):
                features[number] |= {n: Feature(f.values[part], True) for n, f in few.items()}
        for name, feature in features[0].items():
            groups = labels if feature.by_class else None
            there = features[1][name].values
            error = probes.equivariance_error(feature.values, there, groups=groups, fit=fit)
            errors["equivariance"].setdefault(name, {})[change] = error
            error = probes.invariance_error(feature.values, there, groups=groups)
            errors["invariance"].setdefault(name, {})[change] = error
        error = probes.invariance_error(before.activations, after.activations)
        errors["invariance"].setdefault("activations", {})[change] = error
    return errors
