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
SHORT_HEAD = "| claim | paper | ours | command |\n|---|---|---|---|"


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
    """The main lines in Markdown, in a few words each.

    Args:
        results: folder of all experiments' results.
    """
    rows = ((*line.brief, f"`{name}`") for name, _, line in _lines(results) if line.brief)
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
