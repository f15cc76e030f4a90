"""``capsjax train``: from options to a trained run directory with pictures."""

import argparse
import dataclasses
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from capsjax import data, models, routing
from capsjax.cli import pictures
from capsjax.cli.options import parse, without
from capsjax.training import hosts, loop, losses, run, seeds
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
    routed = [word for word in arguments if re.match(r"--routing\b", word)]
    if routed and not hasattr(model.config, "routing"):
        raise ValueError(
            f"{chosen.model} has no capsules to route: leave {routed[0]} out, or choose another "
            "--model"
        )
    kind = _train_options(model, chosen.preset, chosen.routing)
    options: Any = parse(kind, arguments, "capsjax train")
    _join(options)  # before anything is computed
    dataset = data.find(options.dataset)
    named = options.dataset in data.names()
    settings = run.settings_for(
        dataset,
        name=options.dataset if named else str(Path(options.dataset).resolve()),
        model=options.model,
        model_config=_model_config(model, options),
        training=options.training if named else _validated(options.training, dataset, arguments),
    )
    workdir = options.workdir or Path("runs") / f"{options.model}-{Path(options.dataset).stem}"

    def one(settings: run.Settings, workdir: Path) -> dict[str, Any]:
        return _train_one(settings, workdir, dataset, options, arguments)

    if options.seeds == 1:
        one(settings, workdir)
        return
    if options.workdir is None:
        workdir = workdir.with_name(f"{workdir.name}-seeds")
    command = shlex.join(["capsjax", "train", *arguments])
    summary = seeds.train(settings, workdir, options.seeds, one, command=command)
    if hosts.is_first():
        _print_seeds(summary, workdir)


def _train_one(
    settings: run.Settings,
    workdir: Path,
    dataset: data.Dataset,
    options: Any,
    arguments: Sequence[str],
) -> dict[str, Any]:
    """A run of one seed, or what it came to if it is at its end."""
    summary = run.finished(workdir, settings)
    if summary is not None:
        print(f"{workdir} is trained to its end; more --epochs continue it")
    else:
        if hosts.is_first():
            print(f"training {options.model} on {options.dataset} in {workdir}", flush=True)
        *_, summary = run.train(
            settings,
            dataset,
            workdir,
            command=shlex.join(["capsjax", "train", *arguments]),
            progress=True,
            feed=options.feed,
            devices=options.devices,
            tensorboard=options.tensorboard,
            draw=partial(_draw, workdir / "figures", dataset, settings),
        )
    if not hosts.is_first():
        return summary
    low, high = summary["test_error_interval_95"]
    several = (
        f"; {summary['test_digit_error']:.2%} of all single digits missed"
        if "test_digit_error" in summary
        else ""
    )
    print(
        f"{summary['parameters']:,} parameters, {summary['steps']:,} steps in "
        f"{summary['seconds']:.0f} s ({summary['images_per_second']:.0f} images/s)\n"
        f"validation error {summary['validation_error']:.2%}\n"
        f"test error {summary['test_error']:.2%} (95 % interval {low:.2%} to {high:.2%}, "
        f"{summary['test_errors']} of {summary['test_images']:,}){several}\n"
        f"summary in {workdir / 'summary.json'}, pictures in {workdir / 'figures'}"
    )
    return summary


def _print_seeds(summary: dict[str, Any], workdir: Path) -> None:
    print(f"{len(summary['seeds'])} seeds, {summary['seconds']:.0f} s")
    for each in summary["runs"]:
        print(
            f"seed {each['seed']}: test error {each['test_error']:.2%}, "
            f"validation error {each['validation_error']:.2%}, {each['seconds']:.0f} s"
        )
    low, high = summary["test_error_interval_95"]
    print(
        f"mean test error {summary['test_error']:.2%} (95 % t interval over seeds {low:.2%} to "
        f"{high:.2%})\nsummary in {workdir / 'summary.json'}"
    )


def _validated(
    training: loop.Config, dataset: data.Dataset, arguments: Sequence[str]
) -> loop.Config:
    """Of the user's own images at most a tenth validates, where no number was asked for."""
    if any(re.match(r"--validation(=|$)", word) for word in arguments):
        return training
    tenth = max(1, len(dataset.load("train")["label"]) // 10)
    return dataclasses.replace(training, validation=min(training.validation, tenth))


def _join(options: Any) -> None:
    if options.coordinator:
        hosts.join(options.coordinator, options.num_hosts, options.host_id)
    elif (options.num_hosts, options.host_id) != (1, 0):
        raise ValueError(
            "--num-hosts and --host-id are of hosts that train together: give them the address of "
            "host 0 as --coordinator HOST:PORT"
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
        seeds: int = 1
        """train from so many seeds, one after another: --seed, the next one, ...; each in a run
        directory of its own, WORKDIR/seed-N, with their mean and interval in
        WORKDIR/summary.json"""
        feed: loop.Feed = "auto"
        """training images: held on the device, streamed from the host, or held if they fit"""
        devices: int | None = None
        """devices that share every batch; None is one, or all where several hosts train together"""
        tensorboard: bool = False
        """also write the metrics for TensorBoard, in WORKDIR/tensorboard; needs
        pip install 'capsjax[tensorboard]'"""
        coordinator: str = ""
        """HOST:PORT of host 0, where several hosts train together; each runs this command with its
        own --host-id and the same --workdir, on a file system that they share"""
        num_hosts: int = 1
        """how many hosts train together"""
        host_id: int = 0
        """number of this one, from 0"""
        training: Annotated[loop.Config, tyro.conf.arg(name="")] = training_config
        model_config: Annotated[model_type, tyro.conf.arg(name="model")] = model_defaults

    if not hasattr(model.config, "routing"):
        return Train
    routing_defaults = (
        model.config.routing
        if routing_name is None
        else models.chosen_routing(model.config, routing_name)
    )
    routing_type: Any = type(routing_defaults)

    @dataclass(frozen=True)
    class TrainRouted(Train):
        routing: str = routing.name_of(routing_defaults)
        """routing algorithm, as listed by capsjax routings, or package.module of your own"""
        routing_config: Annotated[routing_type, tyro.conf.arg(name="routing")] = routing_defaults
        """choices of the routing algorithm"""

    TrainRouted.__doc__ = Train.__doc__
    return TrainRouted


def _training_config(model: models.Model, preset: str | None) -> loop.Config:
    values = {**model.training, **({} if preset is None else model.presets[preset])}
    loss = losses.Config(**values.pop("loss", {}))
    return loop.Config(**values, loss=loss)


def _draw(
    folder: Path,
    dataset: data.Dataset,
    settings: run.Settings,
    result: loop.Result,
    evaluation: Evaluation,
) -> None:
    folder.mkdir(exist_ok=True)
    subject = pictures.Subject(
        name=settings.model,
        run=run.Run(result.model, settings),
        arrays=dataset.load("test"),
        evaluation=evaluation,
        history=result.history,
    )
    for name, figure in pictures.of_training(subject):
        pictures.write(figure, folder / f"{name}.png", dpi=150)
