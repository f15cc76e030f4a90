"""How hard toy_norb is: by nearest neighbours in pixels, and by a small convolutional network.

smallNORB's split: five toys of each category to learn from, the other five to be tested on, 24,300
stereo pairs each, 48 pixels. The nearest neighbour looks at both eyes' raw pixels. The network has
four convolutions and trains on the plain pairs, without augmentation; its accuracy is that after
the last epoch. How far toys and poses vary was chosen by looking at both accuracies at seed 0.
Expected: at most 85 % by neighbours, at least 92 % by the network, which says that the kinds of
toys can be told apart, but not by comparing pixels. About ten minutes on one core.

    python -m experiments.benchmarks.toy_norb [--json] [--quick]

writes ``experiments/results/toy_norb.json`` (not with ``--quick``, which is for a look).
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from capsjax.data import toy_norb
from capsjax.ops.convolution import conv2d
from capsjax.training.run import surroundings

RESULT = Path(__file__).parents[1] / "results" / "toy_norb.json"
Split = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        seed: of the data, the network and the order of its batches.
        size: of the images.
        toys: how many of each side's five instances take part.
        features: of each convolution; all have stride 2 and kernels of 5x5, then 3x3.
        hidden: units of the layer after them.
        dropout: of the hidden units.
        epochs: of training.
        batch: images a step.
        learning_rate: Adam's at the start, with a cosine to zero.
    """

    seed: int = 0
    size: int = 48
    toys: int = 5
    features: tuple[int, ...] = (24, 48, 96, 128)
    hidden: int = 128
    dropout: float = 0.5
    epochs: int = 8
    batch: int = 128
    learning_rate: float = 2e-3


QUICK = Config(toys=1, epochs=1, features=(8, 16, 16, 16))


class Network(nnx.Module):
    """Strided convolutions and one hidden layer.

    Args:
        config: widths and dropout.
        rngs: to draw parameters with.
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        draw = nnx.initializers.he_normal()
        widths = (2, *config.features)
        shapes = [
            (side, side, *pair)
            for side, pair in zip((5, 3, 3, 3), itertools.pairwise(widths), strict=True)
        ]
        self.kernels = nnx.List([nnx.Param(draw(rngs.params(), shape)) for shape in shapes])
        self.biases = nnx.List([nnx.Param(jnp.zeros(shape[-1])) for shape in shapes])
        flat = math.ceil(config.size / 16) ** 2 * widths[-1]
        self.hidden = nnx.Linear(flat, config.hidden, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout, rngs=rngs)
        self.output = nnx.Linear(config.hidden, len(toy_norb.CATEGORIES), rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits of images in [0, 1]."""
        x = images - images.mean((1, 2, 3), keepdims=True)
        x = x / (images.std((1, 2, 3), keepdims=True) + 0.02)
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            x = nnx.relu(conv2d(x, kernel[...], stride=2, padding="SAME") + bias[...])
        x = nnx.relu(self.hidden(x.reshape(len(x), -1)))
        return self.output(self.dropout(x))


def split(arrays: dict[str, np.ndarray], instances: tuple[int, ...]) -> Split:
    """Images and labels of some toys of each category."""
    rows = np.isin(arrays["instance"], instances)
    return arrays["image"][rows], arrays["label"][rows]


def neighbours(train: Split, test: Split, *, chunk: int = 2025) -> dict[str, Any]:
    """Accuracy of the nearest neighbour in raw pixels."""
    start = time.perf_counter()
    known = train[0].reshape(len(train[0]), -1).astype(np.float32) / 255
    squares = np.einsum("ni,ni->n", known, known)
    found = []
    for first in range(0, len(test[0]), chunk):
        asked = test[0][first : first + chunk]
        asked = asked.reshape(len(asked), -1).astype(np.float32) / 255
        # The asked one's own square is the same for all that it is compared with.
        found.append(train[1][np.argmin(squares - 2 * (asked @ known.T), 1)])
    return _score(np.concatenate(found), test[1]) | {"seconds": time.perf_counter() - start}


def network(train: Split, test: Split, config: Config) -> dict[str, Any]:
    """Accuracy of the network after its last epoch."""
    start = time.perf_counter()
    model = Network(config, rngs=nnx.Rngs(config.seed))
    steps = len(train[0]) // config.batch
    schedule = optax.cosine_decay_schedule(config.learning_rate, steps * config.epochs)
    optimizer = nnx.Optimizer(model, optax.adam(schedule), wrt=nnx.Param)

    @nnx.jit
    def step(model: Network, optimizer: nnx.Optimizer, images: Any, labels: Any) -> jax.Array:
        def loss(model: Network) -> jax.Array:
            logits = model(images.astype(jnp.float32) / 255)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    @nnx.jit
    def classify(model: Network, images: Any) -> jax.Array:
        return model(images.astype(jnp.float32) / 255).argmax(-1)

    random = np.random.default_rng(config.seed)
    losses = []
    model.train()
    for epoch in range(config.epochs):
        order = random.permutation(len(train[0]))[: steps * config.batch]
        values = [
            step(model, optimizer, train[0][rows], train[1][rows])
            for rows in order.reshape(steps, config.batch)
        ]
        losses.append(float(jnp.stack(values).mean()))
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}", flush=True)
    seconds = time.perf_counter() - start
    model.eval()
    chunks = np.array_split(test[0], max(1, len(test[0]) // 972))
    found = np.concatenate([classify(model, chunk) for chunk in chunks])
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    report = {"seconds": seconds, "parameters": parameters, "losses": losses}
    return _score(found, test[1]) | report


def _score(found: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    right = found == labels
    each = {
        name: float(right[labels == label].mean()) for label, name in enumerate(toy_norb.CATEGORIES)
    }
    return {"accuracy": float(right.mean()), "accuracies": each}


def main() -> None:
    """Render, measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--quick", action="store_true", help="few toys, nothing written")
    arguments = parser.parse_args()
    config = QUICK if arguments.quick else Config()
    load, start = os.getloadavg()[0], time.perf_counter()
    train, test = _toys(config)
    rendering = time.perf_counter() - start
    report = {
        "config": dataclasses.asdict(config),
        "images": {"train": len(train[0]), "test": len(test[0])},
        "seconds_of_rendering": rendering,
        "neighbours": neighbours(train, test),
        "network": network(train, test, config),
        "load_before": load,
        "cores": len(os.sched_getaffinity(0)),
        **surroundings(),
    }
    if not arguments.quick:
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(report, indent=1))
        return
    print(f"rendered in {rendering:.0f} s")
    for name in ("neighbours", "network"):
        row = report[name]
        print(f"{name:<11}{row['accuracy']:.2%} in {row['seconds']:.0f} s  {row['accuracies']}")


def _toys(config: Config) -> tuple[Split, Split]:
    """Both halves of the data, of all toys or of some."""
    sides = (toy_norb.TRAIN_INSTANCES[: config.toys], toy_norb.TEST_INSTANCES[: config.toys])
    if config.toys == len(toy_norb.TRAIN_INSTANCES):
        arrays = toy_norb.render_all(config.size, config.seed, progress=True)
    else:
        parts = [
            toy_norb.render_toy(category, instance, config.size, config.seed)
            for category in range(len(toy_norb.CATEGORIES))
            for instance in sorted((*sides[0], *sides[1]))
        ]
        arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return split(arrays, sides[0]), split(arrays, sides[1])


if __name__ == "__main__":
    main()
