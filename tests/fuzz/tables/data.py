"""Data: transformations of one image, drawn pictures, arrays and names of data sets."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from capsjax import data, pretrained
from capsjax.data import (
    affine_mnist,
    augment,
    colour,
    multi_mnist,
    rotated_mnist,
    translated_mnist,
    warp,
)
from capsjax.explorer import images
from tests.fuzz.judge import OVERFLOW, Row
from tests.fuzz.tables.mathematics import uniform

_MNIST: Any = SimpleNamespace(dataset="mnist", shape_of_data=(28, 28, 1))
_STROKE = np.zeros((40, 30, 4), np.uint8)
_STROKE[10:30, 12:16] = 255
_KEY, _IMAGE = jax.random.key(0), uniform(6, 6, 1)
_OUTSIDE = "what is moved out of the frame is not seen"
_DRAWN = {"key": _KEY, "image": _IMAGE}
_BYTES = jnp.arange(36, dtype=jnp.uint8).reshape(6, 6, 1)
_BASE = {"image": np.zeros((4, 6, 6, 1), np.uint8), "label": np.array([0, 1, 0, 1], np.int32)}
_ON_DEVICE = {name: jnp.asarray(array) for name, array in _BASE.items()}
_PLACE = {"key": _KEY, "index": jnp.int32(1), "variant": jnp.int32(0)}
_MOVED = {"rotation": 20.0, "shear": 0.1, "scale_y": 1.1, "scale_x": 0.9}
_PAIRS = {k: jnp.asarray(v) for k, v in multi_mnist.prepare(_BASE).items()}

ROWS = [
    Row("shift", augment.shift, {**_DRAWN, "limit": 2}, hides=_OUTSIDE),
    Row("place", augment.place,
        {"image": _IMAGE, "offset": jnp.array([1, -1]), "limit": 1, "pad": 2}, hides=_OUTSIDE),
    Row("random_crop", augment.random_crop, {**_DRAWN, "size": (4, 4)}, hides=_OUTSIDE),
    Row("central_crop", augment.central_crop, {"image": _IMAGE, "size": (4, 4)}, hides=_OUTSIDE),
    Row("random_flip", augment.random_flip, _DRAWN),
    Row("resize", augment.resize, {"image": _IMAGE, "size": (3, 3)}),
    Row("composite", augment.composite, {"first": _BYTES, "second": _BYTES}),
    Row("to_unit_interval", augment.to_unit_interval, {"images": _BYTES}),
    Row("linear_map", warp.linear_map, _MOVED, makes=OVERFLOW),
    Row("affine_matrix", warp.affine_matrix, {**_MOVED, "shift_y": 1.0, "shift_x": -1.0},
        makes=OVERFLOW),
    Row("affine", warp.affine,
        {"image": _IMAGE, "matrix": warp.affine_matrix(rotation=10.0), "size": (6, 6)},
        hides=_OUTSIDE, makes=OVERFLOW),
    Row("draw_linear", warp.draw_linear,
        {"key": _KEY, "rotation": 20.0, "shear": 0.2, "scale": (0.8, 1.2)}, makes=OVERFLOW),
    Row("random_affine", warp.random_affine,
        {**_DRAWN, "rotation": 20.0, "shear": 0.2, "scale": (0.8, 1.2), "shift": 1.0,
         "size": (6, 6)}, hides=_OUTSIDE, makes=OVERFLOW),
    Row("random_brightness", colour.random_brightness, {**_DRAWN, "limit": 0.2}, makes=OVERFLOW),
    Row("random_contrast", colour.random_contrast, {**_DRAWN, "lower": 0.5, "upper": 1.5},
        makes=OVERFLOW),
    Row("contrast", colour.contrast, {"image": _IMAGE, "factor": 0.5}, makes=OVERFLOW),
    Row("standardise", colour.standardise, {"image": _IMAGE}, makes=OVERFLOW),
    Row("multi_mnist.prepare", multi_mnist.prepare, {"base": _BASE}, False),
    Row("multi_mnist.example", multi_mnist.example,
        {**_PLACE, "base": _PAIRS, "config": multi_mnist.Config()}),
    Row("affine_mnist.example", affine_mnist.example,
        {**_PLACE, "base": _ON_DEVICE, "config": affine_mnist.Config()}),
    Row("translated_mnist.example", translated_mnist.example,
        {**_PLACE, "base": _ON_DEVICE, "config": translated_mnist.Config()}),
    Row("rotated_mnist.example", rotated_mnist.example,
        {**_PLACE, "base": _ON_DEVICE, "config": rotated_mnist.Config()}),
    Row("check_arrays", data.check_arrays,
        {"arrays": _BASE, "where": "mine", "several": False}, False),
    Row("from_arrays", data.from_arrays,
        {"images": _BASE["image"], "labels": _BASE["label"], "class_names": ("a", "b"),
         "name": "mine"}, False),
    Row("sketched", lambda layers: images.sketched(layers, _MNIST),
        {"layers": [_STROKE, _STROKE]}, False),
    Row("centred", images.centred, {"ink": _STROKE[..., 3] / 255, "side": 28}, False,
        hides="what is not above the paper is no ink"),
    Row("pretrained.describe", pretrained.describe, {"name": "efficient_capsnet_mnist"}, False),
    Row("pretrained.find", lambda where: pretrained.find(where) and None,
        {"where": "efficient_capsnet_mnist"}, False),
    Row("data.find", data.find, {"name": "mnist"}, False),
    Row("data.load", lambda name, split: data.load(name, split)["label"][:3],
        {"name": "mnist", "split": "test"}, False),
    Row("data.builder", data.builder, {"name": "mnist"}, False),
]  # fmt: skip
