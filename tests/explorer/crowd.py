"""Many people at once on the explorer: how long they wait, what fails, what the server holds.

``python -m tests.explorer.crowd --people 10 --seconds 120`` serves the page by the command that
users give, in a process of its own, has so many people do random things on every tab, and prints
figures as JSON. A person acts again after a pause of half a second on average, and drags sliders
without one: the next place is asked for as soon as the last was answered. Now and then one comes
anew, as a new visitor.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.explorer.visitor import Failed, Visitor, png
from tests.training.small import digits

_PAUSE = 0.5  # seconds, on average
_DRAG = 8  # places of a slider that is dragged
_STEADY = 30  # seconds after which memory should stand still


class Crowd:
    """What they have met with so far.

    Args:
        address: of the page.
        seed: of what they do.
    """

    def __init__(self, address: str, seed: int):
        self.address, self.seed = address, seed
        self.waits: dict[str, list[float]] = {}
        self.failed: Counter[str] = Counter()
        self.images = digits(100, "test")["image"][..., 0]
        self.over = threading.Event()

    def person(self, number: int) -> None:
        """One of them, until it is over."""
        chance = random.Random(self.seed + number)
        visitor = self._come()
        while not self.over.wait(chance.expovariate(1 / _PAUSE)):
            if visitor is None or chance.random() < 0.02:
                if visitor is not None:
                    visitor.close()
                visitor = self._come()
                continue
            action = chance.choice(ACTIONS)
            try:
                action(self, visitor, chance)
            except Exception as error:
                self.failed[f"{action.__name__}: {error!r}"[:200]] += 1
        if visitor is not None:
            visitor.close()

    def timed(self, name: str, ask: Any, *given: Any) -> None:
        """Ask, and note how long it took."""
        started = time.monotonic()
        ask(*given)
        self.waits.setdefault(name, []).append(time.monotonic() - started)

    def large(self, chance: random.Random) -> np.ndarray:
        """A test digit, ten times as large."""
        return np.kron(chance.choice(self.images), np.ones((10, 10), np.uint8))

    def happen(self, visitor: Visitor, part: str, event: str) -> None:
        self.timed(f"{part}.{event}", visitor.happen, part, event)

    def drag(self, visitor: Visitor, part: str, places: list[float]) -> None:
        for place in places:
            visitor.set(part, place)
            self.happen(visitor, part, "input")

    def _come(self) -> Visitor | None:
        try:
            found: list[Visitor] = []
            self.timed("page", lambda: found.append(Visitor(self.address, patience=60)))
            return found[0]
        except Exception as error:
            self.failed[f"page: {error!r}"[:200]] += 1
            return None


def draw(crowd: Crowd, visitor: Visitor, chance: random.Random) -> None:
    """A digit of strokes."""
    layer = np.zeros((280, 280, 4), np.uint8)
    layer[..., 3] = crowd.large(chance)
    crowd.timed("sketch.change", visitor.draw, layer)


def choose(crowd: Crowd, visitor: Visitor, chance: random.Random) -> None:
    """A test image by its number, also one that is not there."""
    visitor.set("number", chance.choice([chance.randrange(10_000), 10_000, -1, None]))
    crowd.happen(visitor, "number", "input")


def another(crowd: Crowd, visitor: Visitor, chance: random.Random) -> None:
    crowd.happen(visitor, "another", "click")


def drop(crowd: Crowd, visitor: Visitor, chance: random.Random) -> None:
    """A photograph of a digit."""
    sheet = np.full((600, 800), 230, np.uint8)
    sheet[100:380, 200:480] -= (
        np.kron(chance.choice(crowd.images), np.ones((10, 10), np.uint8)) // 2
    )
    crowd.timed("file.change", visitor.drop, png(sheet), "photograph.png")


def drop_bad(crowd: Crowd, visitor: Visitor, chance: random.Random) -> None:
    """A file that is none to look at: it is refused in words."""
    name = chance.choice(["text", "cut", "dot", "blank", "large"])
    blank = np.zeros((300, 300), np.uint8)
    content = {
        "text": b"no image",
        "cut": png(crowd.images[0])[:100],
        "dot": png(blank[:1, :1]),
        "blank": png(blank),
        "large": b"0" * 10_500_000,
    }[name]
    try:
        crowd.timed("file.change, bad", visitor.drop, content, f"{name}.png")
    except Failed as refused:
        if name != "large" or not str(refused).startswith("413"):
            raise
        return
    if name == "large" or "alert" not in str(visitor.value("said")):
        raise Failed(f"{name} was taken: {visitor.value('said')}")


def pose(crowd: Crowd, visitor: Visitor, chance: random.Random) -> None:
    """Another class's capsule, and one of its dimensions dragged."""
    visitor.set("whose", str(chance.randrange(10)))
    crowd.happen(visitor, "whose", "input")
    part = f"dim-{chance.randrange(16)}"
    crowd.drag(visitor, part, [round(chance.uniform(-1, 1), 2) for _ in range(_DRAG)])


