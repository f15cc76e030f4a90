"""What the tests of training share: small networks, real digits, comparison to the bit.

``Level`` compiles in a fraction of a second and has one parameter, which training pulls towards the
mean pixel. That makes everything the loop does visible: with a learning rate near 0 its
reconstruction loss tells which image a step saw, with a large one its prediction changes by epoch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

from capsjax import data
from capsjax.models import capsnet
from capsjax.types import Output

# A small kernel, too: compiling takes a time that grows with it.
NARROW = capsnet.Config(features=8, kernel_size=3, primary_types=2, decoder_widths=(16,))

WEIGHT = 0.0005  # of the reconstruction loss, in the paper

# Where orbax fails to read an array, it leaves coroutines that complain when they are collected.
# Tests that provoke that bear this mark and collect them themselves.
orbax_leftovers = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def digits(count: int, split: str = "train") -> data.Arrays:
    """The first so many of the real MNIST."""
    return {key: value[:count] for key, value in data.load("mnist", split=split).items()}


def saved_digits(path: Path, train: int, test: int) -> None:
    """The first so many of each split as a file of one's own images."""
    few, others = digits(train), digits(test, "test")
    np.savez(
        path,
        image=few["image"],
        label=few["label"],
        test_image=others["image"],
        test_label=others["label"],
    )


def narrow_network() -> capsnet.Network:
    return capsnet.Network(NARROW, image_shape=(28, 28, 1), num_classes=10, rngs=nnx.Rngs(params=0))


class Level(nnx.Module):
    """Reconstructs every image as one level; predicts class 0 below 1/3, 1 below 2/3, else 2.

    ``seen`` counts training steps, as running statistics would; ``unused`` has no effect.
    """

    def __init__(self, start: float = 0.0, *, unused: float = 0.0):
        self.num_classes = 3
        self.level = nnx.Param(jnp.asarray(start, jnp.float32))
        self.unused = nnx.Param(jnp.asarray(unused, jnp.float32))
        self.seen = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.training = True

    def eval(self, **attributes: Any) -> "Level":
        self.training = False
        return self

    def __call__(self, images: jax.Array, targets: jax.Array | None = None) -> Output:
        if self.training:
            self.seen[...] = self.seen[...] + 1
        level = self.level[...]
        predicted = jnp.searchsorted(jnp.array([1 / 3, 2 / 3]), level)
        activations = jnp.where(jnp.arange(3) == predicted, 0.9, 0.1)
        activations = jnp.broadcast_to(activations, (len(images), 3))
        poses = jnp.zeros((len(images), 3, 2))
        return Output(poses, activations, jnp.broadcast_to(level, images.shape), ())


class Pair(nnx.Module):
    """Reads an image's classes off its first row; reconstructs each as one level.

    Class k is as active as pixel k of that row is bright, scaled by ``sureness``.
    """

    def __init__(self, num_classes: int = 4, start: float = 0.0, *, decoder: bool = True):
        self.num_classes = num_classes
        self.level = nnx.Param(jnp.asarray(start, jnp.float32))
        self.sureness = nnx.Param(jnp.asarray(0.5, jnp.float32))
        self.decoder = decoder

    def __call__(
        self, images: jax.Array, targets: jax.Array | None = None, *, longest: int = 1
    ) -> Output:
        activations = self.sureness[...] * images[:, 0, : self.num_classes, 0]
        reconstruction = None
        if self.decoder:
            several = longest if targets is None else (targets.shape[1] if targets.ndim == 3 else 1)
            shape = images.shape if several == 1 else (len(images), several, *images.shape[1:])
            reconstruction = jnp.broadcast_to(self.level[...], shape)
        return Output(None, activations, reconstruction, ())


def pairs_of(said: Any, labels: Any, size: int = 4) -> data.Arrays:
    """Images whose first row names two classes, the first brighter, and their sources.

    The sources are flat: 51 for the first label, 204 for the second.
    """
    images = np.zeros((len(said), size, size, 1), np.uint8)
    for image, (first, second) in zip(images, said, strict=True):
        image[0, first], image[0, second] = 240, 120
    sources = np.zeros((len(said), 2, size, size, 1), np.uint8)
    sources[:, 0], sources[:, 1] = 51, 204
    return {"image": images, "label": np.array(labels, np.int32), "sources": sources}


def flat_images(levels: Any, label: int = 1) -> data.Arrays:
    """Images of 4x4 equal pixels, one for each level from 0 to 255."""
    pixels = np.asarray(levels, np.uint8)[:, None, None, None]
    return {
        "image": np.tile(pixels, (1, 4, 4, 1)),
        "label": np.full(len(pixels), label, np.int32),
    }


def assert_same_bits(found: Any, expected: Any) -> None:
    """Both pytrees hold the same arrays, to the last bit."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        name = jax.tree_util.keystr(path)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
        assert ours.tobytes() == theirs.tobytes(), name


def parameters(network: nnx.Module) -> Any:
    return nnx.to_pure_dict(nnx.state(network))


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def do_damage(path: Path, damage: str) -> None:
    """What a disk or a person may do to a file: "overwritten", "truncated" or "deleted"."""
    if damage == "overwritten":
        path.write_bytes(b"garbage")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()


@contextmanager
def compiled_once(folder: Path) -> Iterator[None]:
    """Within it, what was compiled before with the same cache folder is not compiled again."""
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def cache_environment(folder: Path) -> dict[str, str]:
    """The same for a process."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
