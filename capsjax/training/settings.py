"""What a run directory was made with, and configs as JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import nnx

from capsjax import checks, data, models
from capsjax.data import recipes
from capsjax.serial import from_json, to_json
from capsjax.training.config import Config
from capsjax.training.division import check_recipe
from capsjax.training.json_file import CHECKSUM, read_sealed, write_sealed

_FILE = "config.json"
_MEND = f"bring it back from a copy, or look at it, mend it and remove its {CHECKSUM}"


@dataclass(frozen=True)
class Settings:
    """What a run directory was made with.

    Attributes:
        model: name of the network.
        dataset: name or path of the data.
        model_config: the network's choices.
        training: the training's choices.
        image_shape: height, width and channels of what the network takes.
        class_names: one for each class.
        data_shape: those of the data set's images, where a recipe makes others of them; None is
            ``image_shape``.
        classes_per_image: how many different classes every image shows.
    """

    model: str
    dataset: str
    model_config: Any
    training: Config
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    data_shape: tuple[int, int, int] | None = None
    classes_per_image: int = 1

    def __post_init__(self) -> None:
        checks.fields(self)

    @property
    def shape_of_data(self) -> tuple[int, int, int]:
        """Height, width and channels of the data set's images."""
        return self.image_shape if self.data_shape is None else self.data_shape

    def create(self) -> nnx.Module:
        """The network with its initial parameters."""
        return models.create(
            self.model,
            image_shape=self.image_shape,
            num_classes=len(self.class_names),
            config=self.model_config,
            rngs=self.training.seed,
        )


def settings_for(
    dataset: data.Dataset, *, name: str, model: str, model_config: Any, training: Config
) -> Settings:
    """Settings to train a network on a data set.

    Args:
        dataset: the data.
        name: what it is found by.
        model: name of the network.
        model_config: the network's choices.
        training: the training's choices.

    Returns:
        The settings, with the image shape that the training's recipe makes, if there is one.

    Raises:
        ValueError: the data set does not fit the recipe.
    """
    image_shape, data_shape = dataset.image_shape, None
    if training.recipe is not None:
        check_recipe(training.recipe, dataset.image_shape, dataset.made)
        image_shape = recipes.shape_after(training.recipe, dataset.image_shape)
        data_shape = dataset.image_shape
    return Settings(
        model=model,
        dataset=name,
        model_config=model_config,
        training=training,
        image_shape=image_shape,
        class_names=dataset.class_names,
        data_shape=data_shape,
        classes_per_image=dataset.classes_per_image,
    )


def read_settings(workdir: Path) -> Settings:
    """Settings of a run directory.

    Args:
        workdir: the run directory.

    Returns:
        What ``config.json`` says.

    Raises:
        ValueError: there is none, it has changed, or it does not fit this version of the library.
    """
    path = workdir / _FILE
    if not path.is_file():
        raise ValueError(
            f"{workdir} is not a run directory (it has no config.json): give a folder that "
            "capsjax train made with --workdir"
        )
    values = read_sealed(path, mend=_MEND)
    try:
        return settings_of(values)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a config of this version of capsjax ({error!r}); use the version that "
            "made it, or train anew in another --workdir"
        ) from error


def write_settings(workdir: Path, settings: Settings) -> None:
    """Write ``config.json``, with its own checksum.

    Args:
        workdir: the run directory.
        settings: what to write.

    Raises:
        OSError: it cannot be written.
    """
    write_sealed(workdir / _FILE, to_json(settings))


def settings_of(values: dict[str, Any]) -> Settings:
    """Settings from what ``serial.to_json`` made of them; a field that is missing has its default.

    Args:
        values: JSON values.

    Returns:
        The settings.

    Raises:
        TypeError: values that are no settings.
        ValueError: a value that a config refuses.
    """
    if not isinstance(values, dict) or not isinstance(values.get("model"), str):
        raise TypeError(f"{checks.shown(values)} are no settings, expected an object with a model")
    config_type = type(models.find(values["model"]).config)
    return from_json(Settings, values, {"model_config": config_type})


def differences(there: Settings, here: Settings) -> list[str]:
    """What forbids to go on with a run that is there; more epochs may."""
    found, wanted = to_json(there), to_json(here)
    more = here.training.epochs > there.training.epochs
    return [
        f"{name} is {_at(found, name)!r} there and {_at(wanted, name)!r} here"
        for name in sorted({*_names(found), *_names(wanted)})
        if _at(found, name) != _at(wanted, name) and not (name == "training.epochs" and more)
    ]


def _names(values: dict[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in values.items():
        if isinstance(value, dict):
            names += _names(value, f"{prefix}{key}.")
        else:
            names.append(prefix + key)
    return names


def _at(values: dict[str, Any], name: str) -> Any:
    for key in name.split("."):
        values = values.get(key, {}) if isinstance(values, dict) else {}
    return None if values == {} else values
