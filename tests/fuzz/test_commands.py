"""Commands with hostile words: one line that says what is wrong, no traceback, nothing written.

Nothing here trains: a command that would is refused at its data or at its folder first.
"""

import contextlib
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

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


@pytest.fixture(scope="module")
def given_files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("given")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(folder / "digit.png")
    images, labels = np.zeros((10, 28, 28), np.uint8), np.arange(10)
    np.savez(folder / "mine.npz", image=images, label=labels)
    return {IMAGE: str(folder / "digit.png"), ARRAYS: str(folder / "mine.npz")}


IMAGE, ARRAYS = "<image>", "<arrays>"
PUBLISHED = "efficient_capsnet_mnist"
GOOD = [
    ["models"],
    ["models", "efficient_cnn", "--image-shape", "28", "28", "1", "--form", "1"],
    ["routings"],
    ["pretrained"],
    ["predict", PUBLISHED, IMAGE],
    ["evaluate", PUBLISHED, "--dataset", ARRAYS],
]


def test_calls_that_are_right_are_taken_and_wrong_options_beside_them_are_not(empty, given_files):
    for call in GOOD:
        words = [given_files.get(word, word) for word in call]
        assert said(words)[0] == 0, call
        assert not list(empty.iterdir())
        for wrong in ["--nonsense", "--nonsense=3", "-rf"]:
            assert said([*words, wrong])[0] == 2, (call, wrong)
            check([*words, wrong], empty)


TRAIN = ["train", "--dataset", "mnist", "--workdir", "out"]
NUMERIC = [
    ["models", "capsnet", "--num-classes"],
    ["models", "capsnet", "--form"],
    ["models", "capsnet", "--image-shape", "28", "28"],
    ["datasets", "show", "mnist", "--count"],
    [*TRAIN, "--epochs"],
    [*TRAIN, "--batch-size"],
    [*TRAIN, "--learning-rate"],
    [*TRAIN, "--routing.num-iterations"],
]


@pytest.mark.parametrize("call", NUMERIC, ids=lambda call: call[-1].strip("-"))
def test_a_number_that_is_wrong_is_refused_by_its_option(empty, call):
    option = next(word for word in reversed(call) if word.startswith("--"))
    name = option.strip("-").rsplit(".", 1)[-1]
    for word in ["nan", "-1", "1e400", "x", "", "9" * 400]:
        status, err = said([*call, word])
        assert status == 2, (call, word)
        assert name in err.replace("_", "-"), (word, err)
        check([*call, word], empty)
