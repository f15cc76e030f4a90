"""Files cut short and with flipped bits: found, named, never silently another result."""

from pathlib import Path

import pytest

from tests.faults import damage
from tests.training.small import orbax_leftovers

# What costs milliseconds a case is done in full; the rest by ``python -m tests.faults.campaign``.
FULL = {"cuts": 50, "flips": 200}
SHORT = {"cuts": 8, "flips": 24}
COUNTS = {"config": FULL, "weights": FULL, "metrics": FULL}


@orbax_leftovers
@pytest.mark.parametrize("kind", damage.KINDS)
def test_no_damage_is_silent_and_none_is_a_traceback(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPSJAX_MANUAL_DIR", str(tmp_path / "raw"))
    monkeypatch.setenv("CAPSJAX_DATA_DIR", str(tmp_path / "prepared"))
    (tmp_path / "raw").mkdir()
    counts = COUNTS.get(kind, SHORT)
    found = damage.KINDS[kind](tmp_path, **counts, seed=0)
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
