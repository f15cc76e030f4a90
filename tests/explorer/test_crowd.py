"""Ten people at once are answered within a second, and the server's memory stands still."""

import json
import random
import subprocess
import sys

import pytest

pytest.importorskip("gradio", reason="the extra explore is not installed")
from tests.explorer.crowd import ACTIONS, Crowd
from tests.explorer.visitor import Visitor


@pytest.mark.filterwarnings("ignore")  # the server's threads and sockets end when they like
def test_whatever_a_person_does_is_answered(address: str) -> None:
    crowd, visitor = Crowd(address, seed=0), Visitor(address)
    for number, action in enumerate(ACTIONS):
        action(crowd, visitor, random.Random(number))
    visitor.close()
    said = visitor.value("routings")
    assert said.count("<section>") == 5
    assert "alone" in visitor.value("pair")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_ten_people_for_two_minutes() -> None:
    command = [sys.executable, "-m", "tests.explorer.crowd", "--people", "10", "--seconds", "120"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(ended.stdout)
    assert found["answers"] > 100, found
    assert found["errors"] == {}, found
    assert found["median"] < 1, found
    assert found["megabytes_at_end"] < 1.1 * found["megabytes_steady"], found
