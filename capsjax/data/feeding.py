"""Batches for training: gathered on the device that holds the images, or streamed from the host.

Which examples step n sees is a function of (key, n): in epoch e they come in the order of a
permutation drawn with ``fold_in(key, e)``, and an incomplete last batch is left out. Both ways give
the same batches, and a run that was stopped goes on with the step it had come to. On a mesh a batch
is cut along its examples, and every host reads or makes its own part only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from capsjax.data.dataset import Arrays, Made

Batch = Mapping[str, Array | np.ndarray]

# Images that fill more of an accelerator's memory than this are streamed.
_SHARE = 0.25
_PREFETCHED = 4


class Order:
    """Which examples each step sees.

    Args:
        count: number of examples.
        batch_size: examples of a step.
        key: a JAX random key.

    Raises:
        ValueError: fewer examples than one batch.
    """

    def __init__(self, count: int, batch_size: int, key: Array):
        if not 1 <= batch_size <= count:
            raise ValueError(f"batch_size is {batch_size}, expected 1 to {count}, all examples")
        self.count, self.batch_size, self.key = count, batch_size, key
        self.steps_per_epoch = count // batch_size
        self.of_epoch = lru_cache(maxsize=2)(self._draw)

    def _draw(self, epoch: int) -> Array:
        numbers = jnp.arange(self.count, dtype=jnp.int32)
        return jax.random.permutation(jax.random.fold_in(self.key, epoch), numbers)

    def indices(self, step: int) -> np.ndarray:
        """Numbers of a step's examples, int32 ``[batch_size]``."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.asarray(self.of_epoch(epoch))
        return order[place * self.batch_size : (place + 1) * self.batch_size]


def held(
    arrays: Arrays, order: Order, made: Made | None = None, mesh: Mesh | None = None
) -> Callable[[int], Batch]:
    """Batches of arrays that lie on the device.

    Args:
        arrays: each with an axis of examples in front.
        order: which of them a step sees.
        made: pictures to make of them; epoch k has variant k of each.
        mesh: of one axis; every device then holds all arrays and takes its part of a batch.

    Returns:
        A function from a step to its batch, on the device.
    """
    whole = made.prepare(arrays) if made and made.prepare else arrays

    def take(device: dict[str, Array], chosen: Array, epoch: Array) -> Batch:
        if made is None:
            return {name: array[chosen] for name, array in device.items()}
        key = jax.random.key(made.seed)
        return jax.vmap(lambda n: made.example(key, device, n, epoch, made.config))(chosen)

    if mesh is not None:
        return _held_on(mesh, whole, order, take)
    device = {name: jnp.asarray(array) for name, array in whole.items()}

    def gather(device: dict[str, Array], permutation: Array, place: Array, epoch: Array) -> Batch:
        chosen = jax.lax.dynamic_slice_in_dim(
            permutation, place * order.batch_size, order.batch_size
        )
        return take(device, chosen, epoch)

    compiled = jax.jit(gather)

    def batch(step: int) -> Batch:
        epoch, place = divmod(step, order.steps_per_epoch)
        return compiled(device, order.of_epoch(epoch), jnp.int32(place), jnp.int32(epoch))

    return batch


