"""Trainings killed at random moments, each gone on with until it ends.

``python -m tests.faults.kills --kills 200 --seed 1`` prints the figures as JSON; with ``--sigint``
each is not killed but gets SIGINT at two calls to the file system that follow each other. It must
run in a process of its own: what is forked must not have computed anything yet.
"""

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import victim
from tests.faults.victim import INTERVAL, Ended, Moment


@dataclass
class Campaign:
    """Trainings that are ended early.

    Args:
        folder: for all that they write.
        goal: how many are to be ended.
        seed: of the moments.
        level: train ``Level``, not a network.
        sigint: by two SIGINTs instead of SIGKILL.
    """

    folder: Path
    goal: int
    seed: int
    level: bool = False
    sigint: bool = False

    def run(self) -> dict[str, Any]:
        """End so many trainings; every one is compared with one that was left alone.

        Returns:
            ``ended`` early, how many of them ``in_saves``, ``compared`` at their end, ``lost`` (did
            not go on, or ended otherwise, with what they said in ``why``), ``most_steps_lost``.
        """
        self.chance = random.Random(self.seed)
        self.found: dict[str, Any] = {"ended": 0, "in_saves": 0, "compared": 0, "lost": 0}
        self.found |= {"most_steps_lost": 0, "interval": INTERVAL, "why": [], "seed": self.seed}
        victim.lay_data(self.folder)
        for name in ("alone", "again"):  # the first one fills the compilation cache
            place = self.folder / name
            place.mkdir()
            self.usual = victim.bear(place, level=self.level)
            if self.usual.status:
                raise RuntimeError(f"the undisturbed training failed: {self.usual.said}")
        self.wanted = victim.end_of(self.folder / "alone")
        while self.found["ended"] < self.goal:
            place = Path(tempfile.mkdtemp(dir=self.folder))
            if complaint := self._one_run(place):
                self.found["lost"] += 1
                self.found["why"].append(complaint)
            shutil.rmtree(place)
        return self.found

    def _one_run(self, place: Path) -> str:
        """End a run again and again, until it comes to its end; what is wrong, or nothing."""
        before: Ended | None = None
        while True:
            moment = self._draw() if self.found["ended"] < self.goal else Moment()
            ended = victim.bear(place, moment, level=self.level)
            if before is not None and ended.resumed >= 0:
                lost = before.done - ended.resumed
                self.found["most_steps_lost"] = max(self.found["most_steps_lost"], lost)
                if lost > INTERVAL:
                    return f"{lost} steps lost before {moment}"
            if "Traceback" in ended.said:
                return f"{moment}: {ended.said}"
            if ended.killed or (self.sigint and os.waitstatus_to_exitcode(ended.status) == 130):
                self.found["ended"] += 1
                self.found["in_saves"] += ended.in_save
                before = ended if ended.resumed >= 0 else before
                continue
            if ended.status:
                return f"status {ended.status} at {moment}: {ended.said}"
            self.found["compared"] += 1
            end = victim.end_of(place)
            different = [name for name in self.wanted if end.get(name) != self.wanted[name]]
            return f"other {', '.join(different)} than undisturbed" if different else ""

    def _draw(self) -> Moment:
        """A moment of one of three kinds: in time, at a call, or inside a save."""
        chance, calls = self.chance, self.usual.calls
        if self.sigint:
            return Moment(call=chance.randint(1, calls // 2), number=signal.SIGINT, times=2)
        kind = chance.choice(("time", "call", "save"))
        if kind == "time":
            return Moment(after=chance.uniform(0, self.usual.seconds / 2))
        if kind == "call":
            return Moment(call=chance.randint(1, calls // 2))
        return Moment(save=chance.randint(1, 5), after=chance.uniform(0, 0.15))


def main() -> None:
    """Run the campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--level", action="store_true", help="train by fit, not by the command")
    parser.add_argument("--sigint", action="store_true", help="by two SIGINTs instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = Campaign(Path(folder), options.kills, options.seed, options.level, options.sigint)
        print(json.dumps(made.run()))


if __name__ == "__main__":
    main()
