"""A small run at its end, for files made from it, and a way to call the command."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from capsjax import data
from capsjax.cli import dispatch
from capsjax.models import efficient_capsnet
from capsjax.training import Config, run
from tests.training.small import compiled_once, digits, saved_digits

# With normalisations: their running statistics are part of a network, and not of its parameters.
NARROW = efficient_capsnet.Config(features=(4, 4, 4, 8), decoder_widths=(8,))


class Finished(NamedTuple):
    """A run, the images it was tested on, and what it came to."""

    workdir: Path
    summary: dict[str, Any]
    test: data.Arrays


class Said(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(scope="package")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Two epochs on 80 digits, tested on 40; to be read only."""
    folder = tmp_path_factory.mktemp("pretrained")
    saved_digits(folder / "few.npz", 100, 40)
    path = str(folder / "few.npz")
    dataset = data.find(path)
    settings = run.settings_for(
        dataset,
        name=path,
        model="efficient_capsnet",
        model_config=NARROW,
        training=Config(epochs=2, batch_size=20, validation=20, learning_rate=0.01, seed=3),
    )
    with compiled_once(tmp_path_factory.getbasetemp() / "compiled"):
        *_, summary = run.train(
            settings, dataset, folder / "run", command="capsjax train --seed 3", progress=False
        )
        yield Finished(folder / "run", summary, digits(40, "test"))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def call(*arguments: Any) -> Said:
        capsys.readouterr()
        status = dispatch([str(argument) for argument in arguments])
        return Said(status, *capsys.readouterr())

    return call
