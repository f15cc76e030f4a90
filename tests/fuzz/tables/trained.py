"""What is asked of a trained network: predictions, errors, what happens inside; parts of data."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from capsjax import data, inspection
from capsjax.data import subsets
from capsjax.training import Config, run
from tests.fuzz.judge import OVERFLOW, Row
from tests.training.small import NARROW

_IMAGES = np.random.default_rng(0).integers(0, 255, (2, 28, 28, 1)).astype(np.uint8)
_LABELS = np.array([3, 7])
_FACTORS = {
    "image": np.zeros((24, 4, 4, 1), np.uint8),
    "label": np.arange(24) % 2,
    "instance": np.arange(24) // 6,
    "azimuth": np.arange(24) % 3 * 120,
    "elevation": np.arange(24) % 2 * 40 + 30,
}


@functools.cache
def _run() -> run.Run:
    """A fresh network, as if it had been trained."""
    settings = run.settings_for(
        data.find("mnist"), name="mnist", model="capsnet", model_config=NARROW, training=Config()
    )
    network: Any = settings.create()
    network.eval()
    return run.Run(network, settings)


def _asked(function: Callable[..., Any], **valid: Any) -> Row:
    def ask(**given: Any) -> Any:
        return function(_run(), **given)

    return Row(function.__name__, ask, valid, compiled=False, makes=OVERFLOW)


def _part(function: Callable[..., Any], **valid: Any) -> Row:
    return Row(f"subsets.{function.__name__}", function, valid, compiled=False)


ROWS = [
    _asked(run.Run.predict, images=_IMAGES, reconstruct=False),
    _asked(run.Run.evaluate, arrays={"image": _IMAGES, "label": _LABELS}, reconstruct=True),
    _asked(inspection.see, images=_IMAGES, paths=["primary"], trace=False, classes=1,
           moves={"primary": np.zeros((2, *(288, 8)), np.float32)}),
    _asked(inspection.perturbed, image=_IMAGES[0], layer="classes", capsule=1,
           offsets=np.array([-0.1, 0.1])),
    _asked(inspection.last_routing, image=_IMAGES[0]),
    _asked(inspection.by_angle, images=_IMAGES, labels=_LABELS, angles=[0.0, 90.0]),
    _asked(inspection.attacked, images=_IMAGES, labels=_LABELS, epsilon=0.1),
    Row("moved", inspection.moved,
        {"images": _IMAGES, "rotation": 10.0, "scale": 1.1, "shift_y": 1.0, "shift_x": 0.0}, False),
    _part(subsets.few_shot, arrays=_FACTORS, per_class=2, seed=0),
    _part(subsets.by_instance, arrays=_FACTORS, instances=[0, 2]),
    _part(subsets.hold_out, arrays=_FACTORS, instance=1),
    _part(subsets.viewpoint, arrays=_FACTORS, factor="azimuth"),
]  # fmt: skip
