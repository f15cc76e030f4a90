"""Makes the pretrained networks of the package from the runs of experiments.

Each is the network of one run, whose folder the experiment's ``--workdir`` still holds. The file
states what the run's committed result says of the training, and the test error of the numbers as
they are stored, which are tested here. To add one: a line in ``NETWORKS``, then the command below;
commit the file. All files together have at most 40 MB, one has at most 20.

    python -m experiments.pretrained efficient_capsnet_mnist
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from capsjax import pretrained
from capsjax.serial import to_json
from capsjax.training.settings import Settings, read_settings, settings_of
from experiments import study

FOLDER = Path(pretrained.__file__).parent
LARGEST = 20_000_000  # bytes of a file
LARGEST_TOGETHER = 40_000_000


@dataclass(frozen=True)
class Source:
    """Which run a pretrained network is of.

    Attributes:
        experiment: its name.
        preset: of the experiment.
        run: of the preset.
        dtype: what its numbers are stored as; None is float32.
    """

    experiment: str
    preset: str
    run: str
    dtype: Literal["bfloat16", "float16"] | None = None

    def command(self, seed: int) -> str:
        """What trains it, and no other run."""
        chosen = f"--seed {seed}" if self.run == f"seed-{seed}" else f"--only {self.run}"
        return f"python -m experiments.{self.experiment} --preset {self.preset} {chosen}"


NETWORKS = {
    "capsnet_mnist": Source("sabour17_mnist", "laptop", "long_seed_0", "bfloat16"),
    "efficient_capsnet_mnist": Source("mazzia21_mnist", "laptop", "seed-0"),
    "efficient_capsnet_multi_mnist": Source("sabour17_multimnist", "laptop", "more_pairs_capsules"),
    "matrix_capsules_small_toy_norb": Source("hinton18_viewpoint", "laptop", "own-matrix_capsules"),
}


def make(name: str, source: Source, *, workdir: Path, results: Path, folder: Path) -> Path:
    """Write one network's file.

    Args:
        name: of the network.
        source: whose run it is.
        workdir: where the experiments keep their trainings.
        results: where their results are.
        folder: for the file.

    Returns:
        The file's path.

    Raises:
        ValueError: the run has no result, or its folder is not there or of another run, or the
            file is too large; one that was there before stays.
    """
    there = results / source.experiment / source.preset / f"{source.run}.json"
    if not there.exists():
        raise ValueError(f"{there} is not there: {source.experiment} has to be run first")
    result: dict[str, Any] = json.loads(there.read_text())
    run = workdir / source.experiment / source.preset / source.run
    settings = read_settings(run)
    # Beside the training's settings some say of what they tested.
    known = {field.name for field in fields(Settings)}
    trained = settings_of({key: value for key, value in result["config"].items() if key in known})
    if to_json(trained) != to_json(settings):
        raise ValueError(f"{run} was trained with other settings than {there} says")
    path = folder / f"{name}.safetensors"
    provenance = {**result, "command": source.command(result["seed"])}
    others = sum(file.stat().st_size for file in folder.glob("*.safetensors") if file != path)
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        draft = Path(beside) / path.name
        card = pretrained.export(run, draft, dtype=source.dtype, provenance=provenance)
        together = others + card.size
        if card.size > LARGEST or together > LARGEST_TOGETHER:
            raise ValueError(
                f"{name} would have {card.size / 1e6:.1f} MB and all files {together / 1e6:.1f}, "
                f"more than {LARGEST / 1e6:.0f} and {LARGEST_TOGETHER / 1e6:.0f}: use a dtype of "
                "16 bits"
            )
        draft.replace(path)
    # Of some experiments the test has parts.
    before = result["metrics"].get("all", result["metrics"])
    after = card.tested
    print(
        f"{path}: {card.size / 1e6:.1f} MB as {card.dtype}; {after.errors} of {after.images:,} "
        f"wrong as stored, {before['test_errors']} of {before['test_images']:,} after the training"
    )
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.pretrained", description=__doc__.splitlines()[0]
    )
    parser.add_argument("name", choices=NETWORKS)
    parser.add_argument("--workdir", type=Path, default=study.WORKDIR, help="of the trainings")
    parser.add_argument("--results", type=Path, default=study.RESULTS, help="of the experiments")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for the file")
    options = parser.parse_args()
    try:
        make(
            options.name,
            NETWORKS[options.name],
            workdir=options.workdir,
            results=options.results,
            folder=options.folder,
        )
    except ValueError as error:
        sys.exit(f"{options.name}: {error}")


if __name__ == "__main__":
    main()
