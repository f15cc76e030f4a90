"""A command that is interrupted before it began anything says nothing and leaves nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


# A module from the start of the imports, one from the midst, one from the end.
@pytest.mark.parametrize("module", ["numpy", "flax.core", "capsjax.cli.options"])
def test_a_sigint_among_the_imports_is_no_traceback(tmp_path: Path, module: str) -> None:
    command = [sys.executable, "-m", "capsjax", "train", "--workdir", str(tmp_path / "run")]
    # What pytest was told to ignore would be ignored by its children, too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    said = []
    with process:
        assert process.stderr is not None
        for line in process.stderr:  # a line a module
            said.append(line)
            if line.split("|")[-1].strip() == module:
                break
        process.send_signal(signal.SIGINT)
        said += process.stderr.readlines()
    assert process.returncode == 130
    assert all(line.startswith("import time:") for line in said), said
    assert said[-1].split("|")[-1].strip() != "capsjax.cli"
    assert list(tmp_path.iterdir()) == []
