"""Trainings killed at random moments, each gone on with until it ends.

``python -m tests.faults.kills --kills 200 --seed 1`` prints the figures as JSON. It must run in a
process of its own: what is forked must not have computed anything yet.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from tests.faults import victim
from tests.faults.victim import INTERVAL, Ended, Moment


def campaign(folder: Path, kills: int, seed: int, level: bool) -> dict[str, Any]:
    """Kill so many trainings; every one is compared with one that was left alone.

    Returns:
        ``kills``, how many of them ``in_saves``, ``ends`` that were compared, ``lost`` runs (that
        did not go on, or ended otherwise, with what they said in ``why``), and ``most_steps_lost``.
    """
    chance = random.Random(seed)
    victim.lay_data(folder)
    (folder / "alone").mkdir()
    alone = victim.bear(folder / "alone", level=level)  # it fills the compilation cache
    if alone.status:
        raise RuntimeError(f"the undisturbed training failed: {alone.said}")
    wanted = victim.end_of(folder / "alone")
    found: dict[str, Any] = {"kills": 0, "in_saves": 0, "ends": 0, "lost": 0, "why": []}
    found |= {"most_steps_lost": 0, "seed": seed}
    spans = _spans(folder, level)
    while found["kills"] < kills:
        place = Path(tempfile.mkdtemp(dir=folder))
        complaint = _one_run(place, wanted, chance, spans, found, kills, level)
        if complaint:
            found["lost"] += 1
            found["why"].append(f"{place}: {complaint}")
    return found


def _spans(folder: Path, level: bool) -> tuple[float, int]:
    """Seconds and calls to the file system from the first step to the end, compiled before."""
    place = folder / "again"
    place.mkdir()
    ended = victim.bear(place, level=level)
    return ended.seconds, ended.calls


def _one_run(
    place: Path,
    wanted: dict[str, Any],
    chance: random.Random,
    spans: tuple[float, int],
    found: dict[str, Any],
    kills: int,
    level: bool,
) -> str:
    """Kill a run until it ends; what is wrong with it, or nothing."""
    before: Ended | None = None
    while True:
        moment = _draw(chance, *spans) if found["kills"] < kills else Moment()
        ended = victim.bear(place, moment, level=level)
        if before is not None and ended.resumed >= 0:
            lost = before.done - ended.resumed
            found["most_steps_lost"] = max(found["most_steps_lost"], lost)
            if lost > INTERVAL:
                return f"{lost} steps lost, at {moment}"
        if ended.killed:
            found["kills"] += 1
            found["in_saves"] += ended.in_save
            if ended.resumed >= 0:
                before = ended
            continue
        if ended.status or "Traceback" in ended.said:
            return f"status {ended.status}: {ended.said}"
        found["ends"] += 1
        end = victim.end_of(place)
        different = [name for name in wanted if end[name] != wanted[name]]
        return f"other {', '.join(different)} than undisturbed" if different else ""


def _draw(chance: random.Random, seconds: float, calls: int) -> Moment:
    """A moment of one of three kinds: in time, at a call, or inside a save."""
    kind = chance.choice(("time", "call", "save"))
    if kind == "time":
        return Moment(after=chance.uniform(0, seconds / 2))
    if kind == "call":
        return Moment(call=chance.randint(1, calls // 2))
    return Moment(save=chance.randint(1, 5), after=chance.uniform(0, 0.15))


def main() -> None:
    """Run the campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--level", action="store_true", help="train by fit, not by the command")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(campaign(Path(folder), options.kills, options.seed, options.level)))


if __name__ == "__main__":
    main()
