"""The pictures of a trained network: what is computed for each, and which ones it has."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from capsjax import data, figures, inspection
from capsjax.analysis.statistics import expected_calibration_error
from capsjax.models.summary import summary
from capsjax.ops.squash import squash, squash_exponential
from capsjax.training import losses
from capsjax.training.evaluation import Evaluation
from capsjax.training.run import Run

_FEW = 12
_SEVERAL = 300  # test images whose means are taken
_TURNED = 100
_ANGLES = np.arange(-90, 91, 15.0)
_CHILDREN = 40  # between which lines can be told apart
_EPSILON = 0.1


class Without(Exception):
    """A network has no such picture; the message says why."""


def write(figure: Figure, path: Path, *, dpi: int) -> None:
    """Write a picture beside its place, then put it there: a full disk leaves no half picture.

    Args:
        figure: what to write.
        path: of the file, whose ending says the format.
        dpi: dots per inch.

    Raises:
        OSError: the file cannot be written; one that was there stays as it was.
        ValueError: matplotlib knows no such format, or the path is a folder's or a device's.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder or a device, expected the name of a file")
    path = path.resolve()  # a link stays one
    partial = path.with_name(path.name + ".partial")
    try:
        figure.savefig(partial, dpi=dpi, format=path.suffix.removeprefix(".") or "png")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Subject:
    """What is drawn.

    Attributes:
        name: of the network, for titles and legends.
        run: the network.
        arrays: the test images.
        evaluation: of these, with reconstructions.
        history: of its training, as in ``metrics.jsonl``; empty if nothing is known.
        image: number of the test image that is looked at closely.
        beside: another network's name and it, which is drawn beside where two can be compared.
    """

    name: str
    run: Run
    arrays: data.Arrays
    evaluation: Evaluation
    history: Sequence[dict[str, Any]]
    image: int = 0
    beside: tuple[str, Run] | None = None

    @cached_property
    def layers(self) -> dict[str, tuple[int, int]]:
        """Its layers of capsules."""
        return inspection.capsule_layers(self.run)

    @cached_property
    def seen(self) -> inspection.Seen:
        """The test image that is looked at, and all layers' outputs."""
        paths = dict.fromkeys([*inspection.layers(self.run), *self.layers])
        kept = [path for path in paths if path != "decoder"]
        return inspection.see(self.run, self._one, kept, trace=True)

    @cached_property
    def turned(self) -> dict[str, inspection.ByAngle]:
        """What both networks say of turned images."""
        if self.arrays["label"].ndim > 1:
            raise Without("every image shows several classes")
        networks = {self.name: self.run} | ({} if self.beside is None else dict([self.beside]))
        rows = slice(0, _TURNED)
        return {
            name: inspection.by_angle(
                network, self.arrays["image"][rows], self.arrays["label"][rows], _ANGLES
            )
            for name, network in networks.items()
        }

    @property
    def _one(self) -> np.ndarray:
        return self.arrays["image"][self.image][None]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the network's classes."""
        return self.run.settings.class_names

    def named(self, labels: np.ndarray) -> list[str]:
        """Classes in words, several of an image in the order of their numbers."""
        return [
            " ".join(self.class_names[number] for number in sorted(np.atleast_1d(label)))
            for label in labels
        ]


def drawn(subject: Subject) -> Iterator[tuple[str, Figure | Without]]:
    """All pictures that there are, and why there is not where one is not.

    Args:
        subject: the network.

    Returns:
        The picture's name, and the picture or the reason.
    """
    for name, make in PICTURES.items():
        try:
            made = make(subject)
        except Without as reason:
            yield name, reason
            continue
        for part, figure in made.items() if isinstance(made, dict) else [("", made)]:
            yield "_".join(filter(None, (name, part.replace(".", "_")))), figure


def of_training(subject: Subject) -> Iterator[tuple[str, Figure]]:
    """Those of ``drawn`` that cost no more than a training knows when it ends.

    Args:
        subject: the network.

    Returns:
        As for ``drawn``.
    """
    for name in ("learning_curves", "mistakes", "confusion", "reconstructions"):
        try:
            made = PICTURES[name](subject)
        except Without:
            continue
        assert isinstance(made, Figure)
        yield name, made


def _architecture(subject: Subject) -> Figure:
    rows = summary(subject.run.model)
    return figures.architecture(rows, subject.run.settings.image_shape, title=subject.name)


