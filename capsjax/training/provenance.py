"""Where a result comes from: versions, machine, commit."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

# From the checkout's root on, but for what experiments and benchmarks write.
_STATUS = ("status", "--porcelain", "--", ":/", ":(top,exclude)experiments/results")


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

    Results that were not committed yet do not make it dirty: no code is among them. None where the
    code is installed outside of a checkout.
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
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git(*_STATUS))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
