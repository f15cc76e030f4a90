"""The long form of the fault campaign: all figures, as a table and as JSON.

``python -m tests.faults.campaign`` runs it whole; ``--kills 0``, ``--steps 0`` and ``--kinds``
leave parts out. ``--json FILE`` keeps the figures, those of every part as soon as it ends; one that
fails leaves the others theirs, is named, and the status is 1.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any

from capsjax.training.json_file import write_json
from tests.faults import damage
from tests.faults.commands import Commands, trained
from tests.training.small import cache_environment

_FOUND = ("refused", "older", "dropped", "same", "changed")
_BAD = ("silent", "traceback")


def damaged(kind: str, commands: Commands, cuts: int, flips: int, seed: int) -> dict[str, Any]:
    """Figures of one kind of file; ``commands`` counts those that read it, too."""
    commands = dataclasses.replace(commands, statuses=Counter())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CAPSJAX_MANUAL_DIR"] = f"{folder}/raw"
        os.environ["CAPSJAX_DATA_DIR"] = f"{folder}/prepared"
        Path(folder, "raw").mkdir()
        found = damage.KINDS[kind](Path(folder), commands, cuts=cuts, flips=flips, seed=seed)
    counts = {how: dict(counts) for how, counts in found.items()}
    return {**counts, "commands": commands.statuses.total()}


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


class Figures:
    """What was found so far, on the disk after every part; a part that fails is left out and said.

    Args:
        path: of the JSON; None keeps none.
        found: to begin with.
    """

    def __init__(self, path: Path | None, found: dict[str, Any]):
        self.path, self.found = path, found
        self.failed: list[str] = []

    def add(self, part: Callable[[], Any], *place: str) -> None:
        """Do a part and keep what it gives at its place among the figures."""
        try:
            value = part()
        except Exception:
            traceback.print_exc()
            self.failed.append(" of ".join(reversed(place)))
        else:
            reduce(dict.__getitem__, place[:-1], self.found)[place[-1]] = value
        if self.path is not None:
            write_json(self.path, {**self.found, "failed": self.failed})


def all_damaged(figures: Figures, kinds: list[str], options: argparse.Namespace) -> Any:
    """Add every kind of file, one by one; all of them."""
    with tempfile.TemporaryDirectory() as folder, trained(Path(folder), every=10) as commands:
        for kind in kinds:
            counts = (options.cuts, options.flips, options.seed)
            figures.add(partial(damaged, kind, commands, *counts), "damage", kind)
    return figures.found["damage"]


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
    asked = {kind: found["commands"] for kind, found in figures.get("damage", {}).items()}
    for kind, found in figures.get("damage", {}).items():
        for how, word in (("cut", "cut short"), ("flipped", "one bit flipped")):
            counts = Counter(found[how])
            came = ", ".join(f"{counts[name]} {name}" for name in _FOUND if counts[name])
            bad = sum(counts[name] for name in _BAD)
            rows.append(f"| {kind}, {word} | {counts.total()} | {came} | {bad} |")
    if asked:
        came = ", ".join(f"{count} on {kind}" for kind, count in asked.items())
        rows.append(
            f"| commands, on damaged files among those above | {sum(asked.values())} | {came} | 0 |"
        )
    if "growth" in figures:
        each = figures["growth"]
        came = (
            f"{each['megabytes']} MB after the warm-up, {each['megabytes_at_end']} MB at the end "
            f"({each['growth']:+.2%}); {each['checkpoints']} checkpoints; {each['compilations']} "
            f"compilations, {each['compilations_after']} of them after the second epoch"
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
    figures = Figures(options.json, {"seed": options.seed, "damage": {}})
    level = ["--level"] if options.level else []
    for name, count, more in (
        ("kills", options.kills, level),
        ("sigints", options.sigints, [*level, "--sigint"]),
    ):
        if count:
            counts = ("--kills", count, "--seed", options.seed, *more)
            figures.add(partial(in_a_process, "kills", *counts), name)
    kinds = list(damage.KINDS) if options.kinds is None else options.kinds
    if kinds:
        figures.add(partial(all_damaged, figures, kinds, options), "damage")
    if options.steps:
        figures.add(partial(in_a_process, "growth", "--steps", options.steps), "growth")
    print(table(figures.found))
    if figures.failed:
        print(f"failed, and not in the table: {', '.join(figures.failed)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
