"""``capsjax models``: the networks, one of them layer by layer, and who goes with which routing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tyro
from flax import nnx

from capsjax import models, routing
from capsjax.cli.options import parse, print_json, table
from capsjax.models.summary import summary
from capsjax.serial import to_json


@dataclass(frozen=True)
class Models:
    """List the networks as they were published, or the layers of one.

    Without NAME: every form with its parameters and its published number. With NAME: what each
    layer gives for one image, its parameters and its floating-point operations (a multiply-add is
    two).
    """

    name: tyro.conf.Positional[str | None] = None
    """network whose layers to list"""
    dataset: str | None = None
    """data set of the form that is meant; None is any"""
    form: int = 1
    """which form of these, where there are several, from 1 on"""
    image_shape: tuple[int, int, int] | None = None
    """height, width and channels, instead of the form's"""
    num_classes: int | None = None
    """number of classes, instead of the form's"""
    routing: str | None = None
    """routing algorithm, as listed by capsjax routings, or package.module of your own"""
    depth: int = 1
    """2 lists the layers of the layers too, and so on"""
    pairs: bool = False
    """list which routing each network can take"""
    json: bool = False
    """print JSON instead of a table"""


def models_command(arguments: Sequence[str]) -> None:
    """Print all networks, the layers of one, or the allowed pairs."""
    options = parse(Models, arguments, "capsjax models")
    if options.name is not None:
        if options.pairs:
            raise ValueError("--pairs is of all networks: leave the name out")
        return _layers(options)
    given = [
        f"--{field.replace('_', '-')}"
        for field in ("dataset", "form", "image_shape", "num_classes", "routing", "depth")
        if getattr(options, field) != getattr(Models, field)
    ]
    if given:
        raise ValueError(
            f"{given[0]} is for the layers of one network: capsjax models NAME {given[0]} ..."
        )
    return _pairs(options.json) if options.pairs else _forms(options.json)


def _forms(as_json: bool) -> None:
    rows = [
        {
            "name": name,
            "dataset": form.dataset,
            "image_shape": form.image_shape,
            "classes": form.num_classes,
            "differs": _differences(form.config, model.config),
            "parameters": form.parameters,
            "published": form.published,
            "note": form.note,
            "source": model.source,
            "config": to_json(form.config),
        }
        for name, model in models.MODELS.items()
        for form in model.forms
    ]
    if as_json:
        print_json(rows)
    else:
        shown = ("name", "dataset", "parameters", "published", "source", "differs")
        table(
            ("name", "data set", *shown[2:5], "differs from the default by"),
            [
                [f"{row[key]:,}" if key == "parameters" else str(row[key]) for key in shown]
                for row in rows
            ],
        )


def _layers(options: Models) -> None:
    name = str(options.name)
    form = _form(name, options.dataset, options.form)
    classes = form.num_classes if options.num_classes is None else options.num_classes
    network: Any = nnx.eval_shape(
        partial(
            models.create,
            name,
            image_shape=options.image_shape or form.image_shape,
            num_classes=classes,
            config=form.config,
            routing=options.routing,
        )
    )
    rows = summary(network, depth=options.depth)
    parameters, flops = (sum(values) for values in zip(*(row[3:] for row in rows), strict=True))
    chosen = getattr(network.config, "routing", None)
    described: dict[str, Any] = {
        "name": name,
        "image_shape": network.image_shape,
        "classes": network.num_classes,
        "routing": None if chosen is None else routing.name_of(chosen),
        "parameters": parameters,
        "flops": flops,
    }
    if options.json:
        print_json({**described, "layers": [row._asdict() for row in rows]})
        return
    routed = "no routing" if chosen is None else f"{described['routing']} routing"
    print(
        f"{name}, {_by(network.image_shape)} to {network.num_classes} classes, {routed}: "
        f"{parameters:,} parameters, {flops:,} FLOPs for one image\n"
    )
    table(
        ("layer", "class", "output", "parameters", "FLOPs"),
        [
            (
                row.path or "between these",
                row.kind,
                _by(row.output_shape),
                f"{row.parameters:,}",
                f"{row.flops:,}",
            )
            for row in rows
        ],
    )


def _form(name: str, dataset: str | None, number: int) -> models.Form:
    forms = models.find(name).forms
    fitting = [form for form in forms if dataset in (None, form.dataset)]
    if not fitting:
        known = ", ".join(dict.fromkeys(form.dataset for form in forms))
        raise ValueError(
            f"{name} has no form for {dataset!r}, expected one of: {known}; for other images give "
            "--image-shape and --num-classes"
        )
    if not 1 <= number <= len(fitting):
        raise ValueError(f"form is {number}, expected 1 to {len(fitting)}")
    return fitting[number - 1]


def _differences(config: Any, default: Any) -> str:
    """What tells a form's config from the network's default one."""
    found, usual = to_json(config), to_json(default)
    words = []
    for key, value in found.items():
        if value == usual[key]:
            continue
        if key != "routing":
            words.append(f"{key}={value}")
        elif value["algorithm"] != usual[key]["algorithm"]:
            words.append(f"routing={value['algorithm']}")
        else:
            inner = [f"{name}={value[name]}" for name in value if value[name] != usual[key][name]]
            words += [f"routing.{word}" for word in inner]
    return " ".join(words) or "-"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _pairs(as_json: bool) -> None:
    pairs = models.pairs()
    if as_json:
        print_json(pairs)
        return
    reasons = list(dict.fromkeys(why for row in pairs.values() for why in row.values() if why))

    def cell(why: str | None) -> str:
        return "yes" if why is None else f"no [{reasons.index(why) + 1}]"

    table(
        ("network", *routing.ALGORITHMS),
        [(name, *map(cell, row.values())) for name, row in pairs.items()],
    )
    for number, why in enumerate(reasons, 1):
        print(f"[{number}] {why}")
