"""``python -m experiments`` lists the experiments, and what is known of each."""

from experiments import study


def main() -> None:
    """Print a line for each experiment, and which of its presets have results."""
    for name in study.NAMES:
        title = study.find(name).__doc__.splitlines()[0]
        there = [
            f"{preset}: {len(found)} runs"
            for preset in ("laptop", "full")
            if (found := study.load(name, preset))
        ]
        print(f"{name:22} {title}\n{'':22} {'; '.join(there) or 'no results yet'}")
    print("\npython -m experiments.NAME --preset smoke|laptop|full does one.")


if __name__ == "__main__":
    main()
