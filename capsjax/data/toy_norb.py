"""A viewpoint benchmark, rendered where it is used: toys of five kinds, laid out as smallNORB.

5 categories x 10 toys x 18 azimuths x 9 elevations x 6 lightings make 48,600 stereo pairs. Every
view also has a shift, scale, roll and ground of its own, and every image a contrast and brightness;
all are labelled exactly. An image depends on the seed and its own factors, on nothing else. Toys
come in families of two, one in each half of smallNORB's split by instance; see ``toys``.

smallNORB: LeCun, Huang and Bottou, "Learning methods for generic object recognition with invariance
to pose and lighting", CVPR 2004. Its layout is kept, its photographs are not in here.
"""

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from multiprocessing import get_context

import numpy as np
from tqdm import tqdm

from capsjax.data import prepared, smallnorb
from capsjax.data.dataset import Arrays, Dataset
from capsjax.data.draws import Draws
from capsjax.data.render import draw
from capsjax.data.scene import Part, Pose, camera, lamp, reach, turned
from capsjax.data.toys import CATEGORIES, toy

INSTANCES = 10
AZIMUTHS = tuple(range(0, 360, 20))
ELEVATIONS = tuple(range(30, 75, 5))
LIGHTINGS = (
    lamp(-60, 50, 0.80, 0.35),
    lamp(60, 50, 0.80, 0.35),
    lamp(0, 80, 0.75, 0.40),
    lamp(140, 40, 0.90, 0.40),
    lamp(-110, 65, 0.60, 0.55),
    lamp(20, 35, 0.95, 0.25),
)
TRAIN_INSTANCES = (4, 6, 7, 8, 9)
TEST_INSTANCES = (0, 1, 2, 3, 5)
# What a stored example's pose holds, in this order.
POSE = ("shift_x", "shift_y", "scale", "roll", "background", "contrast", "brightness")

SHAPE = (len(CATEGORIES), INSTANCES, len(AZIMUTHS), len(ELEVATIONS), len(LIGHTINGS))
FACTORS = ("label", "instance", "azimuth", "elevation", "lighting")
SIZE = int(np.prod(SHAPE))
EXAMPLES_PER_TOY = int(np.prod(SHAPE[2:]))

# What varies at random, evenly between two bounds, beside the factors.
SHIFT = (-0.08, 0.08)
SCALE = (0.80, 1.10)
ROLL = (-15.0, 15.0)
BACKGROUND = (0.5, 0.8)
CONTRAST = (0.8, 1.2)
BRIGHTNESS = (-0.08, 0.08)
# Between the eyes, in the toys' bounding radii; they stand 7 away.
EYES = (-0.3, 0.3)
_GREY = 0.5


