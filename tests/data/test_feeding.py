"""Batches: the same from the device and from a stream, the same after a stop, sharded by host."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest

from capsjax.data import feeding, mnist, multi_mnist
from capsjax.data.dataset import Made
from capsjax.data.generated import examples

COUNT, BATCH = 23, 5


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (COUNT, 4, 4, 1)).astype(np.uint8),
        "label": np.arange(COUNT, dtype=np.int32),
    }


def order(seed: int = 0) -> feeding.Order:
    return feeding.Order(COUNT, BATCH, jax.random.key(seed))


def labels(batches: Any) -> list[list[int]]:
    return [np.asarray(batch["label"]).tolist() for batch in batches]


@pytest.mark.core
def test_both_ways_give_the_same_batches() -> None:
    steps = 3 * order().steps_per_epoch
    both = [
        list(feeding.batches(arrays(), order(), 0, steps, stream=stream))
        for stream in (False, True)
    ]
    assert len(both[0]) == len(both[1]) == steps
    for one, other in zip(*both, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


def test_an_epoch_shows_each_example_at_most_once_and_epochs_differ() -> None:
    found = labels(feeding.batches(arrays(), order(), 0, 8, stream=True))
    first, second = (list(itertools.chain(*epoch)) for epoch in (found[:4], found[4:]))
    for epoch in (first, second):
        assert len(epoch) == len(set(epoch)) == 20
    assert first != second
    assert labels(feeding.batches(arrays(), order(1), 0, 4)) != found[:4]


def test_examples_stay_whole() -> None:
    images = arrays()["image"]
    for stream in (False, True):
        for batch in feeding.batches(arrays(), order(), 0, 4, stream=stream):
            np.testing.assert_array_equal(batch["image"], images[np.asarray(batch["label"])])


@pytest.mark.core
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("start", [3, 4, 7])
def test_one_that_goes_on_sees_what_it_would_have_seen(start: int, stream: bool) -> None:
    whole = labels(feeding.batches(arrays(), order(), 0, 9))
    assert labels(feeding.batches(arrays(), order(), start, 9, stream=stream)) == whole[start:]


def test_hosts_read_their_parts_of_every_batch() -> None:
    wide = feeding.Order(COUNT, 6, jax.random.key(0))
    source = feeding.FromArrays(arrays())
    whole = labels(feeding.batches(arrays(), wide, 0, 5))
    parts = [labels(feeding.streamed(source, wide, 0, 5, shard=(rank, 3))) for rank in range(3)]
    assert [list(itertools.chain(*pieces)) for pieces in zip(*parts, strict=True)] == whole


def test_pictures_that_are_made_change_with_the_epoch() -> None:
    base = {key: value[:40] for key, value in mnist.read("test").items()}
    made = Made(multi_mnist.example, multi_mnist.PAPER, 7, multi_mnist.prepare)
    few = feeding.Order(40, 20, jax.random.key(0))
    batches = list(feeding.batches(base, few, 0, 4, made=made))
    for step, batch in enumerate(batches):
        chosen, epoch = few.indices(step), step // 2
        variants = np.full(20, epoch, np.int32)
        prepared = multi_mnist.prepare(base)
        expected = examples(multi_mnist.example, prepared, 7, chosen, variants, multi_mnist.PAPER)
        for name, array in expected.items():
            np.testing.assert_array_equal(batch[name], array)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: feeding.Order(4, 5, jax.random.key(0)), "batch_size is 5, expected 1 to 4"),
        (lambda: feeding.streamed(feeding.FromArrays(arrays()), order(), 0, 1, workers=0), "work"),
        (lambda: feeding.streamed(feeding.FromArrays(arrays()), order(), 2, 1), "start 2 and stop"),
        (
            lambda: feeding.streamed(feeding.FromArrays(arrays()), order(), 0, 1, shard=(0, 2)),
            r"shard is \(0, 2\) and batch_size 5",
        ),
        (
            lambda: feeding.streamed(feeding.FromArrays({"label": np.arange(4)}), order(), 0, 1),
            "the source has 4 examples, expected 23",
        ),
    ],
)
def test_what_cannot_be_fed_is_refused(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def test_on_a_cpu_everything_fits() -> None:
    assert feeding.fits(arrays())