def _squash(subject: Subject) -> Figure:
    if not subject.layers:
        raise Without("the network has no capsules")
    lengths = np.linspace(0, 4, 101)
    vectors = jnp.asarray(np.outer(lengths, [1, 0]), jnp.float32)
    functions = {"Sabour 2017": squash, "Mazzia 2021": squash_exponential}
    after = {
        name: np.linalg.norm(np.asarray(jax.vmap(function)(vectors)), axis=1)
        for name, function in functions.items()
    }
    return figures.squash_curve(lengths, after)


def _margin_loss(subject: Subject) -> Figure:
    config = subject.run.settings.training.loss
    if config.kind != "margin":
        raise Without(f"the network was trained with the loss {config.kind}")
    lengths = np.linspace(0, 1, 101)

    def of(target: float) -> np.ndarray:
        one = jax.vmap(lambda length: losses.margin_loss(length[None], jnp.full(1, target), config))
        return np.asarray(one(jnp.asarray(lengths, jnp.float32)))

    margins = (config.positive_margin, config.negative_margin)
    return figures.margin_loss_curve(lengths, of(1.0), of(0.0), margins=margins)


def _learning_curves(subject: Subject) -> Figure:
    if not any(entry["split"] == "train" for entry in subject.history):
        raise Without("there is no metrics.jsonl beside the network")
    return figures.learning_curves(subject.history)


def _mistakes(subject: Subject) -> Figure:
    said = subject.evaluation.prediction.activations
    arrays = subject.arrays
    return figures.mistakes(arrays["image"], arrays["label"], said, subject.class_names)


def _confusion(subject: Subject) -> Figure:
    if subject.evaluation.confusion is None:
        raise Without("every image shows several classes")
    return figures.confusion(subject.evaluation.confusion, subject.class_names)


def _calibration(subject: Subject) -> Figure:
    labels = subject.arrays["label"]
    if labels.ndim > 1:
        raise Without("every image shows several classes")

    def of(evaluation: Evaluation) -> Any:
        said = evaluation.prediction
        # An activation may round to a little more than 1.
        sure = np.clip(said.activations.max(1), 0, 1)
        return expected_calibration_error(sure, said.labels == labels)

    series = {subject.name: of(subject.evaluation)}
    if subject.beside is not None:
        name, network = subject.beside
        series[name] = of(network.evaluate(subject.arrays))
    return figures.calibration(series, fewest=10)


def _reconstructions(subject: Subject) -> Figure:
    prediction, few = subject.evaluation.prediction, slice(0, _FEW)
    if prediction.reconstructions is None:
        raise Without("the network has no decoder")
    return figures.reconstructions(
        subject.arrays["image"][few],
        prediction.reconstructions[few],
        subject.named(subject.arrays["label"][few]),
        subject.named(prediction.labels[few]),
    )


def _separated(subject: Subject) -> Figure:
    prediction, few = subject.evaluation.prediction, slice(0, _FEW)
    labels = subject.arrays["label"]
    if labels.ndim == 1 or labels.shape[1] != 2:
        raise Without("images do not show two classes")
    if prediction.reconstructions is None:
        raise Without("the network has no decoder")
    return figures.separated(
        subject.arrays["image"][few],
        prediction.reconstructions[few],
        subject.named(labels[few]),
        subject.named(prediction.labels[few]),
    )


def _perturbations(subject: Subject) -> dict[str, Figure]:
    if getattr(subject.run.model, "decoder", None) is None:
        raise Without("the network has no decoder")
    image = subject.arrays["image"][subject.image]
    return {
        layer: figures.perturbations(
            inspection.perturbed(subject.run, image, layer=layer),
            inspection.OFFSETS,
            title=f"the most active capsule of {layer}, dimension by dimension",
        )
        for layer in subject.layers
    }


def _last_coupling(subject: Subject) -> np.ndarray:
    """Of the class capsules, ``[iterations, parents, children]``."""
    if not subject.seen.coefficients:
        raise Without("the network routes nothing")
    trace = subject.seen.traces[-1]
    last = subject.seen.coefficients[-1] if trace is None else trace.coefficients[0]
    found = np.asarray(last)
    if found.ndim != 3:
        raise Without("the class capsules are routed in several places")
    return found


def _coefficients(subject: Subject) -> Figure:
    return figures.coefficients(_last_coupling(subject), parents=subject.class_names)


def _flow(subject: Subject) -> Figure:
    shares = _last_coupling(subject)
    _, children = inspection.last_routing(subject.run, subject.arrays["image"][subject.image])
    active = children.activations
    if active is None:
        active = np.linalg.norm(children.poses, axis=-1)
    if shares.shape[2] != len(active):
        raise Without("the class capsules are routed by places, not by capsules")
    most = np.sort(np.argsort(-np.asarray(active, float), kind="stable")[:_CHILDREN])
    return figures.flow(
        shares[:, :, most],
        parents=subject.class_names,
        children=[f"capsule {number}" for number in most],
    )


