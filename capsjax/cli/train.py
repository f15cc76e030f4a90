"""``capsjax train``: from options to a trained run directory with pictures."""

import argparse
import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from capsjax import data, figures, models, routing
from capsjax.cli.options import parse, without
from capsjax.training import loop, losses, run
from capsjax.training.evaluation import Evaluation


def train(arguments: Sequence[str]) -> None:
    """Train, test once, draw."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # Without a value: the full parser below says so.
    first.add_argument("--model", nargs="?", const="capsnet", default="capsnet")
    first.add_argument("--preset", nargs="?")
    first.add_argument("--routing", nargs="?")
    chosen, _ = first.parse_known_args(arguments)
    model = models.find(chosen.model)
    kind = _train_options(model, chosen.preset, chosen.routing)
    options: Any = parse(kind, arguments, "capsjax train")
    dataset = data.find(options.dataset)
    named = options.dataset in data.names()
    settings = run.Settings(
        model=options.model,
        dataset=options.dataset if named else str(Path(options.dataset).resolve()),
        model_config=_model_config(model, options),
        training=options.training,
        image_shape=dataset.image_shape,
        class_names=dataset.class_names,
    )
    workdir = options.workdir or Path("runs") / f"{options.model}-{Path(options.dataset).stem}"
    summary = run.finished(workdir, settings)
    if summary is not None:
        print(f"{workdir} is trained to its end; more --epochs continue it")
    else:
        print(f"training {options.model} on {options.dataset} in {workdir}", flush=True)
        *_, summary = run.train(
            settings,
            dataset,
            workdir,
            command=shlex.join(["capsjax", "train", *arguments]),
            progress=True,
            feed=options.feed,
            draw=partial(_draw, workdir / "figures", dataset),
        )
    low, high = summary["test_error_interval_95"]
    print(
        f"{summary['parameters']:,} parameters, {summary['steps']:,} steps in "
        f"{summary['seconds']:.0f} s ({summary['images_per_second']:.0f} images/s)\n"
        f"validation error {summary['validation_error']:.2%}\n"
        f"test error {summary['test_error']:.2%} (95 % interval {low:.2%} to {high:.2%}, "
        f"{summary['test_errors']} of {summary['test_images']:,})\n"
        f"summary in {workdir / 'summary.json'}, pictures in {workdir / 'figures'}"
    )


def _model_config(model: models.Model, options: Any) -> Any:
    values = vars(options.model_config)
    if hasattr(model.config, "routing"):
        values = {**values, "routing": options.routing_config}
    return type(model.config)(**values)


def _train_options(model: models.Model, preset: str | None, routing_name: str | None) -> type:
    if preset is not None and preset not in model.presets:
        raise ValueError(f"unknown preset {preset!r}, expected one of: {', '.join(model.presets)}")
    preset_name, training_config = preset, _training_config(model, preset)
    model_type: Any = without(type(model.config), "routing")
    fields = [field.name for field in dataclasses.fields(model_type)]
    model_defaults = model_type(**{name: getattr(model.config, name) for name in fields})
    routing_defaults = (
        model.config.routing if routing_name is None else routing.config_of(routing_name)
    )
    routing_type: Any = type(routing_defaults)

    @dataclass(frozen=True)
    class Train:
        """Train a network, or go on with a run that was stopped (same options, same --workdir)."""

        model: str = "capsnet"
        """network, as listed by capsjax models"""
        dataset: str = "mnist"
        """name listed by capsjax datasets, an .npz file with image and label, or a folder with one
        folder of images per class"""
        workdir: Path | None = None
        """run directory; by default runs/MODEL-DATASET"""
        preset: str | None = preset_name
        """named starting values for the options below: quick (one epoch on 10,000 images)"""
        feed: loop.Feed = "auto"
        """training images: held on the device, streamed from the host, or held if they fit"""
        training: Annotated[loop.Config, tyro.conf.arg(name="")] = training_config
        model_config: Annotated[model_type, tyro.conf.arg(name="model")] = model_defaults
        routing: str = routing.name_of(routing_defaults)
        """routing algorithm, as listed by capsjax routings, or package.module of your own"""
        routing_config: Annotated[routing_type, tyro.conf.arg(name="routing")] = routing_defaults
        """choices of the routing algorithm"""

    return Train


def _training_config(model: models.Model, preset: str | None) -> loop.Config:
    values = {**model.training, **({} if preset is None else model.presets[preset])}
    loss = losses.Config(**values.pop("loss", {}))
    return loop.Config(**values, loss=loss)


def _draw(folder: Path, dataset: data.Dataset, result: loop.Result, evaluation: Evaluation) -> None:
    folder.mkdir(exist_ok=True)
    test, names = dataset.load("test"), dataset.class_names
    prediction = evaluation.prediction
    pictures = {
        "learning_curves": figures.learning_curves(result.history),
        "mistakes": figures.mistakes(test["image"], test["label"], prediction.activations, names),
        "confusion": figures.confusion(evaluation.confusion, names),
    }
    if prediction.reconstructions is not None:
        few = slice(0, 12)
        pictures["reconstructions"] = figures.reconstructions(
            test["image"][few],
            prediction.reconstructions[few],
            [names[label] for label in test["label"][few]],
            [names[label] for label in prediction.labels[few]],
        )
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
