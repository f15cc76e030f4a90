"""Commands with hostile words: one line that says what is wrong, no traceback, nothing written.

Nothing here trains: a command that would is refused at its data or at its folder first.
"""

import contextlib
import io
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capsjax.cli import dispatch
from tests.fuzz.judge import deadline
from tests.fuzz.test_calls import TIMES

EXAMPLES = 100
# A valid call's words; those in the second place are what may be replaced.
NOWHERE = "no such folder"
CALLS = [
    ["train", "--dataset", NOWHERE, "--workdir", "out", "--epochs", "1", "--batch-size", "2"],
    ["train", "--dataset", NOWHERE, "--model.features", "8", "--learning-rate", "0.1"],
    ["train", "--dataset", NOWHERE, "--routing", "em", "--routing.num-iterations", "2"],
    ["evaluate", NOWHERE, "--split", "test"],
    ["predict", "efficient_capsnet_mnist", "no such image.png"],
    ["figures", NOWHERE, "--image", "0"],
    ["explore", NOWHERE, "--host", "127.0.0.1", "--port", "70000"],
    ["export", NOWHERE, "out.safetensors", "--dtype", "float32"],
    ["models", "capsnet", "--num-classes", "0", "--form", "1"],
    ["models", "efficient_cnn", "--image-shape", "28", "28", "0"],
    ["routings", "--jsn"],
    ["pretrained", "--jsn"],
    ["datasets", "show", NOWHERE, "--count", "3"],
    ["datasets", "verify", NOWHERE],
    ["datasets", "prepare", NOWHERE],
]
WORDS = st.sampled_from([
    *("", " ", "-", "--", "-1", "0", "nan", "inf", "1e400", "2.5", "None", "True", "[]", "{}"),
    *("../../etc/passwd", "/dev/null", "/dev/null/x", ".", "a\nb", "é\u202e", "-rf", "*"),
    "--help=1",
    *("x" * 5000, "9" * 400, "--" + "y" * 300, "$(id)", "'; ls", "mnist\t", "{'a': 1}", "z\0"),
])  # fmt: skip


def said(words: list[str]) -> tuple[int, str]:
    """Status of a command, and what it said of an error."""
    out, err = io.StringIO(), io.StringIO()
    with deadline(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = dispatch(words)
    return status, err.getvalue()


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    before, folder = Path.cwd(), tmp_path_factory.mktemp("empty")
    os.chdir(folder)
    yield folder
    os.chdir(before)


def check(words: list[str], empty: Path) -> None:
    status, err = said(words)
    assert status in (0, 2), (status, err)
    if status == 2:
        assert re.match(r"capsjax: .{10,}", err), err
        assert "Traceback" not in err
        assert err.count("\n") == 1
    assert not list(empty.iterdir()), words


@settings(
    max_examples=EXAMPLES * TIMES,
    derandomize=TIMES == 1,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.sampled_from(CALLS), st.data())
def test_a_word_that_is_wrong_gets_one_line(empty, call, data):
    words = list(call)
    place = data.draw(st.integers(1, len(words) - 1))
    word = data.draw(WORDS)
    # What is not there stays so: these commands must not come to train, draw or serve.
    if words[place] == NOWHERE:
        word = f"{NOWHERE}/{word}"
    how = data.draw(st.sampled_from(["replaced", "inserted", "lost", "doubled"]))
    match how:
        case "replaced":
            words[place] = word
        case "inserted":
            words.insert(place, word)
        case "lost" if words[place] != NOWHERE:
            del words[place]
        case _:
            words.insert(place, words[place])
    check(words, empty)


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_every_call_of_the_table_is_refused_as_it_is(empty, call):
    status, _ = said(call)
    assert status == 2
    check(call, empty)


@settings(max_examples=50 * TIMES, derandomize=TIMES == 1, database=None)
@given(st.lists(WORDS, max_size=4))
def test_words_of_no_command_get_one_line(empty, words):
    check(["?", *words], empty)
