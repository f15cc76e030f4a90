"""Routing that one can see: votes for three parents in the plane, drawn by iteration.

Synthetic: six parts agree about a face, six about a house, all their other votes fall anywhere, and
nobody is part of the boat. Dynamic routing finds the two groups; the boat's pose shrinks away.
Notebook 01 tells the story. One second.

    python -m experiments.routing_toy

writes ``experiments/results/routing_toy.png``, which stands in README.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from capsjax import figures
from capsjax.routing import dynamic

PARENTS = ("face", "house", "boat")
NUM_CHILDREN = 12
NUM_ITERATIONS = 8
SHOWN = (1, 2, 4, 8)


def votes(seed: int = 0) -> np.ndarray:
    """Votes ``[3, 2, 12]``; the first half agrees about the face, the second about the house."""
    random = np.random.default_rng(seed)
    angles = random.uniform(0, 2 * np.pi, (len(PARENTS), NUM_CHILDREN))
    radii = np.sqrt(random.uniform(0.1, 0.9, angles.shape))
    drawn = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    half = NUM_CHILDREN // 2
    for parent, degrees in enumerate((55, 160)):
        angle = np.deg2rad(degrees)
        centre = 0.85 * np.array([[np.cos(angle)], [np.sin(angle)]])
        own = slice(parent * half, (parent + 1) * half)
        drawn[parent, :, own] = centre + 0.08 * random.normal(size=(2, half))
    return drawn


def main() -> None:
    """Route and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent / "results"
    parser.add_argument("--results", type=Path, default=default, help="folder for the picture")
    folder = parser.parse_args().results
    drawn = votes()
    config = dynamic.Config(num_iterations=NUM_ITERATIONS)
    trace = dynamic.route(jnp.asarray(drawn), config=config, trace=True).trace
    assert trace is not None
    figure = figures.routing_in_2d(
        drawn, trace.poses, trace.coefficients, iterations=SHOWN, parents=PARENTS
    )
    path = folder / "routing_toy.png"
    figure.savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main()
