"""What a decoder draws of poses that were moved: dimension by dimension, and between two digits."""

import base64
import lzma
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from capsjax.data import augment
from capsjax.inspection import OFFSETS, decoder
from experiments import digit_shapes, pose_images
from experiments.pose_features import listen

# Where two digits are, and how far along the line through both their pose is moved: 0 is the one, 1
# the other; all places are within what affine_mnist shows in training.
ENDS = {"shift_x": (-3.0, 3.0), "rotation": (-10.0, 10.0)}
ALONG = np.linspace(-0.5, 1.5, 9)
_SHIFT = 2  # pixels, as in training
_GREYS = 8  # of the pictures that results keep


def dimensions(
    network: nnx.Module,
    arrays: Mapping[str, np.ndarray],
    *,
    count: int,
    shown: int,
    threshold: float,
    rotations: int,
    seed: int,
) -> dict[str, Any]:
    """Perturb every dimension of the class capsules of test digits and measure what is drawn.

    Args:
        network: with a decoder.
        arrays: test images and labels; all of them tell how much each property varies.
        count: of digits to perturb, the first ones.
        shown: class of the digit whose pictures are kept.
        threshold: of a name, see ``digit_shapes.names``.
        rotations: so many random ones of all dimensions beside them.
        seed: of the digits' shifts and of the rotations.

    Returns:
        ``effects`` ``[classes, dims, 6]`` in units of ``spread``, the share of dimensions that have
        a name (``named``) and how pure they are (``purity``), both also of each rotation's
        directions (``random_``), ``pose_spread``, ``picture``.
    """
    images, labels = shifted(arrays["image"], seed), arrays["label"]
    spread = digit_shapes.spread(digit_shapes.shapes(images[..., 0] / 255), labels)
    said = listen(network, images)
    poses, decode = said.of(labels), grey_decoder(network)
    classes, dim = said.activations.shape[1], poses.shape[1]

    def means(directions: np.ndarray) -> np.ndarray:
        found = digit_shapes.effects(decode, poses[:count], labels[:count], OFFSETS, directions)
        return digit_shapes.by_class(found, labels[:count], classes) / spread

    own = means(np.eye(dim))
    spun, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(rotations, dim, dim)))
    random = [_summary(means(directions.T), threshold) for directions in spun]
    one = poses[np.flatnonzero(labels == shown)[0]]
    moved = (one + OFFSETS[:, None] * np.eye(dim)[:, None, :]).reshape(-1, dim)
    drawn = decode(moved, np.full(len(moved), shown)).reshape(dim, len(OFFSETS), *images.shape[1:3])
    within = np.sqrt(np.mean([poses[labels == c].var(0) for c in np.unique(labels)]))
    return {
        "spread": dict(zip(digit_shapes.PROPERTIES, _rounded(spread, 3), strict=True)),
        "pose_spread": round(float(within), 3),
        "effects": _rounded(own, 4),
        **_summary(own, threshold),
        **{f"random_{name}": [each[name] for each in random] for name in ("named", "purity")},
        "threshold": threshold,
        "shown": shown,
        "picture": kept(drawn),
    }


def _summary(effects: np.ndarray, threshold: float) -> dict[str, float]:
    present = effects[~np.isnan(effects).all((1, 2))]
    named = [name != "none" for row in digit_shapes.names(present, threshold) for name in row]
    return {"named": float(np.mean(named)), "purity": digit_shapes.purity(present)}


def shifted(images: np.ndarray, seed: int) -> np.ndarray:
    """Digits moved as training moves them; in the middle, where they come, none has a shift."""
    random = np.random.default_rng(seed)
    offsets = random.integers(-_SHIFT, _SHIFT + 1, (len(images), 2))
    move = jax.vmap(lambda image, offset: augment.place(image, offset, limit=_SHIFT))
    return np.asarray(move(jnp.asarray(images), jnp.asarray(offsets)))


def interpolated(network: nnx.Module, *, count: int, shown: int, seed: int) -> dict[str, Any]:
    """Move poses along the line between those of a digit at two places, and compare the pictures.

    Args:
        network: with a decoder, trained on ``affine_mnist``.
        count: of test digits.
        shown: class of the digit whose pictures are kept.
        seed: draws them.

    Returns:
        By the parameter that differs: mean squared errors a pixel along ``ALONG``, of the decoded
        pose (``moved``), of the reconstruction of the true picture (``own``), and of the mixture of
        both pictures (``mixed``); and ``pictures`` of the true, the moved and the own.
    """
    decode = grey_decoder(network)
    found: dict[str, Any] = {}
    for name, (low, high) in ENDS.items():
        images, labels = pose_images.digit_path(count, seed, name, low + ALONG * (high - low))
        true = images[..., 0] / 255
        poses = np.stack([listen(network, each).of(labels) for each in images])
        start, end = (int(np.flatnonzero(place == ALONG)[0]) for place in (0, 1))
        along = ALONG[:, None, None]
        line = poses[start] + along * (poses[end] - poses[start])
        moved, own = (np.stack([decode(each, labels) for each in p]) for p in (line, poses))
        mixture = true[start] + along[..., None] * (true[end] - true[start])
        errors = {
            kind: _rounded(((drawn - true) ** 2).mean((1, 2, 3)), 5)
            for kind, drawn in (("moved", moved), ("own", own), ("mixed", mixture.clip(0, 1)))
        }
        one = int(np.flatnonzero(labels == shown)[0])
        found[name] = {**errors, "picture": kept(np.stack([p[:, one] for p in (true, moved, own)]))}
    return found


def grey_decoder(network: nnx.Module) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """From poses ``[N, dim]`` and classes ``[N]`` to pictures ``[N, H, W]`` of one channel."""
    decode = decoder(network)
    return lambda poses, labels: decode(poses, labels)[..., 0]


def kept(images: np.ndarray) -> str:
    """Square grey images ``[rows, columns, H, H]`` as a short text; ``picture`` reads it."""
    rows, columns, height, width = images.shape
    # In the order of the whole picture, where neighbours are alike.
    whole = images.swapaxes(1, 2).reshape(rows * height, columns * width)
    levels = np.rint(whole.clip(0, 1) * (_GREYS - 1)).astype(np.uint8)
    return base64.b64encode(lzma.compress(levels.tobytes(), preset=9)).decode()


def picture(text: str, rows: int, columns: int) -> np.ndarray:
    """Images ``[rows, columns, H, H]`` from 0 to 1, in 8 greys."""
    levels = np.frombuffer(lzma.decompress(base64.b64decode(text)), np.uint8)
    side = math.isqrt(len(levels) // (rows * columns))
    whole = levels.reshape(rows, side, columns, side) / (_GREYS - 1)
    return whole.swapaxes(1, 2)


def _rounded(values: np.ndarray | Sequence[float], digits: int) -> Any:
    """JSON values; None for NaN."""
    array = np.round(np.asarray(values, float), digits)
    return np.where(np.isnan(array), None, array).tolist()
