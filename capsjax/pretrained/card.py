"""What a file of weights says of the training and the test of its network.

``capsjax export`` puts it into the file, under ``metadata`` of those strings that
``capsjax.weights`` describes:

``settings``    the run directory's config: data set, training with recipe and seed, names of the
                classes; the network's own choices and image shape are beside it in the file
``command``     command line of the training
``trained``     commit of the code, versions and machine, when it was finished
``tested``      error of these very weights on the test split, and where it was measured
``dtype``       what floating arrays are stored as
``parameters``  how many there are
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jaxlib

from capsjax import weights
from capsjax.serial import to_json
from capsjax.training.evaluation import Evaluation
from capsjax.training.provenance import surroundings
from capsjax.training.settings import Settings, settings_of

# So many images may change sides where sums are rounded in another order.
ELSEWHERE = 2

_KEYS = ("settings", "command", "trained", "tested", "dtype", "parameters")
# Of the settings, what the file says of its network anyway.
_IN_WEIGHTS = ("model", "model_config", "image_shape")


@dataclass(frozen=True)
class Tested:
    """Error of stored weights on all test images.

    Attributes:
        error: share of wrong predictions.
        interval_95: its 95 % Wilson interval.
        errors: number of wrong predictions.
        images: number of test images.
        digit_error: share of all single labels missed, where an image shows several; else None.
        platform: ``here()`` of the measurement.
        code: commit of the code that measured it, and versions.

    Example:
        >>> from capsjax import pretrained
        >>> tested = pretrained.describe("efficient_capsnet_mnist").tested
        >>> tested.reproduced(tested.errors, tested.images)
        True
    """

    error: float
    interval_95: tuple[float, float]
    errors: int
    images: int
    digit_error: float | None
    platform: dict[str, Any]
    code: dict[str, Any]

    def reproduced(self, errors: int, images: int) -> bool:
        """Whether a count of errors is the stated one, here or as near as another platform's.

        Args:
            errors: wrong predictions of an evaluation.
            images: of so many.

        Returns:
            On the platform of the measurement whether both are equal, elsewhere whether the errors
            differ by at most ``ELSEWHERE``.
        """
        allowed = 0 if self.platform == here() else ELSEWHERE
        return images == self.images and abs(errors - self.errors) <= allowed

    def where(self) -> str:
        """The platform of the measurement, in words."""
        its = self.platform
        count = its["processors"]
        known = [its["machine"], its["vectors"], f"{count} processor{'s' if count != 1 else ''}"]
        device = "" if its["device"] == its["backend"] else f" {its['device']}"
        inside = ", ".join(filter(None, known))
        return f"{its['backend']}{device} ({inside}, jaxlib {its['jaxlib']})"


@dataclass(frozen=True)
class Card:
    """A network in a file and where it came from.

    Attributes:
        name: of the file, without its ending.
        settings: what the network was trained with.
        command: command line of the training.
        trained: ``commit``, ``dirty``, ``versions``, ``python``, ``platform`` and ``finished`` of
            the training.
        tested: error of the stored weights.
        dtype: what floating arrays are stored as; loaded they are float32.
        parameters: how many there are.
        size: of the file in bytes.

    Example:
        >>> from capsjax import pretrained
        >>> card = pretrained.describe("efficient_capsnet_mnist")
        >>> card.name, card.settings.dataset, card.parameters
        ('efficient_capsnet_mnist', 'mnist', 1573168)
    """

    name: str
    settings: Settings
    command: str
    trained: dict[str, Any]
    tested: Tested
    dtype: str
    parameters: int
    size: int

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; those of most use come first."""
        return {
            "name": self.name,
            "model": self.settings.model,
            "dataset": self.settings.dataset,
            "parameters": self.parameters,
            "dtype": self.dtype,
            "bytes": self.size,
            "seed": self.settings.training.seed,
            "command": self.command,
            "tested": to_json(self.tested),
            "trained": self.trained,
            "settings": to_json(self.settings),
        }


def here() -> dict[str, Any]:
    """This process's platform: all that decides in which order sums are rounded.

    Returns:
        ``backend``, ``device``, ``machine``, ``vectors``, ``processors``, ``jaxlib`` and
        ``xla_flags``, all strings but for the number of processors.

    Example:
        >>> from capsjax import pretrained
        >>> pretrained.describe("efficient_capsnet_mnist").tested.platform.keys() == here().keys()
        True
    """
    device = jax.local_devices()[0]
    return {
        "backend": device.platform,
        "device": device.device_kind,
        "machine": platform.machine(),
        "vectors": _vectors(),
        "processors": _processors(),
        "jaxlib": jaxlib.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def metadata(
    settings: Settings,
    provenance: dict[str, Any],
    evaluation: Evaluation,
    *,
    dtype: str,
    parameters: int,
) -> dict[str, Any]:
    """What ``read`` reads, as ``weights.save`` takes it.

    Args:
        settings: what the network was trained with.
        provenance: with the keys of a run's summary.
        evaluation: of the weights as they are stored.
        dtype: what floating arrays are stored as.
        parameters: how many there are.

    Returns:
        JSON values.
    """
    of_training = ("commit", "dirty", "finished", "versions", "python", "platform")
    measured = surroundings()
    several = settings.classes_per_image > 1
    tested = Tested(
        error=evaluation.error,
        interval_95=evaluation.interval,
        errors=evaluation.errors,
        images=evaluation.total,
        digit_error=evaluation.digit_error if several else None,
        platform=here(),
        code={name: measured[name] for name in ("commit", "dirty", "versions", "python")},
    )
    kept = to_json(settings)
    return {
        "settings": {name: value for name, value in kept.items() if name not in _IN_WEIGHTS},
        "command": provenance["command"],
        "trained": {name: provenance[name] for name in of_training},
        "tested": to_json(tested),
        "dtype": dtype,
        "parameters": parameters,
    }


def read(path: Path) -> Card:
    """What a file says of its network.

    Args:
        path: as ``capsjax export`` made it.

    Returns:
        All of it.

    Raises:
        ValueError: the file is damaged, not one of capsjax, says nothing of a training, or does
            not fit this version.
        OSError: it cannot be read.
    """
    values = weights.read_metadata(path)
    said = values["metadata"]
    missing = [key for key in _KEYS if key not in said]
    if missing:
        raise ValueError(
            f"{path} holds a network, but does not say how it was trained and tested (its metadata "
            f"has no {', '.join(missing)}): make it with capsjax export, or read the network alone "
            "with capsjax.weights.load"
        )
    of_network = (values["model"], values["config"], values["image_shape"])
    try:
        settings = settings_of(
            {**said["settings"], **dict(zip(_IN_WEIGHTS, of_network, strict=True))}
        )
        its = said["tested"]
        if len(settings.class_names) != values["num_classes"]:
            raise ValueError(
                f"{len(settings.class_names)} names for {values['num_classes']} classes"
            )
        return Card(
            name=path.name.removesuffix(".safetensors"),
            settings=settings,
            command=said["command"],
            trained=said["trained"],
            tested=Tested(**{**its, "interval_95": tuple(its["interval_95"])}),
            dtype=said["dtype"],
            parameters=said["parameters"],
            size=path.stat().st_size,
        )
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} was written by capsjax {values['capsjax']}, and what it says of its training "
            f"does not fit this version ({error}): use the version that wrote it"
        ) from error


def _vectors() -> str:
    """The widest vector instructions of an x86 processor, where the system tells; else nothing."""
    try:
        known = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ""
    widest = {"amx_bf16": "AMX", "avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}
    return next((name for flag, name in widest.items() if flag in known), "")


def _processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
