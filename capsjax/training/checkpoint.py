"""Checkpoints of a training run; the only file that imports orbax.

A checkpoint is a flat dictionary of arrays. It is complete or absent: orbax writes into a temporary
folder and renames it, and renames it again before it removes it. Its files' checksums lie beside
them. Kept are the two newest and the one with the lowest validation error.
"""

import contextlib
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from capsjax.training import hosts, seal

_KEPT = 2
_REMOVED = "removed"
_logger = logging.getLogger("capsjax")

# A checkpoint between two validations has no error to be ranked by, of which orbax warns each time.
logging.getLogger("absl").addFilter(lambda record: "`tracked_metric`" not in record.getMessage())


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        directory: the folder; made if missing.
        mend: where checkpoints newer than the newest good one are damaged, rename their folders
            and go on, with a warning that names them.

    Raises:
        OSError: it cannot be made or read.
        ValueError: it holds a damaged checkpoint.
    """

    def __init__(self, directory: Path, *, mend: bool = False):
        self.directory = directory
        self._checked: dict[int, str | None] = {}
        directory.mkdir(parents=True, exist_ok=True)
        if mend:
            self._mend()
        try:
            self._manager = ocp.CheckpointManager(
                directory.resolve(),
                options=_options(),
                item_handlers=ocp.StandardCheckpointHandler(),
            )
        except OSError:
            raise
        except Exception as error:  # it reads the metadata of all checkpoints
            self._refuse_damage(self._steps())
            raise self._damaged(directory, error) from error

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the lowest validation error (the last such), or None.

        Raises:
            ValueError: a checkpoint is damaged.
        """
        self._refuse_damage(self._steps())
        try:
            return self._manager.best_step()
        except Exception as error:
            raise self._damaged(self.directory, error) from error

    def save(self, step: int, tree: Any, *, error: float | None = None) -> None:
        """Write a checkpoint, unless there is one of this step.

        Args:
            step: training steps done.
            tree: a pytree of arrays.
            error: validation error at this step, if it was measured.

        Raises:
            OSError: the disk is full or read-only; earlier checkpoints are untouched.
        """
        if step == self.latest:
            return
        metrics = None if error is None else {"error": error}
        try:
            self._manager.save(step, args=ocp.args.StandardSave(_flatten(tree)), metrics=metrics)
            self._manager.wait_until_finished()
            if hosts.is_first():
                seal.seal(self.directory / str(step))
                self._checked.pop(step, None)
                shutil.rmtree(self.directory / _REMOVED, ignore_errors=True)
        except (OSError, ValueError) as failed:  # the storage below orbax raises the latter
            full = "No space left on device"
            reason = full if full in str(failed) else " ".join(str(failed).split())[:200]
            raise OSError(
                f"the checkpoint of step {step} could not be written in {self.directory} "
                f"({reason}): free it, or some space; earlier ones are untouched, and the same "
                "training goes on from the last"
            ) from failed

    def restore(self, step: int, like: Any) -> Any:
        """Read a checkpoint.

        Args:
            step: which one.
            like: a pytree of arrays with the expected shapes; where it has a NumPy array, the
                result has one too (JAX's would lose float64's last digits), and arrays on a mesh
                come back there, on whatever devices they were saved.

        Returns:
            The saved tree.

        Raises:
            ValueError: the folder holds no checkpoint of this step, a damaged one, or one of
                another network.
        """
        expected = {
            name: leaf
            if isinstance(leaf, np.ndarray)
            else jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=_sharding(leaf))
            for name, leaf in _flatten(like).items()
        }
        self._refuse_damage([step])
        try:
            # Compared before a byte is read: a restore that fails midway leaves reads behind.
            found = self._manager.item_metadata(step)
            _compare({name: tuple(leaf.shape) for name, leaf in expected.items()}, found)
            saved = self._manager.restore(step, args=ocp.args.StandardRestore(expected))
        # Orbax and the storage below it raise many types for a damaged folder.
        except Exception as error:
            if jax.process_count() > 1 and isinstance(error, jax.errors.JaxRuntimeError):
                raise  # another host is gone
            raise self._damaged(self.directory / str(step), error) from error
        return jax.tree.unflatten(jax.tree.structure(like), [saved[name] for name in expected])

    def seal(self, step: int) -> None:
        """Write the checksums of a checkpoint that has none: a kill came before them, say.

        To be called where it was read whole: what is wrong with it now would be sealed as right.
        """
        place = self.directory / str(step)
        if hosts.is_first() and not (place / seal.NAME).exists():
            with contextlib.suppress(OSError):  # going on is worth more
                seal.seal(place)

    def _steps(self) -> list[int]:
        names = [path.name for path in self.directory.iterdir()]
        return sorted(int(name) for name in names if name.isdigit())

    def _damage(self, step: int) -> str | None:
        """What is wrong with a checkpoint's files; each is read once."""
        if step not in self._checked:
            found = seal.damage(self.directory / str(step))
            # A training that goes on meanwhile removes older ones.
            gone = found is not None and not (self.directory / str(step)).exists()
            self._checked[step] = None if gone else found
        return self._checked[step]

    def _refuse_damage(self, steps: list[int]) -> None:
        for step in steps:
            if reason := self._damage(step):
                raise self._damaged(self.directory / str(step), ValueError(reason))

    def _mend(self) -> None:
        steps = self._steps()
        good = [step for step in steps if self._damage(step) is None]
        # Without a good one nothing is left to go on from; an older one may be the best there was.
        self._refuse_damage([step for step in steps if not good or step <= good[-1]])
        for step in steps[steps.index(good[-1]) + 1 :] if good else []:
            place = self.directory / str(step)
            aside = self.directory / f"{step}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            place.rename(aside)
            _logger.warning(
                "%s is a damaged checkpoint (%s): it was renamed to %s, and training goes on from "
                "step %d",
                *(place, self._damage(step), aside.name, good[-1]),
            )

    @staticmethod
    def _damaged(place: Path, error: Exception) -> ValueError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return ValueError(
            f"{place} is not a checkpoint of this network, or a damaged one ({reason[:200]}); "
            "remove the damaged step's folder to use an older one"
        )

    def close(self) -> None:
        """Release the folder."""
        self._manager.close()


def _options() -> ocp.CheckpointManagerOptions:
    def error(metrics: dict[str, float]) -> float:
        return metrics["error"]

    policies = ocp.checkpoint_managers
    best = policies.BestN(
        get_metric_fn=error, reverse=True, n=1, keep_checkpoints_without_metrics=False
    )
    return ocp.CheckpointManagerOptions(
        best_fn=error,
        best_mode="min",
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(_KEPT), best]),
        enable_async_checkpointing=False,
        # Renaming is one act: a removal that is broken off leaves no half checkpoint.
        todelete_subdir=_REMOVED,
    )


def _sharding(leaf: Any) -> jax.sharding.Sharding:
    there = getattr(leaf, "sharding", None)
    if isinstance(there, jax.sharding.NamedSharding):
        return there
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _compare(expected: dict[str, tuple[int, ...]], found: Any) -> None:
    if found is None:
        raise ValueError("its list of arrays is missing")
    saved = {name: tuple(array.shape) for name, array in found.tree.items()}
    for name in expected | saved:
        if expected.get(name) != saved.get(name):
            wanted, has = (f"{name} {d[name]}" if name in d else "none" for d in (expected, saved))
            raise ValueError(f"expected {wanted}, found {has}")


def _flatten(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (
            leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        )
        for path, leaf in leaves
    }
