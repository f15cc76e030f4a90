"""What users type, given files that are damaged: a line and a status, never a traceback."""

import contextlib
import io
import itertools
import logging
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest import mock

from PIL import Image
from tqdm import tqdm

from capsjax.cli import dispatch
from capsjax.cli import pictures as drawn_by_commands
from tests.faults.naming import names
from tests.faults.victim import lay_data
from tests.training.small import compiled_once

Command = Callable[[Path, str], str | None]
TRAIN = shlex.split(
    "train --model.features 4 --model.kernel-size 3 --model.primary-types 1 --model.no-decoder "
    "--epochs 2 --batch-size 8 --validation 8 --learning-rate 0.01 --dataset {data} --workdir {it}"
)
EVALUATE = ["evaluate", "{it}"]
EXPORT = ["export", "{it}", "{folder}/again.safetensors"]
# By kind, those that read such a file; one after the other.
READERS = {
    "checkpoints": [EVALUATE, TRAIN],
    "config": [EVALUATE, TRAIN, EXPORT],
    "summary": [TRAIN, EXPORT],
    "weights": [["predict", "{it}", "{image}"], EVALUATE],
    "prepared data": [["datasets", "verify", "kmnist"], ["datasets", "show", "kmnist"]],
    "metrics": [TRAIN, EXPORT, ["figures", "{it}"]],
}


@dataclass
class Commands:
    """Commands in this process, each on a copy of what is damaged.

    Attributes:
        folder: holds ``run``, a training at its end, and what commands write.
        every: of so many cases, one is read by a command, too; 0 for none.
        statuses: how often each was met.
    """

    folder: Path
    every: int
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def run(self) -> Path:
        """The training; to be copied."""
        return self.folder / "run"

    @property
    def exported(self) -> Path:
        """Its network, in a file."""
        return self.folder / "exported.safetensors"

    def on(self, kind: str, place: Path) -> Command | None:
        """Asks the next command of a kind where it is due.

        Args:
            kind: of the file that is damaged.
            place: the run, file or data set that it belongs to.

        Returns:
            ``command(path, outcome)``: what is wrong with what the command says of damage to
            ``path``, where the library came to ``outcome``; None if nothing. None if no command is
            ever due.
        """
        cases = itertools.count(1)

        def command(path: Path, outcome: str) -> str | None:
            return None if next(cases) % self.every else self._complaint(kind, place, path, outcome)

        return command if self.every else None

    def _complaint(self, kind: str, place: Path, bad: Path, outcome: str) -> str | None:
        readers = READERS[kind]
        line = readers[sum(self.statuses.values()) % len(readers)]
        copy = place
        # Prepared data has its place from the environment, not from the command line.
        if kind != "prepared data":
            copy = self.folder / f"copy{place.suffix}"
            (shutil.copytree if place.is_dir() else shutil.copyfile)(place, copy)
        if line is TRAIN and kind != "summary":  # a run with a summary is read no further
            (copy / "summary.json").unlink()
        try:
            status, said = self.call(line, copy)
        except BaseException as error:
            logging.getLogger(__name__).exception("%s", line)
            return f"{line[0]} ended with {error!r}"
        finally:
            if copy != place:
                shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
        self.statuses[status] += 1
        if status == 0 and outcome in ("same", "older", "dropped", "changed"):
            return None
        lines = said.splitlines()
        right = status == 2 and len(lines) == 1 and lines[0].startswith("capsjax: ")
        if right and names(lines[0], copy / bad.relative_to(place), copy):
            return None
        return f"{line[0]} ended with status {status} and said {said!r}; the library: {outcome}"

    def call(self, line: list[str], it: Path) -> tuple[int, str]:
        """A command's status, and what it wrote to stderr."""
        given = {
            "it": it,
            "folder": self.folder,
            "data": self.folder / "digits.npz",
            "image": self.folder / "digit.png",
        }
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = dispatch([word.format(**given) for word in line])
        return status, said.getvalue()


@contextlib.contextmanager
def trained(folder: Path, *, every: int = 0) -> Iterator[Commands]:
    """Commands with a small CapsNet to work on; of pictures they draw the learning curves only."""
    lay_data(folder)
    Image.new("L", (10, 10), 100).save(folder / "digit.png")
    found = Commands(folder, every)
    curves = {"learning_curves": drawn_by_commands.PICTURES["learning_curves"]}

    with (
        compiled_once(folder / "compiled"),
        mock.patch("capsjax.cli.train._draw"),
        mock.patch.dict(drawn_by_commands.PICTURES, curves, clear=True),
        mock.patch("capsjax.training.loop.tqdm", partial(tqdm, disable=True)),
    ):
        for line in (TRAIN, ["export", "{it}", str(found.exported)]):
            status, said = found.call(line, found.run)
            assert status == 0, said
        yield found
