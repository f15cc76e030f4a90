"""The campaign keeps what it found, whatever comes after."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults import campaign


def test_a_part_that_fails_is_said_and_leaves_the_others_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    on_disk: list[Any] = []

    def part(module: str, *options: Any) -> dict[str, Any]:
        on_disk.append(json.loads(path.read_text()) if path.exists() else None)
        if "--sigint" in options:
            raise OSError("no more processes")
        if module == "growth":
            return {"steps": 400, "megabytes": 1, "megabytes_at_end": 1, "growth": 0.0,
                    "checkpoints": 2, "compilations": 3, "compilations_after": 0}  # fmt: skip
        return {"ended": 5, "in_saves": 1, "compared": 2, "most_steps_lost": 1, "interval": 2,
                "lost": 0}  # fmt: skip

    def damaged(kind: str, *_: Any) -> dict[str, Any]:
        if kind == "config":
            raise ValueError("no such file")
        return {"cut": {"refused": 3}, "flipped": {"refused": 2, "same": 1}, "commands": 4}

    monkeypatch.setattr(campaign, "in_a_process", part)
    monkeypatch.setattr(campaign, "damaged", damaged)
    monkeypatch.setattr(campaign, "trained", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(sys, "argv", f"campaign --kinds config weights --json {path}".split())
    with pytest.raises(SystemExit) as ended:
        campaign.main()
    assert ended.value.code == 1
    before, after_kills, after_damage = on_disk
    assert before is None
    assert after_kills["kills"]["ended"] == 5
    assert after_damage["damage"].keys() == {"weights"}
    found = json.loads(path.read_text())
    assert found["failed"] == ["sigints", "config of damage"]
    assert found.keys() >= {"kills", "growth", "damage"}
    said = capsys.readouterr()
    assert "failed, and not in the table: sigints, config of damage" in said.err
    assert "no more processes" in said.err
    assert "| steps of one training | 400 |" in said.out
    assert "| weights, one bit flipped | 3 | 2 refused, 1 same | 0 |" in said.out
    assert "4 on weights" in said.out
