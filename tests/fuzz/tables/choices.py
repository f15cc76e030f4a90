"""Configs of every room, what makes them of JSON, and names of networks and routings."""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

from capsjax import models, routing, serial
from capsjax.data import affine_mnist, multi_mnist, recipes, rotated_mnist, translated_mnist
from capsjax.models import MODELS
from capsjax.routing import ALGORITHMS, convergence
from capsjax.training import Config, losses
from capsjax.training.settings import Settings, settings_of
from tests.fuzz.judge import Row


def _made(kind: type) -> Callable[..., tuple[()]]:
    """A config is refused, or usable: it is finite, and the key of a compiled function."""

    def make(**fields: Any) -> tuple[()]:
        config = kind(**fields)
        assert all(math.isfinite(x) for x in _numbers(fields.values())), config
        hash(config)
        json.dumps(serial.to_json(config))
        return ()

    return make


def _numbers(values: Any) -> list[float]:
    found = []
    for value in values:
        if isinstance(value, tuple):
            found += _numbers(value)
        elif isinstance(value, float):
            found.append(value)
    return found


def _config(name: str, config: Any) -> Row:
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return Row(f"{name}.Config", _made(type(config)), fields, compiled=False)


_SETTINGS = serial.to_json(
    Settings("capsnet", "mnist", MODELS["capsnet"].config, Config(), (28, 28, 1), ("a", "b"))
)
_TABLED = {
    "loop": convergence.Loop(),
    "losses": losses.Config(),
    "training": Config(),
    "multi_mnist": multi_mnist.Config(),
    "affine_mnist": affine_mnist.Config(),
    "translated_mnist": translated_mnist.Config(),
    "rotated_mnist": rotated_mnist.Config(),
}
_BY_KIND = {type(model.config): (name, model.config) for name, model in MODELS.items()}
_SMALL = {"image_shape": (28, 28, 1), "num_classes": 3, "rngs": 0}


def _created(**arguments: Any) -> None:
    models.nnx.eval_shape(lambda: models.create(**arguments))


ROWS = [
    *(_config(name, config) for name, config in _TABLED.items()),
    *(_config(name, module.Config()) for name, module in ALGORITHMS.items()
      if dataclasses.fields(module.Config)),
    *(_config(f"models.{name}", config) for name, config in _BY_KIND.values()),
    Row("models.find", models.find, {"name": "capsnet"}, False),
    Row("models.create", _created,
        {"name": "capsnet", "routing": "em", "config": MODELS["capsnet"].config, **_SMALL}, False),
    Row("models.create of efficient_cnn", _created, {"name": "efficient_cnn", **_SMALL}, False),
    Row("routing.find", routing.find, {"name": "em"}, False),
    Row("routing.config_of", routing.config_of, {"routing": "em"}, False),
    Row("routing.algorithm_of", routing.algorithm_of, {"config": ALGORITHMS["em"].Config()}, False),
    Row("recipes.find", recipes.find, {"name": "cifar10_sabour"}, False),
    Row("recipes.shape_after", recipes.shape_after,
        {"name": "cifar10_sabour", "image_shape": (32, 32, 3)}, False),
    Row("settings_of", settings_of, {"values": _SETTINGS}, False,
        hides="what names and notes hold is not looked at"),
    Row("from_json", serial.from_json, {"kind": losses.Config,
        "values": serial.to_json(losses.Config())}, False, only=("values",)),
]  # fmt: skip
