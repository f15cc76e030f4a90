"""A command that is interrupted before it began anything says nothing and leaves nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Python imports a module of this name before all else. It waits for nothing and is no race: the
# process interrupts itself when it looks for the module.
CUSTOM = """
import os, signal, sys

class Interrupting:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting)
"""


# A module from the start of the imports, one from the midst, one from the end.
@pytest.mark.parametrize("module", ["numpy", "flax.core", "capsjax.cli.options"])
def test_a_sigint_among_the_imports_is_no_traceback(tmp_path: Path, module: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(CUSTOM.format(module=module))
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    # An option that is refused, so that it does not train where no signal came.
    options = ["--workdir", str(tmp_path / "run"), "--no-such-option"]
    # What pytest was told to ignore would be ignored by its children, too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "capsjax", "train", *options],
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert [each.name for each in tmp_path.iterdir()] == ["sitecustomize.py"]
