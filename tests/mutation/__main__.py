"""``python -m tests.mutation FOLDER [NAME ...]``: do a file's own tests notice what changes in it?

Cosmic-ray changes one operator, number or word of the file at a time, in a copy of the repository.
FOLDER keeps its sessions: a run that was broken off goes on, and one that is done is shown again.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.copied import ROOT, copy_repository, environment
from tests.mutation.pointless import pointless
from tests.mutation.server import TIMED_OUT

FILES = {
    "squash": ("ops/squash.py", "ops/test_squash.py"),
    "votes": ("ops/votes.py", "ops/test_votes.py"),
    "losses": ("training/losses.py", "training/test_losses.py"),
    "dynamic": ("routing/dynamic.py", "routing/test_dynamic.py"),
    "em": ("routing/em.py", "routing/test_em.py"),
}
# What nobody confuses, or what is the same as another change: it would only make the share of those
# that are noticed look better. `==` compares names here, whose order means nothing.
LEFT_OUT = (
    r"core/ReplaceBinaryOperator_.*_(Mod|Pow|LShift|RShift|BitAnd|BitOr|BitXor)$",
    r"core/ReplaceUnaryOperator_.*_(UAdd|Invert)$",
    r"core/ReplaceComparisonOperator_Eq_(Lt|LtE|Gt|GtE)$",
)


def config_of(name: str, command: str) -> str:
    """Cosmic-ray's configuration for a file."""
    file, _ = FILES[name]
    values = {
        "module-path": f"capsjax/{file}",
        "timeout": 1000.0,  # the server has its own
        "excluded-modules": [],
        "test-command": command,
        "distributor": {"name": "local"},
        "filters": {"operators-filter": {"exclude-operators": LEFT_OUT}},
    }
    return "\n".join(_toml("cosmic-ray", values))


def _toml(table: str, values: dict) -> Iterator[str]:
    yield f"[{table}]"
    for key, value in values.items():
        if not isinstance(value, dict):
            yield f"{key} = {json.dumps(value)}"
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _toml(f"{table}.{key}", value)


def session_of(name: str, folder: Path) -> Path:
    """Where a file's results are kept, for the code and the tests as they are."""
    file, test = FILES[name]
    paths = ROOT / "capsjax" / file, ROOT / "tests" / test
    number = zlib.crc32(b"".join(path.read_bytes() for path in paths))
    return folder / f"{name}-{number:08x}.sqlite"


@contextlib.contextmanager
def serving(copy: Path, test: str, cache: Path) -> Iterator[str]:
    """A server of a file's tests; gives the command that asks it."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        path = f"{place}/socket"
        # What a change leaves as it is need not be compiled again.
        compiled = {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        command = [sys.executable, "-m", "tests.mutation.server", path, f"tests/{test}"]
        with open(copy.parent / "tests.log", "w") as log:
            server = subprocess.Popen(
                command, cwd=copy, env=environment(copy) | compiled, stdout=log, stderr=log
            )
        try:
            while not os.path.exists(path) and server.poll() is None:
                time.sleep(0.1)
            if server.poll() is not None:
                raise RuntimeError(f"the server of tests ended: see {copy.parent / 'tests.log'}")
            yield f"{sys.executable} -I -S {copy}/tests/mutation/ask.py {path}"
        finally:
            server.terminate()
            server.wait()


def cosmic_ray(copy: Path, program: str, *words: object) -> str:
    """What a command of cosmic-ray prints."""
    script = Path(sys.executable).with_name(program)
    command = [str(script), *map(str, words)]
    done = subprocess.run(command, cwd=copy, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def begin(name: str, copy: Path, config: Path, session: Path) -> None:
    """A session with all changes of a file that are to be tried."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    cosmic_ray(copy, "cosmic-ray", "init", config, session)
    cosmic_ray(copy, "cr-filter-operators", session, config)
    code = (copy / "capsjax" / FILES[name][0]).read_text()
    with use_db(str(session), WorkDB.Mode.open) as db:
        for item in list(db.pending_work_items):
            [change] = item.mutations
            changed = mutate_code(code, get_operator(change.operator_name)(), change.occurrence)
            if changed is None or pointless(code, changed):
                db.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED))


def mutate(name: str, folder: Path) -> None:
    """Try all changes of a file that were not tried yet."""
    copy, config, session = folder / "copy", folder / f"{name}.toml", session_of(name, folder)
    shutil.rmtree(copy, ignore_errors=True)  # one that was broken off may hold a change
    copy.mkdir(parents=True)
    copy_repository(copy)
    _, test = FILES[name]
    with serving(copy, test, folder / "compiled") as command:
        if subprocess.run(shlex.split(command), stdout=subprocess.DEVNULL, check=False).returncode:
            raise RuntimeError(f"the tests fail without any change: see {folder / 'tests.log'}")
        config.write_text(config_of(name, command))
        if not session.exists():
            new = session.with_suffix(".new")
            new.unlink(missing_ok=True)
            begin(name, copy, config, new)
            new.rename(session)
        cosmic_ray(copy, "cosmic-ray", "exec", config, session)


def outcome_of(output: str | None) -> str:
    """What came of a change, by what ``ask`` printed.

    Raises:
        ValueError: its tests did not run.
    """
    said = re.search(r"^exit status (\d+)$", output or "", re.MULTILINE)
    if said is None:
        raise ValueError(f"a change was not tested:\n{output}")
    return {0: "survived", TIMED_OUT: "timed out"}.get(int(said.group(1)), "killed")


def report(name: str, folder: Path) -> list[str]:
    """Those that no test noticed, then a line of the table."""
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome

    lines, session = [], session_of(name, folder)
    counts = dict.fromkeys(("killed", "timed out", "survived"), 0)
    with use_db(str(session), WorkDB.Mode.open) as db:
        left = len(list(db.pending_work_items))
        for _, result in db.completed_work_items:
            if result.worker_outcome == WorkerOutcome.SKIPPED:
                continue
            try:
                outcome = outcome_of(result.output)
            except ValueError as error:
                raise RuntimeError(f"remove {session}: {error}") from error
            counts[outcome] += 1
            if outcome != "killed":
                changed = [line for line in result.diff.splitlines() if line[:1] in "@-+"]
                lines += [f"{outcome}:", *changed]
    return [*lines, row_of(name, counts, left)]


def row_of(name: str, counts: dict[str, int], left: int) -> str:
    """A line of the table; the share is of those that a test noticed."""
    tried = sum(counts.values())
    share = f"{counts['killed'] / tried:.1%}" if tried else ""
    return f"| {' | '.join(map(str, (name, tried, *counts.values(), share, left)))} |"


def main() -> None:
    """Try the changes of all files that are named, then print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("folder", type=Path, help="outside of the repository")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(FILES)}")
    parser.add_argument("--report", action="store_true", help="try nothing, show what is there")
    options = parser.parse_args()
    if unknown := set(options.names) - set(FILES):
        parser.error(f"unknown: {', '.join(unknown)}, expected some of: {', '.join(FILES)}")
    folder, rows = options.folder.resolve(), []
    for name in options.names or FILES:
        started = time.monotonic()
        if not options.report:
            mutate(name, folder)
        *lines, row = report(name, folder)
        print("\n".join([*lines, f"{name}: {time.monotonic() - started:.0f} s in this run"]))
        rows.append(row)
    print("| file | changes | killed | timed out | survived | share | untried |")
    print("| --- | --- | --- | --- | --- | --- | --- |", *rows, sep="\n")


if __name__ == "__main__":
    main()
