"""The long form of the fault campaign: all figures, as a table and as JSON.

``python -m tests.faults.campaign`` runs it whole; ``--kills 0``, ``--steps 0`` and ``--kinds``
leave parts out. ``--json FILE`` keeps the figures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.faults import damage
from tests.training.small import cache_environment

_FOUND = ("refused", "older", "dropped", "same", "changed")
_BAD = ("silent", "traceback")


def damaged(kind: str, cuts: int, flips: int, seed: int) -> dict[str, Any]:
    """Figures of one kind of file."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CAPSJAX_MANUAL_DIR"] = f"{folder}/raw"
        os.environ["CAPSJAX_DATA_DIR"] = f"{folder}/prepared"
        Path(folder, "raw").mkdir()
        found = damage.KINDS[kind](Path(folder), cuts=cuts, flips=flips, seed=seed)
    return {how: dict(counts) for how, counts in found.items()}


def in_a_process(module: str, *options: Any) -> dict[str, Any]:
    """The JSON that a module of the campaign prints."""
    with tempfile.TemporaryDirectory() as cache:
        ended = subprocess.run(
            [sys.executable, "-m", f"tests.faults.{module}", *map(str, options)],
            env={**os.environ, **cache_environment(Path(cache))},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(ended.stdout.splitlines()[-1])


def table(figures: dict[str, Any]) -> str:
    """The figures in Markdown."""
    rows = ["| fault | cases | came to | lost or silent |", "| --- | --- | --- | --- |"]
    names = {"kills": "SIGKILL at a random moment", "sigints": "SIGINT twice at a random call"}
    for key, name in names.items():
        if key in figures:
            each = figures[key]
            came = (
                f"{each['in_saves']} inside a save; {each['compared']} runs compared at their end, "
                f"at most {each['most_steps_lost']} steps lost, with {each['interval']} between "
                "checkpoints"
            )
            rows.append(f"| {name} | {each['ended']} | {came} | {each['lost']} |")
    for kind, found in figures.get("damage", {}).items():
        for how, word in (("cut", "cut short"), ("flipped", "one bit flipped")):
            counts = Counter(found[how])
            came = ", ".join(f"{counts[name]} {name}" for name in _FOUND if counts[name])
            bad = sum(counts[name] for name in _BAD)
            rows.append(f"| {kind}, {word} | {counts.total()} | {came} | {bad} |")
    if "growth" in figures:
        each = figures["growth"]
        came = (
            f"{each['megabytes']} MB after the warm-up, {each['megabytes_at_end']} MB at the end "
            f"({each['growth']:+.2%}); {each['compilations']} compilations, "
            f"{each['compilations_after']} of them after the second epoch"
        )
        rows.append(f"| steps of one training | {each['steps']:,} | {came} | 0 |")
    return "\n".join(rows)


def main() -> None:
    """Run what was asked for; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--sigints", type=int, default=20)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--kinds", nargs="*", choices=list(damage.KINDS), default=None)
    parser.add_argument("--level", action="store_true", help="kill trainings of one parameter")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {"seed": options.seed, "damage": {}}
    kinds = damage.KINDS if options.kinds is None else options.kinds
    level = ["--level"] if options.level else []
    for name, count, more in (
        ("kills", options.kills, level),
        ("sigints", options.sigints, [*level, "--sigint"]),
    ):
        if count:
            counts = ("--kills", count, "--seed", options.seed, *more)
            figures[name] = in_a_process("kills", *counts)
    for kind in kinds:
        figures["damage"][kind] = damaged(kind, options.cuts, options.flips, options.seed)
    if options.steps:
        figures["growth"] = in_a_process("growth", "--steps", options.steps)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures))


if __name__ == "__main__":
    main()
