"""The metrics file: what is written, read, dropped and refused."""

import json
import sys
from pathlib import Path

import pytest

from capsjax.training import metric_log
from capsjax.training.metric_log import MetricLog

ENTRIES = [
    {"step": 1, "split": "train", "loss": 0.1},
    {"step": 2, "split": "train", "loss": 1 / 3},
    {"step": 2, "split": "validation", "error": 0.25},
    {"step": 3, "split": "train", "loss": 1e-30},
]


def lines(*entries: dict) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


@pytest.mark.core
def test_entries_reach_the_disk_with_a_flush_and_memory_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path)
    log.write(1, "train", {"loss": 0.1})
    log.write(2, "train", {"loss": 1 / 3})
    assert log.history == ENTRIES[:2]
    assert not path.exists()
    log.flush()
    assert path.read_text() == lines(*ENTRIES[:2])
    log.write(2, "validation", {"error": 0.25})
    log.close()
    log.close()
    assert path.read_text() == lines(*ENTRIES[:3])


@pytest.mark.core
def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*ENTRIES))
    assert metric_log.read(path) == ENTRIES


@pytest.mark.core
def test_a_resume_drops_the_lines_after_its_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*ENTRIES))
    log = MetricLog(path)
    log.resume(2)
    assert log.history == ENTRIES[:3]
    assert path.read_text() == lines(*ENTRIES[:3])
    log.write(3, "train", {"loss": 1e-30})
    log.flush()
    assert path.read_text() == lines(*ENTRIES)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_resume_at_step_0_starts_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*ENTRIES))
    log = MetricLog(path)
    log.resume(0)
    assert log.history == []
    assert path.read_text() == ""


def test_a_resume_without_a_file_starts_with_nothing(tmp_path: Path) -> None:
    log = MetricLog(tmp_path / "metrics.jsonl")
    log.resume(5)
    assert log.history == []


def test_without_a_path_everything_stays_in_memory(tmp_path: Path) -> None:
    log = MetricLog(None)
    log.resume(5)
    log.write(6, "train", {"loss": 0.5})
    log.close()
    assert log.history == [{"step": 6, "split": "train", "loss": 0.5}]


@pytest.mark.core
@pytest.mark.parametrize("kept", range(1, len(lines(ENTRIES[3])) - 1))
def test_a_last_line_cut_short_anywhere_is_left_out(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*ENTRIES[:3]) + lines(ENTRIES[3])[:kept])
    assert metric_log.read(path) == ENTRIES[:3]
    log = MetricLog(path)
    log.resume(3)
    log.write(3, "train", {"loss": 1e-30})
    log.flush()
    assert metric_log.read(path) == ENTRIES


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(ENTRIES[0]) + '{"step": 2, "sp\n' + lines(*ENTRIES[2:]))
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        metric_log.read(path)


def test_a_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        metric_log.read(tmp_path / "metrics.jsonl")


def test_a_history_is_its_entries_in_little_memory() -> None:
    entries = [
        {"step": step, "split": "train", "loss": 1 / (step + 1), "accuracy": 0.5 * step}
        for step in range(1, 2001)
    ]
    entries[5:5] = [{"step": 5, "split": "validation", "error": 0.25}]
    history = metric_log.History(entries[:3])
    for entry in entries[3:]:
        history.append(entry)
    assert history == entries
    assert entries == history
    assert history[5] == {"step": 5, "split": "validation", "error": 0.25}
    assert history[-2:] == entries[-2:]
    assert [*history] != entries[1:]
    with pytest.raises(IndexError):
        history[len(entries)]
    arrays = [value for value in vars(history).values() if not isinstance(value, list)]
    assert sum(map(sys.getsizeof, arrays)) / len(entries) < 80  # bytes; a list of these takes 500
