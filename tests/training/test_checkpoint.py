"""Checkpoints: complete or absent, the newest and the best kept, damage named."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from capsjax.training.checkpoint import Checkpoints
from tests.training.small import assert_same_bits, do_damage, files_below, orbax_leftovers

pytestmark = orbax_leftovers


def tree(value: float) -> dict[str, Any]:
    return {
        "weights": jnp.full((3, 2), value) / 3,
        "count": jnp.asarray(7, jnp.int32),
        "half": jnp.full(4, value, jnp.bfloat16),
        "nested": (jnp.array(float(value)), [jnp.arange(5, dtype=jnp.uint8)]),
    }


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    opened = Checkpoints(tmp_path / "a" / "checkpoints")
    yield opened
    opened.close()
    gc.collect()


def reopened(checkpoints: Checkpoints) -> Checkpoints:
    return Checkpoints(checkpoints.directory)


@pytest.mark.core
def test_what_was_saved_comes_back_to_the_bit(checkpoints: Checkpoints) -> None:
    saved = tree(1.7)
    checkpoints.save(3, saved)
    assert_same_bits(checkpoints.restore(3, tree(0.0)), saved)


@pytest.mark.core
def test_another_process_s_manager_finds_the_newest_and_the_best(checkpoints: Checkpoints) -> None:
    for step, error in ((1, 0.5), (2, 0.2), (3, 0.4)):
        checkpoints.save(step, tree(step), error=error)
    other = reopened(checkpoints)
    assert (other.latest, other.best) == (3, 2)
    assert_same_bits(other.restore(2, tree(0.0)), tree(2))
    other.close()


def test_an_empty_folder_has_neither(checkpoints: Checkpoints) -> None:
    assert checkpoints.directory.is_dir()
    assert checkpoints.latest is None
    assert checkpoints.best is None


def test_a_checkpoint_without_an_error_is_never_the_best(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save(1, tree(1))
    assert not caplog.records, "it is no reason to warn"
    assert (checkpoints.latest, checkpoints.best) == (1, None)
    checkpoints.save(2, tree(2), error=0.9)
    checkpoints.save(3, tree(3))
    assert (checkpoints.latest, checkpoints.best) == (3, 2)


@pytest.mark.core
def test_kept_are_the_two_newest_and_the_best(checkpoints: Checkpoints) -> None:
    for step in range(1, 8):
        checkpoints.save(step, tree(step), error={2: 0.1}.get(step, 0.5))
    assert sorted(int(folder.name) for folder in checkpoints.directory.iterdir()) == [2, 6, 7]
    assert_same_bits(checkpoints.restore(2, tree(0.0)), tree(2))


def test_an_error_of_0_is_the_best(checkpoints: Checkpoints) -> None:
    checkpoints.save(1, tree(1), error=0.0)
    checkpoints.save(2, tree(2), error=0.3)
    assert checkpoints.best == 1


def test_saving_a_step_again_changes_nothing(checkpoints: Checkpoints) -> None:
    checkpoints.save(1, tree(1), error=0.5)
    checkpoints.save(1, tree(2), error=0.1)
    assert_same_bits(checkpoints.restore(1, tree(0.0)), tree(1))


def test_shapes_alone_are_enough_to_restore(checkpoints: Checkpoints) -> None:
    checkpoints.save(1, tree(1))
    like = jax.eval_shape(lambda: tree(0.0))
    assert_same_bits(checkpoints.restore(1, like), tree(1))


@pytest.mark.core
def test_a_step_that_was_not_saved_is_a_value_error(checkpoints: Checkpoints) -> None:
    checkpoints.save(1, tree(1))
    with pytest.raises(ValueError, match="checkpoints/5 is not a checkpoint"):
        checkpoints.restore(5, tree(0.0))


OTHERS = {
    "a larger array": {"weights": jnp.zeros((4, 2))},
    "a smaller array": {"weights": jnp.zeros((2, 2))},
    "another rank": {"weights": jnp.zeros(6)},
    "one array more": {"more": jnp.zeros(3)},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_of_another_network_is_a_value_error(
    checkpoints: Checkpoints, what: str
) -> None:
    checkpoints.save(1, tree(1))
    with pytest.raises(ValueError, match="checkpoints/1 is not a checkpoint of this network"):
        checkpoints.restore(1, {**tree(0.0), **OTHERS[what]})


def test_a_checkpoint_of_a_network_with_one_array_more_is_a_value_error(
    checkpoints: Checkpoints,
) -> None:
    checkpoints.save(1, {**tree(1), "more": jnp.zeros(3)})
    with pytest.raises(ValueError, match="checkpoints/1 is not a checkpoint of this network"):
        checkpoints.restore(1, tree(0.0))


@pytest.mark.core
@pytest.mark.parametrize("damage", ["overwritten", "truncated", "deleted"])
def test_a_damaged_checkpoint_is_named(checkpoints: Checkpoints, damage: str) -> None:
    checkpoints.save(1, tree(1), error=0.5)
    checkpoints.close()
    for path in files_below(checkpoints.directory / "1" / "default"):
        do_damage(path, damage)
    other = reopened(checkpoints)
    with pytest.raises(ValueError, match=r"checkpoints/1 is not a checkpoint.*damaged"):
        other.restore(1, tree(0.0))
    other.close()


def test_damage_to_any_single_file_gives_the_saved_values_or_a_value_error(
    checkpoints: Checkpoints,
) -> None:
    checkpoints.save(1, tree(1), error=0.5)
    checkpoints.close()
    for path in files_below(checkpoints.directory):
        content = path.read_bytes()
        for damaged in (b"garbage", content[: len(content) // 2], None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            try:
                other = reopened(checkpoints)
                assert other.best in (None, 1)
                assert_same_bits(other.restore(1, tree(0.0)), tree(1))
                other.close()
            except ValueError:
                pass
            path.write_bytes(content)


def test_an_unfinished_checkpoint_does_not_count(checkpoints: Checkpoints) -> None:
    checkpoints.save(1, tree(1), error=0.5)
    checkpoints.close()
    # Where orbax was killed before it renamed its temporary folder.
    folder = checkpoints.directory / "2.orbax-checkpoint-tmp"
    folder.mkdir()
    (folder / "half").write_bytes(b"garbage")
    other = reopened(checkpoints)
    assert (other.latest, other.best) == (1, 1)
    other.save(2, tree(2), error=0.4)
    assert_same_bits(other.restore(2, tree(0.0)), tree(2))
    other.close()


def test_a_folder_below_a_regular_file_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="Not a directory"):
        Checkpoints(tmp_path / "file" / "checkpoints")
