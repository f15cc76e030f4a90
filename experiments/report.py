"""The table of paper beside ours, made from the results that are committed.

    python -m experiments.report

writes it between two marks of ``experiments/README.md``. Nothing in it is typed by hand: numbers
come from the JSON files, the papers' and the reasons from the experiments' ``lines``.
"""

from pathlib import Path

from experiments import study

README = Path(__file__).parent / "README.md"
MARKS = ("<!-- report: python -m experiments.report -->", "<!-- end of report -->")
PRESETS = ("laptop", "full")
HEAD = "| experiment | what | paper | ours | preset | why they differ |\n|---|---|---|---|---|---|"


def table(results: Path = study.RESULTS) -> str:
    """The table in Markdown.

    Args:
        results: folder of all experiments' results.
    """
    rows = [HEAD]
    for name in study.NAMES:
        module = study.find(name)
        for preset in PRESETS:
            found = study.load(name, preset, results)
            for line in module.lines(found) if found else []:
                cells = (name, line.what, line.paper, line.ours, preset, line.why)
                rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def between_marks(text: str, table: str) -> str:
    """A text with another table between the marks.

    Raises:
        ValueError: the text has no marks.
    """
    if not all(mark in text for mark in MARKS):
        raise ValueError(f"{README} has no {' ... '.join(MARKS)} to write between")
    before, _, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    return f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}"


def main() -> None:
    """Print and write the table."""
    made = table()
    print(made)
    README.write_text(between_marks(README.read_text(), made))


if __name__ == "__main__":
    main()
