"""Where a result comes from: versions, machine, commit."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax


def surroundings() -> dict[str, Any]:
    """Versions, machine, and the commit of the code that runs, as a summary holds them."""
    packages = ("capsjax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "platform": f"{jax.default_backend()}, {jax.device_count()} device(s)",
        **commit(),
    }


def commit() -> dict[str, Any]:
    """``{"commit": hash or None, "dirty": bool or None}`` of the checkout that this code is in.

    None where the code is installed outside of one.
    """

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
