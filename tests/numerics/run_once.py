"""A short training and its evaluation, and one number for all of their bits.

``python -m tests.numerics.run_once`` prints it; ``test_same_bits`` compares processes by it.
"""

import hashlib

import jax
import numpy as np

from capsjax.training import evaluation, loop
from tests.training.small import digits, narrow_network, parameters

CONFIG = loop.Config(epochs=1, batch_size=8, validation=8, shift=1, seed=3)


def digest() -> str:
    """SHA-256 of the state after two steps, the history, and what ten images are predicted as."""
    result = loop.fit(narrow_network(), digits(24), CONFIG)
    assert result.steps == 2
    predictions = evaluation.predict(result.model, digits(10, "test")["image"])
    tree = (result.state, parameters(result.model), predictions)
    code = hashlib.sha256(repr([sorted(entry.items()) for entry in result.history]).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        code.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        code.update(array.tobytes())
    return code.hexdigest()


if __name__ == "__main__":
    print(digest())
