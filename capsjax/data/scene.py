"""What a picture is made of: parts, a camera, the picture's pose in the image, lamps.

Lengths are in units of a toy's bounding radius; z points up, and the ground is the plane z = 0.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Kind = Literal["ellipsoid", "box", "cylinder"]
# Either is meant by a number; the shape checks of the tests tell them apart.
Number = float | int
Point = tuple[Number, Number, Number]


class Part(NamedTuple):
    """The affine image of a unit sphere, of the cube [-1, 1]^3, or of a cylinder along its z.

    Attributes:
        kind: which of the three.
        centre: float [3].
        axes: float [3, 3]; its columns are the images of the unit shape's three half axes.
        albedo: share of the light that it reflects.
    """

    kind: Kind
    centre: np.ndarray
    axes: np.ndarray
    albedo: float


class Camera(NamedTuple):
    """An eye and the plane that it focuses, on which the image lies.

    Attributes:
        eye: float [3].
        target: float [3], seen at the image's centre.
        right: float [3], from the target to the image's right edge.
        up: float [3], from the target to its upper edge.
    """

    eye: np.ndarray
    target: np.ndarray
    right: np.ndarray
    up: np.ndarray


class Pose(NamedTuple):
    """Where a picture lies in its image: scaled, turned, then shifted.

    Attributes:
        shift: to the right and down, as a fraction of the image.
        scale: magnification.
        roll: degrees, clockwise on the screen.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    roll: float = 0.0


class Lamp(NamedTuple):
    """Distant light.

    Attributes:
        direction: unit float [3], towards the lamp.
        strength: of its light on a surface that faces it.
        ambient: of the light from all around; a surface that faces down gets half of it.
    """

    direction: np.ndarray
    strength: float
    ambient: float


def block(
    kind: Kind, centre: Point, half: Point, *, tilt: Number = 0.0, lean: Number = 0.0
) -> Part:
    """A part along x, y and z, its nose raised by ``tilt`` degrees, its top moved by ``lean``."""
    cosine, sine = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    turn = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
    axes = np.diag(np.array(half, float))
    axes[0, 2] = lean
    return Part(kind, np.array(centre, float), (turn[:, :, None] * axes).sum(1), 1.0)


def rod(kind: Kind, start: Point, end: Point, radius: Number) -> Part:
    """A part with its z axis from one point to another."""
    begin, finish = np.array(start, float), np.array(end, float)
    half = (finish - begin) / 2
    length = math.sqrt((half * half).sum())
    along = half / length
    side = np.array([0.0, 1.0, 0.0]) if abs(along[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
    side = side - (side * along).sum() * along
    side = side / math.sqrt((side * side).sum())
    third = np.cross(side, along)
    axes = np.stack([third * radius, side * radius, half], 1)
    return Part(kind, (begin + finish) / 2, axes, 1.0)


def reach(part: Part) -> np.ndarray:
    """How far a part reaches from its centre along x, y and z, float [3]."""
    if part.kind == "box":
        return np.abs(part.axes).sum(1)
    round_axes = 3 if part.kind == "ellipsoid" else 2
    around = np.sqrt((part.axes[:, :round_axes] ** 2).sum(1))
    return around + np.abs(part.axes[:, round_axes:]).sum(1)


def camera(elevation: Number, height: Number, *, offset: Number = 0.0) -> Camera:
    """A camera on the side of positive x that looks at the z axis.

    Args:
        elevation: degrees above the horizon.
        height: of the target, on the z axis.
        offset: of the eye to its right; both eyes of a pair focus the same plane.

    Returns:
        The camera, 7 units from the target, with a view 2.5 units wide where it focuses.
    """
    distance, extent = 7.0, 1.25
    cosine, sine = math.cos(math.radians(elevation)), math.sin(math.radians(elevation))
    target = np.array([0.0, 0.0, height])
    right = np.array([0.0, 1.0, 0.0])
    eye = target + distance * np.array([cosine, 0.0, sine]) + offset * right
    return Camera(eye, target, extent * right, extent * np.array([-sine, 0.0, cosine]))


def lamp(azimuth: Number, elevation: Number, strength: Number, ambient: Number) -> Lamp:
    """A lamp by its direction in degrees, the azimuth counted from x towards y."""
    azimuth, elevation = math.radians(azimuth), math.radians(elevation)
    level = math.cos(elevation)
    direction = [level * math.cos(azimuth), level * math.sin(azimuth), math.sin(elevation)]
    return Lamp(np.array(direction), strength, ambient)


def turned(parts: Sequence[Part], azimuth: Number) -> tuple[Part, ...]:
    """The parts turned about the z axis by ``azimuth`` degrees, from x towards y."""
    cosine, sine = math.cos(math.radians(azimuth)), math.sin(math.radians(azimuth))

    def turn(array: np.ndarray) -> np.ndarray:
        x, y, z = array
        return np.array([cosine * x - sine * y, sine * x + cosine * y, z])

    return tuple(part._replace(centre=turn(part.centre), axes=turn(part.axes)) for part in parts)