def labels(index: np.ndarray | int, seed: int = 0) -> Arrays:
    """All that is known of examples, by their place in the data set.

    Args:
        index: integers [N] from 0 to 48,599; categories change slowest, lightings fastest.
        seed: of the data set.

    Returns:
        int32 [N]: ``label`` (index into ``CATEGORIES``), ``instance`` (0 to 9), ``azimuth``
        (degrees by which the toy is turned: 0, 20, ..., 340; at 0 it faces the camera),
        ``elevation`` (degrees: 30, 35, ..., 70) and ``lighting`` (0 to 5). float32: ``shift``
        [N, 2] (to the right and down, fraction of the image), and [N] ``scale``, ``roll`` (degrees,
        clockwise), ``background`` (the ground's albedo), ``contrast`` and ``brightness`` (pixel =
        grey + brightness + contrast * (shade - grey), where grey is 0.5, within 0 and 1).

    Raises:
        ValueError: an index is no integer or out of range, or the seed is negative.
    """
    index = _checked_index(index)
    _check_seed(seed)
    factors = np.unravel_index(index, SHAPE)
    found: Arrays = {
        name: values.astype(np.int32) for name, values in zip(FACTORS, factors, strict=True)
    }
    found["azimuth"] *= 20
    found["elevation"] = 30 + 5 * found["elevation"]
    views, image_of_view = np.unique(index // len(LIGHTINGS), return_inverse=True)
    drawn = np.array([_drawn_view(int(view), seed) for view in views], np.float32)
    drawn = drawn.reshape(-1, 5)[image_of_view]
    found["shift"] = drawn[:, :2]
    for column, name in enumerate(("scale", "roll", "background"), 2):
        found[name] = drawn[:, column]
    printed = np.array([_drawn_print(int(one), seed) for one in index], np.float32).reshape(-1, 2)
    return found | {"contrast": printed[:, 0], "brightness": printed[:, 1]}


def render(index: np.ndarray | int, size: int = 48, seed: int = 0) -> Arrays:
    """Render examples by their place in the data set.

    Args:
        index: as for ``labels``.
        size: width and height in pixels, 48 or 96.
        seed: of the data set; another one gives other toys and other poses.

    Returns:
        ``image`` uint8 [N, size, size, 2], the left eye's and the right eye's, and all of
        ``labels``.

    Raises:
        ValueError: as for ``labels``, or another size.
    """
    if size not in (48, 96):
        raise ValueError(f"size is {size!r}, expected 48 or 96 pixels")
    index = _checked_index(index)
    found = labels(index, seed)
    images = np.empty((len(index), size, size, len(EYES)), np.uint8)
    views = index // len(LIGHTINGS)
    for view in np.unique(views):
        (rows,) = np.nonzero(views == view)
        images[rows] = render_view(
            {name: values[rows] for name, values in found.items()}, size, seed
        )
    return {"image": images} | found


def render_view(known: Arrays, size: int = 48, seed: int = 0) -> np.ndarray:
    """One view under one lighting or more, by its factors: also where no example has just these.

    Args:
        known: what ``labels`` gives, N rows that differ in ``lighting``, ``contrast`` and
            ``brightness`` alone; of all else the first row counts. Angles are in degrees, any.
        size: as for ``render``.
        seed: of the toys.

    Returns:
        uint8 [N, size, size, 2].

    Example:
        Two pictures that differ in nothing but a turn by 10 degrees.

        >>> known = labels(1234)
        >>> turned = known | {"azimuth": known["azimuth"] + 10}
        >>> before, after = render_view(known), render_view(turned)
        >>> before.shape, bool((before != after).any())
        ((1, 48, 48, 2), True)
    """
    parts = _toy(int(known["label"][0]), int(known["instance"][0]), seed)
    height = max(part.centre[2] + reach(part)[2] for part in parts)
    shown = turned(parts, float(known["azimuth"][0]))
    right, down = known["shift"][0].tolist()
    pose = Pose((right, down), float(known["scale"][0]), float(known["roll"][0]))
    lamps = [LIGHTINGS[lighting] for lighting in known["lighting"]]
    contrast, brightness = (known[name][:, None, None] for name in ("contrast", "brightness"))
    pictures = []
    for offset in EYES:
        eye = camera(int(known["elevation"][0]), float(height) / 2, offset=offset)
        shades = draw(shown, eye, lamps, size=size, pose=pose, ground=float(known["background"][0]))
        grey = np.float32(_GREY)
        printed = grey + brightness + contrast * (shades - grey)
        pictures.append(np.rint(np.clip(printed, 0, 1) * np.float32(255)).astype(np.uint8))
    return np.stack(pictures, -1)


def render_toy(category: int, instance: int, size: int = 48, seed: int = 0) -> Arrays:
    """Render all 972 examples of one toy, the unit of work; as ``render`` returns them.

    Args:
        category: 0 to 4.
        instance: 0 to 9.
        size: as for ``render``.
        seed: as for ``render``.

    Raises:
        ValueError: as for ``render``, or there is no such toy.
    """
    if category not in range(SHAPE[0]) or instance not in range(INSTANCES):
        raise ValueError(
            f"no toy has category {category!r} and instance {instance!r}, expected a category from "
            f"0 to {SHAPE[0] - 1} and an instance from 0 to {INSTANCES - 1}"
        )
    first = (category * INSTANCES + instance) * EXAMPLES_PER_TOY
    return render(np.arange(first, first + EXAMPLES_PER_TOY), size, seed)


def render_all(
    size: int = 48,
    seed: int = 0,
    *,
    instances: Sequence[int] = range(INSTANCES),
    progress: bool = False,
    processes: int | None = None,
) -> Arrays:
    """Render all 48,600 examples, or those of some instances of every category.

    More than one process are spawned, so that a script which calls this needs the guard
    ``if __name__ == "__main__":``.

    Args:
        size: as for ``render``.
        seed: as for ``render``.
        instances: which toys of every category.
        progress: show a bar on standard error.
        processes: how many share the work; None is one for each core. The bytes are the same.

    Returns:
        As ``render``, in the order of the index.

    Raises:
        ValueError: as for ``render``, or fewer than one process.
        OSError: a process was killed, or could not start.
    """
    count = _cores() if processes is None else processes
    if count < 1:
        raise ValueError(f"processes is {processes!r}, expected at least 1")
    _check_seed(seed)
    toys = list(itertools.product(range(SHAPE[0]), instances))
    work = partial(_render_one_toy, size=size, seed=seed)
    bar = partial(tqdm, total=len(toys), desc="toy_norb", unit="toy", disable=not progress)
    if count == 1:
        parts = list(bar(map(work, toys)))
    else:
        try:
            with ProcessPoolExecutor(
                min(count, len(toys)), mp_context=get_context("spawn")
            ) as pool:
                parts = list(bar(pool.map(work, toys)))
        except BrokenProcessPool as error:
            raise OSError(
                f"a rendering process ended early ({error}): give a script the guard if __name__ "
                "== '__main__', or render with processes=1"
            ) from error
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def dataset(size: int = 48) -> Dataset:
    """The benchmark from its prepared folder, in smallNORB's halves by instance.

    Arrays as of ``render``, in TFDS's order, with ``shift_x`` and ``shift_y`` in place of shift.

    Args:
        size: width and height in pixels, 48 or 96.

    Returns:
        The data set.
    """
    count = SIZE // 2
    return prepared.dataset(
        "toy_norb" if size == 48 else f"toy_norb_{size}",
        image_shape=(size, size, len(EYES)),
        class_names=CATEGORIES,
        sizes={"train": count, "test": count},
        source="synthetic: rendered by capsjax",
        licence="as capsjax's",
        origin="rendering",
        arrays=_arrays,
        viewpoints=True,
    )


def pose(arrays: Arrays) -> np.ndarray:
    """What varies beside the factors, float32 ``[N, 7]`` in the order of ``POSE``."""
    columns = [arrays["shift"], *(arrays[name][:, None] for name in POSE[2:])]
    return np.concatenate(columns, axis=1, dtype=np.float32)


def _arrays(features: Arrays) -> Arrays:
    columns = dict(zip(POSE, features["pose"].T, strict=True))
    return smallnorb.arrays(features) | columns


def _render_one_toy(which: tuple[int, int], *, size: int, seed: int) -> Arrays:
    return render_toy(*which, size, seed)


@lru_cache(maxsize=64)
def _toy(category: int, instance: int, seed: int) -> tuple[Part, ...]:
    return toy(category, instance, seed)


def _drawn_view(view: int, seed: int) -> list[float]:
    draws = Draws(seed, 1, view)
    return [draws(*bounds) for bounds in (SHIFT, SHIFT, SCALE, ROLL, BACKGROUND)]


def _drawn_print(index: int, seed: int) -> list[float]:
    draws = Draws(seed, 2, index)
    return [draws(*bounds) for bounds in (CONTRAST, BRIGHTNESS)]


def _checked_index(index: np.ndarray | int) -> np.ndarray:
    array = np.atleast_1d(np.asarray(index))
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"index is {array.dtype} {array.shape}, expected an integer or integers of shape [N]"
        )
    if array.size and (array.min() < 0 or array.max() >= SIZE):
        raise ValueError(
            f"index runs from {array.min()} to {array.max()}, expected 0 to {SIZE - 1}"
        )
    return array.astype(np.int64)


def _check_seed(seed: int) -> None:
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed is {seed!r}, expected an integer of at least 0")