def route(crowd: Crowd, visitor: Visitor, chance: random.Random) -> None:
    crowd.happen(visitor, "routing", "select")
    visitor.set("which", chance.choice(visitor.parts[visitor.part("which")]["props"]["choices"])[1])
    crowd.happen(visitor, "which", "change")
    crowd.drag(visitor, "iteration", [chance.randint(0, 1) for _ in range(3)])


def pair(crowd: Crowd, visitor: Visitor, chance: random.Random) -> None:
    crowd.happen(visitor, "pairs", "select")
    for part in ("First digit", "Second digit"):
        crowd.drag(visitor, part, [chance.randrange(10_000)])
    for part in ("right", "down"):
        crowd.drag(visitor, part, [chance.randint(-12, 12) for _ in range(_DRAG // 2)])


def move(crowd: Crowd, visitor: Visitor, chance: random.Random) -> None:
    crowd.happen(visitor, "move", "select")
    crowd.drag(visitor, "angle", [chance.randint(-180, 180) for _ in range(_DRAG // 2)])
    crowd.drag(visitor, "scale", [round(chance.uniform(0.5, 1.5), 2) for _ in range(_DRAG // 2)])
    crowd.happen(visitor, "Back", "click")


def side(crowd: Crowd, visitor: Visitor, chance: random.Random) -> None:
    crowd.happen(visitor, "side", "select")


ACTIONS = [draw, choose, another, drop, drop_bad, pose, route, pair, move, side]


def measure(people: int, seconds: float, seed: int) -> dict[str, Any]:
    """Serve the page and let them in.

    Returns:
        ``answers``, ``median``, ``percentile_95`` and ``longest`` wait in seconds, ``medians`` by
        what was asked, ``errors``; ``megabytes`` of the server before, ``megabytes_steady`` after
        half a minute (or half the time), ``megabytes_at_end`` and ``megabytes_most``.
    """
    server, address = _serve()
    try:
        sizes = [(0.0, _megabytes(server.pid))]
        crowd = Crowd(address, seed)
        threads = [threading.Thread(target=crowd.person, args=[n]) for n in range(people)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        while (now := time.monotonic() - started) < seconds:
            sizes.append((now, _megabytes(server.pid)))
            time.sleep(1)
        crowd.over.set()
        for thread in threads:
            thread.join()
        sizes.append((seconds, _megabytes(server.pid)))
    finally:
        server.kill()
        server.wait()
    waits = np.concatenate(list(crowd.waits.values()))
    steady = next(size for when, size in sizes if when >= min(_STEADY, seconds / 2))
    return {
        "people": people,
        "seconds": seconds,
        "answers": len(waits),
        "median": round(float(np.median(waits)), 3),
        "percentile_95": round(float(np.quantile(waits, 0.95)), 3),
        "longest": round(float(waits.max()), 3),
        "medians": {
            name: [len(each), round(float(np.median(each)), 3)]
            for name, each in sorted(crowd.waits.items())
        },
        "errors": dict(crowd.failed),
        "megabytes": round(sizes[0][1], 1),
        "megabytes_steady": round(steady, 1),
        "megabytes_at_end": round(sizes[-1][1], 1),
        "megabytes_most": round(max(size for _, size in sizes), 1),
    }


def _serve() -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "capsjax", "explore", "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if " is at http://" in line:
            return server, line.split(" is at ")[1].split()[0]
    raise RuntimeError(f"the page was not served: status {server.wait()}")


def _megabytes(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Let them in, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(measure(options.people, options.seconds, options.seed), indent=1))


if __name__ == "__main__":
    main()
