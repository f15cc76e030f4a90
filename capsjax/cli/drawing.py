"""``capsjax figures``: every picture of a trained network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from capsjax import data, pretrained
from capsjax.cli import pictures
from capsjax.cli.options import parse, print_json
from capsjax.cli.pictures import Subject, Without, drawn
from capsjax.training import metric_log, run


@dataclass(frozen=True)
class Figures:
    """Draw a trained network: its layers, what it says, and what happens inside."""

    run: tyro.conf.Positional[Path]
    """run directory as made by capsjax train, file of capsjax export, or name listed by capsjax
    pretrained; a path that is there comes first"""
    folder: Path | None = None
    """where the pictures go; by default RUN/figures of a run directory, else figures/NAME"""
    beside: Path | None = None
    """another network of the same images and classes, a CNN for instance, to draw beside"""
    image: int = 0
    """number of the test image that is looked at closely"""
    json: bool = False
    """print one JSON object instead: file by picture, and the reason where there is none"""


def figures_command(arguments: Sequence[str]) -> None:
    """Draw all, a file each."""
    options = parse(Figures, arguments, "capsjax figures")
    trained, _ = pretrained.find(options.run)
    arrays = data.find(trained.settings.dataset).load("test")
    if not 0 <= options.image < len(arrays["image"]):
        raise ValueError(
            f"--image is {options.image}, expected 0 to {len(arrays['image']) - 1}, the test images"
        )
    beside = None
    if options.beside is not None:
        other, _ = pretrained.find(options.beside)
        _check_same(options, trained, other)
        beside = (_name_beside(options), other)
    ours = options.run.is_dir()
    log = options.run / "metrics.jsonl"
    name = pretrained.name_of(options.run)
    folder = options.folder or (options.run / "figures" if ours else Path("figures") / name)
    subject = Subject(
        name=name,
        run=trained,
        arrays=arrays,
        evaluation=trained.evaluate(arrays, reconstruct=True),
        history=metric_log.read(log) if ours and log.is_file() else (),
        image=options.image,
        beside=beside,
    )
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, str] = {}
    without: dict[str, str] = {}
    for name, figure in drawn(subject):
        if isinstance(figure, Without):
            without[name] = str(figure)
            continue
        path = folder / f"{name}.png"
        pictures.write(figure, path, dpi=150)
        written[name] = str(path)
        if not options.json:
            print(path, flush=True)
    if options.json:
        print_json({"pictures": written, "without": without})
        return
    for name, reason in without.items():
        print(f"not drawn: {name}, {reason}")


def _name_beside(options: Figures) -> str:
    """Of the other network; with its folder where both would have one name."""
    assert options.beside is not None
    name = pretrained.name_of(options.beside)
    if name != pretrained.name_of(options.run):
        return name
    if options.beside.resolve() == options.run.resolve():
        raise ValueError(f"--beside is {options.beside}, the network itself: give another one")
    return f"{options.beside.resolve().parent.name}/{name}"


def _check_same(options: Figures, ours: run.Run, other: run.Run) -> None:
    """Refuse to draw networks of other images or classes beside each other."""
    for what, one, two in (
        ("images", ours.settings.shape_of_data, other.settings.shape_of_data),
        ("classes", ours.settings.class_names, other.settings.class_names),
    ):
        if one != two:
            raise ValueError(
                f"--beside {options.beside} takes {what} {two}, {options.run} {one}: give a "
                f"network of the same {what}"
            )
