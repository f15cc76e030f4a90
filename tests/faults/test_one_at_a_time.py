"""A run directory belongs to one process at a time, and to nobody once that one is dead."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from capsjax.training import lock, loop
from tests.training.small import Level, flat_images

TAKEN = "another process trains in .*run: wait for its end, or give another work directory"
HOLD = """
import sys
from pathlib import Path
from capsjax.training import lock
with lock.alone_in(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def hold(workdir: Path) -> subprocess.Popen:
    """A process that has the directory until it is told to go."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"mine\n"
    return process


def fit(workdir: Path) -> loop.Result:
    config = loop.Config(epochs=1, batch_size=2, validation=2)
    return loop.fit(Level(), flat_images(range(10, 90, 10)), config, workdir=workdir)


def test_a_second_process_is_refused_and_may_go_on_when_the_first_is_killed(
    tmp_path: Path,
) -> None:
    workdir = tmp_path / "run"
    with hold(workdir) as first:
        with pytest.raises(ValueError, match=TAKEN):
            fit(workdir)
        assert [path.name for path in workdir.iterdir()] == [lock.NAME]
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert fit(workdir).steps == 3
    assert not (workdir / lock.NAME).exists()


def test_a_second_thread_is_refused_and_a_call_within_is_not(tmp_path: Path) -> None:
    workdir, said = tmp_path / "run", []

    def other() -> None:
        try:
            with lock.alone_in(workdir):
                said.append("taken")
        except ValueError as error:
            said.append(str(error))

    with lock.alone_in(workdir):
        with lock.alone_in(tmp_path / "elsewhere" / ".." / "run"):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert said[0].startswith("another process trains in")
        assert fit(workdir).steps == 3
    other()
    assert said[1] == "taken"
    assert os.listdir(workdir / "..") == ["run"]


def test_of_many_that_come_and_go_only_one_at_a_time_is_inside(tmp_path: Path) -> None:
    """The file is removed and made anew all the time; no two may hold two of that name."""
    inside, entered, clashes = [], [0], [0]

    def come_and_go() -> None:
        for _ in range(300):
            try:
                with lock.alone_in(tmp_path):
                    inside.append(1)
                    clashes[0] += len(inside) > 1
                    entered[0] += 1
                    inside.pop()
            except ValueError:
                pass

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered[0] > 0
    assert clashes[0] == 0


def test_what_lies_in_a_directory_is_no_lock(tmp_path: Path) -> None:
    for name in (lock.NAME, "lock"):  # the first as a kill leaves it, the other one the user's own
        (tmp_path / name).write_text("precious")
    with lock.alone_in(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
