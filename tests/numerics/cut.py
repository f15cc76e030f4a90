"""All cases in float32 in a batch that is cut over devices; ``test_numerics`` reads the results.

``python -m tests.numerics.cut 8 FILE`` needs a process that has as many.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from capsjax.training import parallel
from tests.numerics import measure

BATCH = 8


def results(devices: int) -> dict[str, measure.Results]:
    """Of seeds 0 to 7, along a first axis."""
    batch: dict[str, Any] = {}
    for name in measure.CASES:
        drawn = [measure.drawn(name, "small", seed) for seed in range(BATCH)]
        batch[name] = jax.tree.map(lambda *leaves: np.stack(leaves).astype(np.float32), *drawn)

    def every(given: Any) -> Any:
        return {
            name: measure.differentiated(case.library)(*given[name])
            for name, case in measure.CASES.items()
        }

    function, mesh = jax.vmap(every), parallel.make_mesh(devices, BATCH)
    if mesh is not None:
        batch = jax.device_put(batch, parallel.cut(mesh))
        # Drawn shares depend on no input, which is not what its checks of varying axes expect.
        function = jax.shard_map(
            function, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False
        )
    found = jax.jit(function)(batch)
    for leaf in jax.tree.leaves(found):
        assert len(leaf.sharding.device_set) == devices
    return found


def save(file: Path, found: dict[str, measure.Results]) -> None:
    """As an archive of NumPy's, whose names are paths."""
    arrays = {
        f"{name}/{field}/{key}": np.asarray(array)
        for name, both in found.items()
        for field, arrays in both._asdict().items()
        for key, array in arrays.items()
    }
    np.savez(file, **arrays)


def read(file: Path) -> dict[str, list[measure.Results]]:
    """Results of each seed."""
    found: dict[str, list[measure.Results]] = {}
    with np.load(file) as arrays:
        for path, array in arrays.items():
            name, field, key = path.split("/")
            each = found.setdefault(name, [measure.Results({}, {}) for _ in array])
            for one, part in zip(each, array, strict=True):
                getattr(one, field)[key] = part
    return found


if __name__ == "__main__":
    save(Path(sys.argv[2]), results(int(sys.argv[1])))