def _primary(subject: Subject) -> Figure:
    if not subject.layers:
        raise Without("the network has no capsules")
    layer = next(iter(subject.layers))
    capsules = subject.seen.layers[layer]
    if capsules.poses.ndim != 5:
        raise Without(f"the capsules of {layer} have no rows and columns")
    if capsules.activations is None:
        raise Without(f"the capsules of {layer} do not say how active they are")
    return figures.primary_capsules(
        subject.arrays["image"][subject.image],
        inspection.fields(subject.run, layer),
        np.asarray(capsules.activations[0], float),
    )


def _feature_maps(subject: Subject) -> dict[str, Figure]:
    maps = {
        path: np.asarray(output[0], float)
        for path, output in subject.seen.layers.items()
        if isinstance(output, np.ndarray) and output.ndim == 4
    }
    if not maps:
        raise Without("no layer of the network gives maps")
    return {
        path: figures.feature_maps(found, title=f"{path}: maps of a test image")
        for path, found in list(maps.items())[:3]
    }


def _dead(subject: Subject) -> dict[str, Figure]:
    if not subject.layers:
        raise Without("the network has no capsules")
    images = subject.arrays["image"][:_SEVERAL]
    layers = inspection.see(subject.run, images, list(subject.layers)).layers
    return {
        path: figures.dead_capsules(
            capsules.activations.reshape(len(images), -1), title=path, name=f"capsule of {path}"
        )
        for path, capsules in layers.items()
        if capsules.activations is not None
    }


def _confidence_by_angle(subject: Subject) -> Figure:
    confidence = {name: each.confidence.mean(1) for name, each in subject.turned.items()}
    return figures.by_angle(
        _ANGLES,
        confidence,
        ylabel=f"mean activation of the true class\n({_shown(subject)} images)",
        images=_strip(subject),
    )


def _error_by_angle(subject: Subject) -> Figure:
    wrong = {name: 100 * (~each.right).mean(1) for name, each in subject.turned.items()}
    label = f"error (%)\n({_shown(subject)} images)"
    return figures.by_angle(_ANGLES, wrong, ylabel=label, images=_strip(subject))


def _shown(subject: Subject) -> int:
    return min(_TURNED, len(subject.arrays["label"]))


def _strip(subject: Subject) -> np.ndarray:
    one = subject.arrays["image"][subject.image][None]
    return np.concatenate([inspection.moved(one, rotation=float(angle)) for angle in _ANGLES])


def _equivariance(subject: Subject) -> Figure:
    found = subject.turned[subject.name]
    if found.poses is None:
        raise Without("the network has no capsules")
    # Of one class; another's capsule has its own directions.
    labels = subject.arrays["label"][:_TURNED]
    one = int(subject.arrays["label"][subject.image])
    same = found.poses[:, labels == one]
    if not same.shape[1]:
        raise Without(f"the first {_TURNED} test images show no {subject.class_names[one]}")
    title = f"class capsule of {subject.class_names[one]}: {same.shape[1]} images turned"
    return figures.equivariance(found.angles, same, title=title)


def _adversarial(subject: Subject) -> Figure:
    labels, images = subject.arrays["label"][:_FEW], subject.arrays["image"][:_FEW]
    if labels.ndim > 1:
        raise Without("every image shows several classes")
    recipe = subject.run.settings.training.recipe
    if recipe is not None:
        raise Without(f"the pixels that {recipe} makes are not from 0 to 1")
    changed = inspection.attacked(subject.run, images, labels, epsilon=_EPSILON)
    after = subject.run.predict(np.round(255 * changed).astype(np.uint8)).labels
    before = subject.evaluation.prediction.labels[:_FEW]
    return figures.adversarial(
        images, changed, subject.named(before), subject.named(after), epsilon=_EPSILON
    )


PICTURES: dict[str, Callable[[Subject], Figure | dict[str, Figure]]] = {
    "architecture": _architecture,
    "squash": _squash,
    "margin_loss": _margin_loss,
    "learning_curves": _learning_curves,
    "mistakes": _mistakes,
    "confusion": _confusion,
    "calibration": _calibration,
    "reconstructions": _reconstructions,
    "separated": _separated,
    "perturbations": _perturbations,
    "coefficients": _coefficients,
    "flow": _flow,
    "primary_capsules": _primary,
    "feature_maps": _feature_maps,
    "dead_capsules": _dead,
    "confidence_by_angle": _confidence_by_angle,
    "error_by_angle": _error_by_angle,
    "equivariance": _equivariance,
    "adversarial": _adversarial,
}
