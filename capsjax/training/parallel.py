"""Data-parallel training: a mesh of one axis, what lies on it how, and functions cut along it.

Parameters and the optimizer's state lie whole on every device, a batch is cut along its examples.
The loss and its gradient run under ``jax.shard_map``: a device sees its own examples and nothing
of the others' but sums. Left to the partitioner, the same program would gather all votes on every
device of a CPU (``ops.votes`` loops over examples there).

What is of a whole batch takes the axis' name: batch normalisation, dropout, and every module of a
user's own that has an attribute ``axis_name``.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"

# They have the attribute too, but normalise each example by itself: with the name they would
# average it with those that lie at its place on the other devices.
_OF_BATCH = nnx.Not(nnx.Any(nnx.LayerNorm, nnx.InstanceNorm, nnx.GroupNorm, nnx.RMSNorm))

Tree = TypeVar("Tree")


def make_mesh(devices: int | None, batch_size: int) -> Mesh | None:
    """The mesh to train on.

    Args:
        devices: how many devices; None is one, or where several hosts train together all of theirs.
        batch_size: images of a step.

    Returns:
        A mesh of the axis "data", the devices of a host side by side; None for a single device.

    Raises:
        ValueError: there are fewer devices, they cannot share the batch evenly, or they are not all
            of several hosts'.
    """
    there, hosts = jax.device_count(), jax.process_count()
    if devices is None:
        devices = there if hosts > 1 else 1
    if not 1 <= devices <= there:
        raise ValueError(
            f"devices is {devices}, expected 1 to {there}, which is how many there are; on a CPU "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={max(devices, 1)} in the "
            "environment makes more"
        )
    if hosts > 1 and devices != there:
        raise ValueError(
            f"devices is {devices}, but {hosts} hosts train together on all of their {there} "
            "devices: leave devices out"
        )
    if batch_size % devices:
        raise ValueError(
            f"batch_size is {batch_size}, which {devices} devices cannot share evenly: expected a "
            f"multiple of {devices}"
        )
    if devices == 1:
        return None
    each = Counter(device.process_index for device in jax.devices())
    if len(set(each.values())) > 1:
        raise ValueError(
            f"the hosts have {sorted(each.values())} devices, expected as many on each: a batch is "
            "read in equal parts"
        )
    chosen = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(chosen[:devices]), (AXIS,))


def host_mesh(mesh: Mesh | None) -> Mesh | None:
    """This host's part of a mesh, on which it can compute by itself; None for a single device."""
    if mesh is None or mesh.local_mesh.size == 1:
        return None
    return mesh.local_mesh


def on_all(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, P())


def cut(mesh: Mesh) -> NamedSharding:
    """Cut along the first axis."""
    return NamedSharding(mesh, P(AXIS))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays, the same on every host, whole on every device of a mesh."""

    def place(leaf: Any) -> jax.Array:
        return jax.make_array_from_process_local_data(on_all(mesh), np.asarray(leaf))

    return jax.tree.map(place, tree)


def own_copy(tree: Tree) -> Tree:
    """Copies, on one device of this host, of arrays that lie whole on every device."""
    return jax.tree.map(lambda leaf: jnp.copy(leaf.addressable_data(0)), tree)


def name_axis(network: nnx.Module) -> None:
    """Tell all parts of a network whose batch is cut how they find the rest of it."""
    network.set_attributes(_OF_BATCH, axis_name=AXIS, raise_if_not_found=False)


def gather(array: jax.Array) -> jax.Array:
    """All examples of the batch, inside a function that sees a part of them."""
    return jax.lax.all_gather(array, AXIS, tiled=True)


def averaged(function: Callable[..., tuple[Any, Any, Any]], mesh: Mesh) -> Callable[..., Any]:
    """Means over the devices of what a function gives for its part of the batch.

    Args:
        function: ``(params, rest, margin, *parts) -> (gradients, metrics, rest)``; gradients and
            metrics are means over examples, and the rest is the same on every device.
        mesh: over which the parts are cut.

    Returns:
        A function of whole batches.
    """

    def of_part(*arguments: Any) -> tuple[Any, Any, Any]:
        gradients, metrics, rest = function(*arguments)
        return *jax.lax.pmean((gradients, metrics), AXIS), rest

    # Without the check of what varies: custom gradients and loops' start values do not declare it.
    return jax.shard_map(
        of_part,
        mesh=mesh,
        in_specs=(P(), P(), P(), P(AXIS), P(AXIS), P(AXIS), P(AXIS)),
        out_specs=P(),
        check_vma=False,
    )


def by_example(function: Callable[..., Tree], mesh: Mesh | None) -> Callable[..., Tree]:
    """A function ``(whole, parts) -> parts``, run by each device on its own examples."""
    if mesh is None:
        return function
    return jax.shard_map(
        function, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS), check_vma=False
    )
