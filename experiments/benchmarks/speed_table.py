"""The tables and the plot of speed, from ``experiments/results/speed.json``.

    python -m experiments.benchmarks.speed_table

prints the table, writes it between the marks of this folder's README, a short one between those of
the project's, and draws ``experiments/results/speed.png``.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments import report as reports
from experiments.benchmarks.speed import KINDS, RESULT, ratio, share

README = Path(__file__).parent / "README.md"
SHORT_README = Path(__file__).parents[2] / "README.md"
MARKS = ("<!-- speed: python -m experiments.benchmarks.speed_table -->", "<!-- end of speed -->")
# Of the short table: one image, and many; of a network that was not measured with so many its most.
_ONE, _MANY = 1, 64
_PEERS = {"torch": "PyTorch", "keras": "Keras on TF"}
# Okabe and Ito's blue and orange.
_COLORS = {"train": "#0072B2", "inference": "#E69F00"}


def table(report: dict[str, Any]) -> str:
    """The table in Markdown, a line for every network and batch size."""
    lines = [
        "| network | batch | training, images/s | inference | share of the matrix product | "
        "to PyTorch | to Keras on TF | to `uniform` | to CNN | compile | temporaries | "
        "peak memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(report["rows"], key=_place):
        rates = [row["rates"][f"ours {kind}"]["median"] for kind in KINDS]
        shares = " / ".join(f"{share(row, kind):.0%}" for kind in KINDS)
        ratios = [_pair(row, other) for other in (*_PEERS, "uniform", "cnn")]
        compiled = row["train"]["trace_seconds"] + row["train"]["compile_seconds"]
        cells = [
            f"`{row['network']}`",
            str(row["batch_size"]),
            f"{rates[0]:,.0f}",
            f"{rates[1]:,.0f}",
            shares,
            *ratios,
            f"{compiled:.1f} s",
            f"{row['train']['temporaries_bytes'] / 1e6:,.0f} MB",
            f"{row['peak_bytes'] / 1e6:,.0f} MB",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def short_table(report: dict[str, Any]) -> str:
    """Rates, memory and peers of every network, with one image and with many."""
    lines = [
        "| network | batch | training, images/s | inference, images/s | to PyTorch | "
        "to Keras on TF | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = sorted(report["rows"], key=_place)
    most = {row["network"]: row["batch_size"] for row in rows if row["batch_size"] <= _MANY}
    for row in rows:
        if row["batch_size"] not in (_ONE, most[row["network"]]):
            continue
        cells = [
            f"`{row['network']}`",
            str(row["batch_size"]),
            *(f"{row['rates'][f'ours {kind}']['median']:,.0f}" for kind in KINDS),
            *(_pair(row, peer) or "none" for peer in _PEERS),
            f"{row['peak_bytes'] / 1e6:,.0f} MB",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine(report: dict[str, Any]) -> str:
    """What the machine did meanwhile, in a sentence."""

    def middle(kind: str) -> float:
        return statistics.median(row["rates"][kind]["median"] for row in report["rows"])

    return (
        f"({report['cores']} cores; 2048^3 matrix products {middle('matrix_product'):.0f} GFLOP/s "
        f"in float32 and {middle('matrix_product_bf16'):.0f} in bfloat16, reading "
        f"{middle('read'):.0f} GB/s and copying {middle('copy'):.0f}; medians of the whole run, "
        f"load before it {report['load_before']:.1f}; commit {report['commit'][:7]}.)"
    )


def draw(report: dict[str, Any]) -> Figure:
    """Our images a second over each peer's, by network and batch size."""
    bars = [
        (f"{row['network']}\nbatch {row['batch_size']}, {title}", kind, found)
        for row in sorted(report["rows"], key=_place)
        for name, title in _PEERS.items()
        for kind in KINDS
        if (found := ratio(row, name, kind)) is not None
    ]
    labels = list(dict.fromkeys(label for label, *_ in bars))
    figure = Figure(figsize=(7.5, 0.55 * len(labels) + 1.2), layout="constrained")
    axis = figure.subplots()
    for label, kind, found in bars:
        place = labels.index(label) + (0.2 if kind == "inference" else -0.2)
        known = axis.get_legend_handles_labels()[1]
        text = {"train": "training", "inference": "inference"}[kind]
        axis.barh(place, found, 0.38, color=_COLORS[kind], label=None if text in known else text)
        axis.annotate(
            f"{found:.2f}", (found, place), (3, 0), textcoords="offset points", va="center"
        )
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_xlim(0, 1.1 * max(found for *_, found in bars))
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xlabel("our images a second, over those of the peer's fastest variant")
    axis.legend(frameon=False, loc="lower right")
    return figure


def _place(row: dict[str, Any]) -> tuple[int, int]:
    order = ["capsnet", "efficient_capsnet", "matrix_capsules_small", "matrix_capsules"]
    return order.index(row["network"]), row["batch_size"]


def _pair(row: dict[str, Any], other: str) -> str:
    found = [ratio(row, other, kind) for kind in KINDS]
    return " / ".join("-" if r is None else f"{r:.2f}x" for r in found) if any(found) else ""


def texts(report: dict[str, Any]) -> dict[Path, str]:
    """What stands between the marks of which file."""
    return {
        README: f"{table(report)}\n\n{machine(report)}",
        SHORT_README: short_table(report),
    }


def main() -> None:
    """Print, write and draw."""
    report = json.loads(RESULT.read_text())
    print(table(report))
    for readme, text in texts(report).items():
        readme.write_text(reports.between_marks(readme.read_text(), text, MARKS))
    draw(report).savefig(RESULT.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
