"""The tables of paper beside ours, made from the results that are committed.

    python -m experiments.report

writes them between two marks each: all lines into ``experiments/README.md``, the main ones into the
project's ``README.md``. Nothing in them is typed by hand: numbers come from the JSON files, the
papers' and the reasons from the experiments' ``lines``.
"""

from collections.abc import Iterator
from pathlib import Path

from experiments import study
from experiments.study import Line

README = Path(__file__).parent / "README.md"
SHORT_README = Path(__file__).parents[1] / "README.md"
MARKS = ("<!-- report: python -m experiments.report -->", "<!-- end of report -->")
SHORT_MARKS = ("<!-- results: python -m experiments.report -->", "<!-- end of results -->")
PRESETS = ("laptop", "full")
HEAD = "| experiment | what | paper | ours | preset | why they differ |\n|---|---|---|---|---|---|"
SHORT_HEAD = "| experiment | what | paper | ours |\n|---|---|---|---|"

# How the main lines of each experiment begin.
MAIN = {
    "mazzia21_mnist": ("Efficient-CapsNet,",),
    "sabour17_mnist": ("CapsNet, 3 iterations, reconstruction, 8 epochs",),
    "hinton18_viewpoint": (
        "novel azimuths, matched, errors of matrix capsules for each of CNN of Hinton 2018",
        "novel elevations, matched, errors of matrix capsules for each of CNN of Hinton 2018",
    ),
    "sabour17_affnist": ("capsules of", "CNN of", "shared transformation"),
    "sabour17_multimnist": (
        "capsules of 154,656 parameters, not both",
        "CNN of 154,368 parameters, not both",
    ),
    "data_efficiency": ("30 images", "100 images", "1,000 images"),
    "routing_iterations": ("CapsNet, 1 iteration,", "CapsNet, 3 iterations,", "CapsNet, random"),
    "routing_shootout": ("self_attention", "dynamic", "uniform"),
    "hinton18_adversarial": (
        "mnist: accuracy under PGD,",
        "mnist: accuracy under black-box FGSM",
        "mnist: accuracy of capsules under the vote attack",
    ),
    "capsule_dimensions": ("MNIST: dimensions",),
    "depth": (
        "small CapsNet, 1 layer, test",
        "small CapsNet, 4 layers, test",
        "small CapsNet, 4 layers, b",
    ),
    "cifar10": ("CIFAR-10, dynamic", "CIFAR-10, CNN"),
}


def table(results: Path = study.RESULTS) -> str:
    """All lines in Markdown.

    Args:
        results: folder of all experiments' results.
    """
    rows = (
        (name, line.what, line.paper, line.ours, preset, line.why)
        for name, preset, line in _lines(results)
    )
    return "\n".join([HEAD, *(f"| {' | '.join(cells)} |" for cells in rows)])


def short_table(results: Path = study.RESULTS) -> str:
    """The main lines in Markdown, without reasons.

    Args:
        results: folder of all experiments' results.
    """
    rows = (
        (f"`{name}`", line.what, line.paper, line.ours)
        for name, _, line in _lines(results)
        if line.what.startswith(MAIN.get(name, ()))
    )
    return "\n".join([SHORT_HEAD, *(f"| {' | '.join(cells)} |" for cells in rows)])


def _lines(results: Path) -> Iterator[tuple[str, str, Line]]:
    for name in study.NAMES:
        module = study.find(name)
        for preset in PRESETS:
            found = study.load(name, preset, results)
            for line in module.lines(found) if found else []:
                yield name, preset, line


def between_marks(text: str, table: str, marks: tuple[str, str] = MARKS) -> str:
    """A text with another table between the marks.

    Raises:
        ValueError: the text has no marks.
    """
    if not all(mark in text for mark in marks):
        raise ValueError(f"the text has no {' ... '.join(marks)} to write between")
    before, _, rest = text.partition(marks[0])
    after = rest.partition(marks[1])[2]
    return f"{before}{marks[0]}\n{table}\n{marks[1]}{after}"


def main() -> None:
    """Print and write the tables."""
    made = table()
    print(made)
    README.write_text(between_marks(README.read_text(), made))
    SHORT_README.write_text(between_marks(SHORT_README.read_text(), short_table(), SHORT_MARKS))


if __name__ == "__main__":
    main()
