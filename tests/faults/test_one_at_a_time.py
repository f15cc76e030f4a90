"""A run directory belongs to one process at a time, and to nobody once that one is dead."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from capsjax.cli import dispatch
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


def test_a_second_command_ends_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "run"
    with hold(workdir) as first:
        status = dispatch(["train", "--preset", "quick", "--workdir", str(workdir)])
        first.communicate()
    assert status == 2
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(f"capsjax: another process trains in {workdir}: ")


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


def test_a_directory_that_is_lost_meanwhile_hides_no_other_error(tmp_path: Path) -> None:
    workdir = tmp_path / "run"

    def lose() -> None:
        with lock.alone_in(workdir):
            workdir.rename(tmp_path / "lost")
            workdir.write_text("no folder any more")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lose()
    with lock.alone_in(tmp_path / "lost"):  # the lock is nobody's
        pass


@pytest.mark.parametrize("taken", [True, False])
def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """Who had it ends between another one's opening and locking; a third may be faster."""
    seen: list[int] = []
    others: list[subprocess.Popen] = []
    real = fcntl.flock

    def flock(file: int, how: int) -> None:
        seen.append(file)
        if len(seen) == 1:
            (tmp_path / lock.NAME).unlink()
            others.extend([hold(tmp_path)] if taken else [])
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    try:
        if taken:
            with pytest.raises(ValueError, match="another process trains in"):
                lock.alone_in(tmp_path).__enter__()
        else:
            with lock.alone_in(tmp_path):
                file = os.open(tmp_path / lock.NAME, os.O_RDWR)
                with pytest.raises(BlockingIOError):
                    real(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.close(file)
    finally:
        for other in others:
            other.communicate()


# Who is inside makes a file that must not be there yet; the time between a lock file's opening and
# its locking is drawn out, since that is where two could get in.
COME_AND_GO = """
import fcntl, os, sys
from pathlib import Path
from capsjax.training import lock

real = fcntl.flock
def flock(file, how):
    os.sched_yield()
    real(file, how)
fcntl.flock = flock
folder, entered, clashes = Path(sys.argv[1]), 0, 0
children = []
for _ in range(3):
    children.append(os.fork())
    if not children[-1]:
        break
while entered < 100:
    try:
        with lock.alone_in(folder / "run"):
            entered += 1
            try:
                os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                clashes += 1
            os.sched_yield()
            (folder / "inside").unlink(missing_ok=True)
    except ValueError:
        os.sched_yield()
if not children[-1]:
    os._exit(clashes > 0)
sys.exit(clashes > 0 or any([os.wait()[1] for _ in children]))
"""


def test_of_many_processes_that_come_and_go_only_one_at_a_time_is_inside(tmp_path: Path) -> None:
    """The file is removed and made anew all the time; no two may hold two of that name."""
    command = [sys.executable, "-W", "ignore", "-c", COME_AND_GO, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_lies_in_a_directory_is_no_lock(tmp_path: Path) -> None:
    for name in (lock.NAME, "lock"):  # the first as a kill leaves it, the other one the user's own
        (tmp_path / name).write_text("precious")
    with lock.alone_in(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
