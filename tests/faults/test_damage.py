"""Files cut short and with flipped bits: found, named, never silently another result."""

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import pytest

from capsjax.training import loop, metric_log, seal
from capsjax.training.checkpoint import Checkpoints
from capsjax.training.settings import read_settings, write_settings
from tests.faults import damage
from tests.faults.commands import Commands, trained
from tests.training.small import Level, assert_same_bits, flat_images, orbax_leftovers
from tests.training.test_run import SETTINGS

# What costs milliseconds a case is done in full; the rest by ``python -m tests.faults.campaign``.
FULL = {"cuts": 50, "flips": 200}
SHORT = {"cuts": 8, "flips": 24}
COMMANDS = 4  # for each kind
COUNTS = {"config": FULL, "summary": FULL, "weights": FULL, "metrics": FULL}


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with trained(tmp_path_factory.mktemp("trained")) as found:
        yield found


@orbax_leftovers
@pytest.mark.parametrize("kind", damage.KINDS)
def test_no_damage_is_silent_and_none_is_a_traceback(
    kind: str, tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPSJAX_MANUAL_DIR", str(tmp_path / "raw"))
    monkeypatch.setenv("CAPSJAX_DATA_DIR", str(tmp_path / "prepared"))
    (tmp_path / "raw").mkdir()
    counts = COUNTS.get(kind, SHORT)
    commands = dataclasses.replace(
        commands, every=sum(counts.values()) // COMMANDS, statuses=Counter()
    )
    found = damage.KINDS[kind](tmp_path, commands, **counts, seed=0)
    assert commands.statuses.total() >= COMMANDS
    assert commands.statuses.keys() <= {0, 2}
    assert found["cut"].total() == counts["cuts"]
    assert found["flipped"].total() == counts["flips"]
    together = found["cut"] + found["flipped"]
    assert together["silent"] == together["traceback"] == 0, together
    least = {"checkpoints": "older", "metrics": "dropped"}.get(kind, "refused")
    assert together[least] > 0
    # What is left the same are blanks, and a file's last line break.
    if kind not in ("metrics", "checkpoints"):
        assert found["cut"]["same"] <= 2
        assert together["changed"] == 0


def test_only_a_message_that_names_the_file_is_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "run" / "config.json"
    path.parent.mkdir()

    def outcome(said: str) -> Counter[str]:
        def read(path: Path) -> str:
            raise ValueError(said)

        path.write_text("{}")
        return damage.outcomes([path], read, path.parent, cuts=1, flips=0, seed=0)["cut"]

    for said in (f"{path} is damaged", f"'{path}': no JSON", f"{path.parent}: damaged"):
        assert outcome(said) == {"refused": 1}, said
    for said in (
        "no run / no file",
        f"{tmp_path} is empty",
        f"{path}.partial is damaged",
        f"{path.parent / 'metrics.jsonl'} is damaged",
        f"{path.parent}2 is damaged",
    ):
        assert outcome(said) == {"traceback": 1}, said


# One case of each, looked at closely


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three checkpoints, the first of them the best."""
    writer = Checkpoints(tmp_path / "checkpoints")
    for step, error in ((1, 0.1), (2, 0.3), (3, 0.2)):
        writer.save(step, {"x": jnp.full(3, step)}, error=error)
    writer.close()
    return writer.directory


def spoil(folder: Path) -> None:
    path = folder / "metrics" / "metrics"
    path.write_text(path.read_text().replace("0.", "0.0"))  # JSON still, of another error


def test_a_damaged_newest_checkpoint_gives_way_to_an_older_and_is_written_anew(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(place / "3")
    opened = Checkpoints(place, mend=True)
    assert (opened.latest, opened.best) == (2, 1)
    [said] = caplog.messages
    assert f"{place / '3'} is a damaged checkpoint (metrics/metrics has changed)" in said
    assert said.endswith("renamed to 3.damaged, and training goes on from step 2")
    opened.save(3, {"x": jnp.full(3, 3)}, error=0.2)
    opened.close()
    again = Checkpoints(place)
    assert (again.latest, again.best) == (3, 1)
    again.close()
    assert sorted(path.name for path in place.iterdir()) == ["1", "2", "3", "3.damaged"]


@pytest.mark.parametrize("steps", [("1",), ("2",), ("1", "2", "3")])
def test_an_older_damaged_checkpoint_and_all_of_them_are_refused(
    place: Path, steps: tuple[str, ...]
) -> None:
    for step in steps:
        spoil(place / step)
    before = sorted(place.rglob("*"))
    with pytest.raises(ValueError, match=rf"{place / steps[0]} is not a checkpoint .*damaged"):
        Checkpoints(place, mend=True)
    opened = Checkpoints(place)
    with pytest.raises(ValueError, match=rf"{place / steps[0]} is not a checkpoint .*damaged"):
        print(opened.best)
    opened.close()
    assert sorted(place.rglob("*")) == before


def test_a_checkpoint_without_checksums_is_one_of_an_older_version(place: Path) -> None:
    for checksums in place.rglob("sha256.json"):
        checksums.unlink()
    opened = Checkpoints(place, mend=True)
    assert (opened.latest, opened.best) == (3, 1)
    opened.close()


def test_a_checkpoint_that_a_training_removes_while_it_is_looked_at_is_not_damaged(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, look = Checkpoints(place), seal.damage

    def slowly(folder: Path) -> str | None:
        if folder.name == "2":
            shutil.rmtree(folder / "metrics")
            found = look(folder)
            assert found is not None
            shutil.rmtree(folder)
            return found
        return look(folder)

    monkeypatch.setattr(seal, "damage", slowly)
    assert reader.best == 1
    reader.close()


def fit(workdir: Path, epochs: int) -> loop.Result:
    images = flat_images(range(10, 250, 20), label=0)
    options = {"batch_size": 2, "validation": 2, "learning_rate": 0.1, "checkpoint_every": 2}
    config = loop.Config(epochs=epochs, schedule="recipe", **options)
    return loop.fit(Level(), images, config, workdir=workdir)


def test_a_checkpoint_that_a_kill_left_without_checksums_gets_them_when_the_run_goes_on(
    tmp_path: Path,
) -> None:
    fit(tmp_path / "run", 2)
    place = tmp_path / "run" / "checkpoints" / "10"
    kept = (place / "sha256.json").read_bytes()
    (place / "sha256.json").unlink()
    (place / "sha256.partial").write_text("{")  # nor does what the kill left of them matter
    opened = Checkpoints(place.parent)  # who looks at a run writes nothing into it
    assert opened.latest == 10
    assert opened.best is not None
    opened.close()
    assert not (place / "sha256.json").exists()
    fit(tmp_path / "run", 2)
    assert (place / "sha256.json").read_bytes() == kept
    spoil(place)
    with pytest.raises(ValueError, match=f"{place} is not a checkpoint .*damaged"):
        print(Checkpoints(place.parent).best)


def test_a_run_whose_newest_checkpoint_is_damaged_ends_with_the_bits_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    wanted = fit(tmp_path / "undisturbed", 3)
    fit(tmp_path / "run", 2)
    spoil(tmp_path / "run" / "checkpoints" / "10")
    found = fit(tmp_path / "run", 3)
    assert_same_bits(found.state, wanted.state)
    assert found.history == wanted.history


def test_a_changed_config_is_named_and_one_changed_on_purpose_says_how(tmp_path: Path) -> None:
    write_settings(tmp_path, SETTINGS)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match=rf"^{path} is damaged.*remove its sha256$"):
        read_settings(tmp_path)
    values = json.loads(path.read_text())
    del values["sha256"]
    path.write_text(json.dumps(values))
    assert read_settings(tmp_path).training.seed == 1


@pytest.mark.parametrize(
    "line",
    [
        b"5",
        b'{"step": 99999999999999999999, "split": "train"}',
        b'{"split": "train"}',
        b'{"step": 1.5, "split": "train"}',
        b"\xff",
        b"[]",
    ],
)
def test_a_line_that_is_none_of_metrics_is_named(
    tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    good = b'{"step": 1, "split": "train", "loss": 0.5}'
    path.write_bytes(b"\n".join([line, good]))
    with pytest.raises(ValueError, match=rf"{path}, line 1, is not a line of metrics"):
        metric_log.read(path)
    path.write_bytes(b"\n".join([good, line]))
    assert metric_log.read(path) == [{"step": 1, "split": "train", "loss": 0.5}]
    assert caplog.messages == [f"{path}: the last line, 2, is broken and was left out"]


def test_lines_that_are_gone_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "split": "train", "loss": 0.5}\n')
    metric_log.MetricLog(path).resume(4)
    [said] = caplog.messages
    assert said.startswith(f"{path} has lost the metrics of 3 steps, the first of them 2")


def test_a_validation_of_a_step_that_was_not_trained_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [f'{{"step": {step}, "split": "train", "loss": 0.5}}\n' for step in (1, 2)]
    path.write_text("".join(lines) + '{"step": 3, "split": "validation", "error": 0.5}\n')
    metric_log.MetricLog(path).resume(2)
    [said] = caplog.messages
    assert said.startswith(f"{path} has lost the metrics of 1 steps, the first of them 3")
