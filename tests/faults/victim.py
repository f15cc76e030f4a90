"""A training that dies when it is told to, and what it leaves on a board that outlives it.

``bear`` is called in a process that has imported everything and computed nothing: a child forked
there trains at once, and ends as the caller wishes. It trains a network by the command that users
give, or ``Level``, which costs a third of the time, by ``fit``.
"""

import hashlib
import json
import mmap
import os
import shlex
import signal
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from capsjax import cli
from capsjax.cli import train as train_command
from capsjax.training import loop
from capsjax.training.checkpoint import Checkpoints
from capsjax.training.metric_log import MetricLog
from tests.training.small import Level, digits, flat_images

INTERVAL = 2  # steps between checkpoints; all are 15
COMMAND = shlex.split(
    "train --model.features 4 --model.kernel-size 3 --model.primary-types 1 --model.no-decoder "
    f"--epochs 3 --batch-size 8 --validation 8 --schedule recipe --checkpoint-every {INTERVAL} "
    "--dataset ../digits.npz --workdir run"
)
LEVEL = loop.Config(
    epochs=3,
    batch_size=2,
    learning_rate=0.1,
    schedule="recipe",
    validation=2,
    shift=1,
    checkpoint_every=INTERVAL,
)
_PATIENCE = 300  # seconds for a training of a few


@dataclass(frozen=True)
class Moment:
    """When a child is to die, by SIGKILL unless ``number`` says otherwise.

    ``after``: so many seconds after it went on from a checkpoint, or from the start. ``call``: at
    its so-maniest call to the file system. ``save``: so many seconds (``after``) into that save.
    All None: it lives.
    """

    after: float | None = None
    call: int | None = None
    save: int | None = None
    number: int = signal.SIGKILL
    times: int = 1


@dataclass(frozen=True)
class Ended:
    """How a child ended: its status as ``waitpid`` gives it, and what it had on its board."""

    status: int
    resumed: int
    done: int
    in_save: bool
    calls: int
    seconds: float
    said: str

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL


class Board:
    """Numbers in memory that a child shares with the process that forked it."""

    NAMES = ("resumed", "done", "in_save", "saves", "calls")

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 8 * len(self.NAMES))
        self["resumed"] = -1

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("q", self.memory, 8 * self.NAMES.index(name), value)

    def __getitem__(self, name: str) -> int:
        return struct.unpack_from("q", self.memory, 8 * self.NAMES.index(name))[0]


def lay_data(folder: Path) -> None:
    """A data set that trains in no time: real digits at every third pixel."""
    train, test = digits(48), digits(16, "test")
    np.savez(
        folder / "digits.npz",
        image=train["image"][:, ::3, ::3],
        label=train["label"],
        test_image=test["image"][:, ::3, ::3],
        test_label=test["label"],
    )


def bear(folder: Path, moment: Moment = Moment(), *, level: bool = False) -> Ended:
    """Fork a child that trains in ``folder / "run"`` until it ends or its moment comes.

    Args:
        folder: the child's own, beside the data.
        moment: when it is to die.
        level: train ``Level``, not a network.
    """
    board = Board()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            status = _live(folder, board, moment, level)
        except BaseException as error:
            print(f"Traceback of the child: {error!r}", file=sys.stderr)
            status = 99
        sys.stderr.flush()
        os._exit(status)
    status = _wait(child, board, moment)
    return Ended(
        status=status,
        resumed=board["resumed"],
        done=board["done"],
        in_save=bool(board["in_save"]),
        calls=board["calls"],
        seconds=time.monotonic() - started,
        said=(folder / "said").read_text(),
    )


def _wait(child: int, board: Board, moment: Moment) -> int:
    """Wait for its end; kill it from here where its moment is one in time."""
    due = None
    began = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        now = time.monotonic()
        if moment.after is not None and due is None:
            come = board["saves"] >= moment.save if moment.save else board["resumed"] >= 0
            due = now + moment.after if come else None
        if due is not None and now >= due:
            os.kill(child, moment.number)
            due = float("inf")
        if now - began > _PATIENCE:
            os.kill(child, signal.SIGKILL)
            raise TimeoutError("a child trained for minutes; it was ended")
        time.sleep(0.0005)


def _live(folder: Path, board: Board, moment: Moment, level: bool) -> int:
    os.chdir(folder)
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train_command._draw = lambda *_: None  # drawing takes seconds and has a test of its own
    _watch(board)
    _end_at_call(board, moment)
    if not level:
        return cli.dispatch(COMMAND)
    images = flat_images(range(10, 250, 20), label=0)
    images["label"][-2:] = 1
    try:
        loop.fit(Level(), images, LEVEL, workdir="run")
    except KeyboardInterrupt:  # as ``dispatch`` says it
        return 130
    return 0


def _watch(board: Board) -> None:
    """Have the loop's progress on the board, and what it ends with in ``ended.json``."""
    resume, write, save, fit = (
        loop._Fit._resume,
        MetricLog.write,
        Checkpoints.save,
        loop.fit,
    )

    def resume_and_say(self: Any) -> None:
        resume(self)
        board["resumed"] = board["done"] = int(self.state.step)

    def write_and_say(self: Any, step: int, split: str, values: Any) -> None:
        board["done"] = step
        write(self, step, split, values)

    def save_and_say(self: Any, step: int, tree: Any, **options: Any) -> None:
        board["saves"] += 1
        board["in_save"] = 1
        save(self, step, tree, **options)
        board["in_save"] = 0

    def fit_and_say(*arguments: Any, **options: Any) -> Any:
        result = fit(*arguments, **options)
        found = {"state": bits_of(result.state), "model": bits_of(nnx.state(result.model))}
        Path("ended.json").write_text(json.dumps({**found, "history": list(result.history)}))
        return result

    loop._Fit._resume = resume_and_say
    MetricLog.write = write_and_say
    Checkpoints.save = save_and_say
    loop.fit = fit_and_say


def _end_at_call(board: Board, moment: Moment) -> None:
    """Count what Python asks of the file system from the resume on; end at the call that is due."""
    asked = ("open", "os.", "shutil.")

    def audit(event: str, arguments: Any) -> None:
        if board["resumed"] < 0 or not event.startswith(asked) or event == "os.kill":
            return
        board["calls"] += 1
        at = 0 if moment.call is None else board["calls"] - moment.call
        if moment.call is not None and 0 <= at < moment.times:
            os.kill(os.getpid(), moment.number)

    sys.addaudithook(audit)


def bits_of(tree: Any) -> str:
    """A checksum of all arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def end_of(folder: Path) -> dict[str, Any]:
    """What a finished run came to: what must be the same whenever it was stopped in between."""
    run = folder / "run"
    names = [path.name for path in (run / "checkpoints").iterdir()]
    end = {
        **json.loads((folder / "ended.json").read_text()),
        "metrics": (run / "metrics.jsonl").read_text(),
        "steps": sorted(int(name) for name in names if name.isdigit()),
    }
    if (run / "summary.json").exists():
        summary = json.loads((run / "summary.json").read_text())
        told = ("test_errors", "test_error", "validation_error", "steps", "settings", "command")
        end |= {"summary": {name: summary[name] for name in told}}
        end |= {"config": json.loads((run / "config.json").read_text())}
    return end
