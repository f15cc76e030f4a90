"""README says what the registry of networks says, and what it shows can be done as it stands.

Trainings are made short and narrow; nothing else is changed.
"""

import functools
import re
import shlex
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from capsjax import models
from capsjax.cli import dispatch, explore
from tests.training.small import NARROW, compiled_once, digits, saved_digits

ROOT = Path(__file__).parents[1]

# Behind a training's own options, by its network.
SHORT = {
    "capsnet": "--model.features 8 --model.kernel-size 3 --model.primary-types 2 "
    "--model.decoder-widths 16",
    "efficient_capsnet": "--model.features 4 4 4 8 --model.decoder-widths 16",
    "efficient_cnn": "--model.features 4 4 4 8 8",
}
FEW = "--epochs 1 --limit 64 --validation 16 --batch-size 16"


@functools.cache
def readme() -> str:
    """The text. Not read where tests are collected: beside an installed wheel there may be none."""
    return (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Fenced code, in its order."""
    parts = re.split(r"^```(.*)\n", readme(), flags=re.MULTILINE)
    # Text, the opening fence's language, code, the closing fence's nothing, text, ...
    return [code for of, code in zip(parts[1::4], parts[2::4], strict=True) if of == language]


def commands() -> list[str]:
    """All of capsjax's that stand in blocks."""
    lines = [line for block in blocks("") for line in block.splitlines()]
    found = [line[line.index("capsjax ") :] for line in lines if "capsjax " in line]
    return [line.partition("  #")[0] for line in found]


def test_the_table_of_networks_is_that_of_the_registry() -> None:
    table = readme().split("<!-- networks -->")[1].split("<!-- end -->")[0]
    rows = table.strip().splitlines()[2:]
    expected = []
    for name, model in models.MODELS.items():
        form = model.forms[0]
        expected.append(
            f"| `{name}` | {model.source} | {form.dataset} | {form.parameters:,} | "
            f"{form.published} |"
        )
    assert rows == expected


def test_everything_that_it_points_at_is_there() -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", readme())
    targets += re.findall(r'src="([^"]+)"', readme())
    missing = [each for each in targets if "://" not in each and not (ROOT / each).exists()]
    assert targets
    assert missing == []


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"NARROW": NARROW}
    assert len(blocks("python")) == 3
    for block in blocks("python"):
        short = block.replace("limit=10_000", "limit=64")
        short = short.replace('models.create("capsnet"', 'models.create("capsnet", config=NARROW')
        exec(short, names)  # as a reader would paste it
    assert len(names["prediction"].labels) == 8
    assert 0 <= names["result"].validation_error <= 1
    assert names["routed"].poses.shape == (32, 10, 16)
    assert names["output"].activations.shape == (4, 5)


def test_its_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    served = []
    monkeypatch.setattr(explore, "serve", lambda explored, *_, **__: served.append(explored.name))
    saved_digits(Path("own.npz"), 100, 40)
    for picture in ("digit.png", "picture.png"):
        plt.imsave(picture, np.asarray(digits(1, "test")["image"][0, ..., 0]), cmap="gray")
    done = commands()
    assert len(done) >= 12
    with compiled_once(tmp_path / "compiled"):
        for line in done:
            words = shlex.split(line)[1:]
            if words[0] == "train":
                model = words[words.index("--model") + 1] if "--model" in words else "capsnet"
                words += shlex.split(f"{SHORT[model]} {FEW}")
                # Its 10,000 test images would be most of the time.
                words = ["own.npz" if word == "mnist" else word for word in words]
                if "--preset" in words:
                    words += ["--dataset", "own.npz"]
            assert dispatch(words) == 0, (line, capsys.readouterr().err)
    assert served == ["own", "efficient_capsnet_mnist"]
    assert Path("runs/quick/summary.json").is_file()
    assert Path("runs/own/figures/flow.png").is_file()


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert (
        f"\nversion: {re.search(r'^version = (.*)$', (ROOT / 'setup.cfg').read_text(), re.M)[1]}\n"
        in citation
    )