def _held_on(
    mesh: Mesh, arrays: Arrays, order: Order, take: Callable[..., Batch]
) -> Callable[[int], Batch]:
    (axis,) = mesh.axis_names
    place = jax.make_array_from_process_local_data
    device = {name: place(NamedSharding(mesh, P()), array) for name, array in arrays.items()}
    # Each device by itself: the partitioner might gather what is made.
    parts = (P(), P(axis), P())
    compiled = jax.jit(
        jax.shard_map(take, mesh=mesh, in_specs=parts, out_specs=P(axis), check_vma=False)
    )

    def batch(step: int) -> Batch:
        own = _part(order.indices(step), _this_host())
        chosen = place(NamedSharding(mesh, P(axis)), own)
        return compiled(device, chosen, np.int32(step // order.steps_per_epoch))

    return batch


def _this_host() -> tuple[int, int]:
    return jax.process_index(), jax.process_count()


def _part(indices: np.ndarray, shard: tuple[int, int]) -> np.ndarray:
    rank, hosts = shard
    share = len(indices) // hosts
    return indices[rank * share : (rank + 1) * share]


def batches(
    arrays: Arrays,
    order: Order,
    start: int,
    stop: int,
    *,
    made: Made | None = None,
    stream: bool = False,
    mesh: Mesh | None = None,
) -> Iterator[Batch]:
    """Batches of arrays on the host, one way or the other.

    Args:
        arrays: each with an axis of examples in front.
        order: which of them a step sees.
        start: the first step, 0 or the one that a stopped run had come to.
        stop: the step after the last.
        made: pictures to make of them, which needs them on the device.
        stream: read them ahead of time instead of holding them on the device.
        mesh: of one axis, along which the batches are cut; None is one device.

    Returns:
        An iterator over the batches of steps ``start`` to ``stop - 1``.

    Raises:
        ValueError: pictures to make are to be streamed.
    """
    if stream and made is not None:
        raise ValueError("pictures that are made on the device cannot be streamed from the host")
    if not stream:
        return map(held(arrays, order, made, mesh), range(start, stop))
    source = FromArrays(arrays)
    if mesh is None:
        return streamed(source, order, start, stop)
    sharding = NamedSharding(mesh, P(*mesh.axis_names))
    place = partial(jax.make_array_from_process_local_data, sharding)
    own = streamed(source, order, start, stop, shard=_this_host())
    return ({name: place(array) for name, array in batch.items()} for batch in own)


class Source(Protocol):
    """Examples by their number, such as ``tfds.data_source`` gives them."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Mapping[str, Any]]: ...


class FromArrays:
    """Arrays on the host, or mapped from a file, as a source.

    Args:
        arrays: each with an axis of examples in front.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return [{name: array[i] for name, array in self.arrays.items()} for i in indices]


class _Steps:
    """Batches by their step, in the form that grain reads."""

    def __init__(self, source: Source, order: Order, start: int, stop: int, shard: tuple[int, int]):
        self.source, self.order, self.start, self.stop = source, order, start, stop
        self.shard = shard

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, position: Any) -> dict[str, np.ndarray]:
        chosen = _part(self.order.indices(self.start + int(position)), self.shard)
        examples = self.source.__getitems__(chosen.tolist())
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def streamed(
    source: Source,
    order: Order,
    start: int,
    stop: int,
    *,
    workers: int = 2,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Batches read from a source ahead of time, by threads of grain.

    Args:
        source: of as many examples as ``order`` counts.
        order: which of them a step sees.
        start: the first step, 0 or the one that a stopped run had come to.
        stop: the step after the last.
        workers: threads that read.
        shard: this host's number and the number of hosts; each reads its part of every batch.

    Returns:
        An iterator over the batches of steps ``start`` to ``stop - 1``, in NumPy.

    Raises:
        ValueError: the source has another number of examples, the batch cannot be divided among the
            hosts, or a number is out of range.
    """
    rank, hosts = shard
    if len(source) != order.count:
        raise ValueError(f"the source has {len(source)} examples, expected {order.count}")
    if not 0 <= rank < hosts or order.batch_size % hosts:
        raise ValueError(
            f"shard is {shard} and batch_size {order.batch_size}, expected this host's number "
            "below the number of hosts, and that to divide the batch"
        )
    if workers < 1 or not 0 <= start <= stop:
        raise ValueError(
            f"workers is {workers}, start {start} and stop {stop}, expected at least one worker "
            "and 0 <= start <= stop"
        )
    import grain  # takes a second, and few stream

    steps: Any = _Steps(source, order, start, stop, shard)
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=max(_PREFETCHED, workers))
    return iter(grain.MapDataset.source(steps).to_iter_dataset(options))


def fits(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether arrays may be held on the device beside a training's own arrays.

    Args:
        arrays: on the host.

    Returns:
        False where they would take more than a quarter of an accelerator's memory; on a CPU, whose
        memory they are in already, True.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit")
    return limit is None or sum(array.nbytes for array in arrays.values()) <= _SHARE * limit
