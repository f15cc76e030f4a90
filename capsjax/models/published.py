"""What a network's file says about it, for ``create`` and for the listings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from flax import nnx

QUICK: Mapping[str, Any] = MappingProxyType(
    {
        "epochs": 1,
        "batch_size": 32,
        "limit": 10_000,
        "validation": 1000,
        "schedule": "cosine",
    }
)


@dataclass(frozen=True)
class Form:
    """A network as it was published for one data set.

    Attributes:
        dataset: its name.
        config: the network's choices.
        image_shape: height, width and channels that it was trained on.
        num_classes: number of classes.
        parameters: trainable ones, pinned by the tests.
        published: the number that its authors report, or that others do of it.
        note: why our count of parameters differs from theirs, where it does.

    Example:
        >>> from capsjax import models
        >>> form = models.find("efficient_capsnet").forms[0]
        >>> form.dataset, form.image_shape, form.parameters
        ('mnist', (28, 28, 1), 1573168)
    """

    dataset: str
    config: Any
    image_shape: tuple[int, int, int]
    num_classes: int
    parameters: int
    published: str = "none"
    note: str = ""


@dataclass(frozen=True)
class Model:
    """A network that ``create`` knows by name.

    Attributes:
        network: the class; made with a config, ``image_shape``, ``num_classes`` and ``rngs``.
        config: its default choices; their type is the network's ``Config``.
        source: who published it.
        forms: as it was published, the default one first.
        training: values of the training config that it wants, those of the loss under "loss".
        presets: such values by name, on top of these.

    Example:
        >>> from capsjax import models
        >>> model = models.find("capsnet")
        >>> model.config.primary_types, model.presets["quick"]["epochs"]
        (32, 1)
    """

    network: type[nnx.Module]
    config: Any
    source: str
    forms: tuple[Form, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"quick": QUICK})
