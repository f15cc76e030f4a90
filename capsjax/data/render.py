"""A small ray tracer: ellipsoids, boxes and cylinders on a plane, under a lamp that casts shadows.

A part is the affine image of a unit shape, so that rays are met exactly in the part's coordinates.
Shading is Lambert's, with one distant lamp and light from all around.

Only elementwise arithmetic and square roots touch the pixels (no matrix product, no power, no
sine). IEEE 754 fixes the result of each, so an image is the same however the work is split.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from capsjax.data.scene import Camera, Kind, Lamp, Part, Pose

Vector = tuple[np.ndarray, np.ndarray, np.ndarray]
# Three coordinates, of many points or of one.
Coordinates = Sequence[Any]

GROUND = -1
# A shadow's ray starts this far above its surface, lest rounding let the surface shade itself.
_LIFT = 2e-3
# Stands for zero where a ray runs along a face: its crossing is then far away, not nan.
_TINY = np.float32(1e-9)


class Hits(NamedTuple):
    """What the rays met first, each array [rays].

    Attributes:
        part: index of the part, or ``GROUND``.
        distance: in lengths of the ray from the eye to the focused plane.
        points: three coordinates.
        normals: three coordinates, of length one.
    """

    part: np.ndarray
    distance: np.ndarray
    points: Vector
    normals: Vector


def draw(
    parts: Sequence[Part],
    camera: Camera,
    lamps: Sequence[Lamp],
    *,
    size: int,
    pose: Pose = Pose(),
    ground: float = 0.6,
    samples: int = 2,
) -> np.ndarray:
    """The scene under each lamp by itself.

    Args:
        parts: of the toy.
        camera: who looks.
        lamps: any number, of which one is on at a time.
        size: width and height in pixels.
        pose: of the picture in the image.
        ground: albedo of the plane.
        samples: rays along each side of a pixel, whose mean the pixel is.

    Returns:
        float32 [lamps, size, size]; 1 is a white surface that gets light of strength 1.
    """
    across, up = screen(size * samples, pose)
    hits = trace(parts, camera, across, up)
    # GROUND is -1, the last.
    albedo = np.array([*(part.albedo for part in parts), ground], np.float32)[hits.part]
    shades = np.stack([albedo * light for light in illuminate(parts, hits, lamps)])
    fine = shades.reshape(len(lamps), size, samples, size, samples)
    # Added one by one: the order in which NumPy's sum adds may vary with the machine.
    total = sum(fine[:, :, row, :, column] for row in range(samples) for column in range(samples))
    return np.asarray(total / np.float32(samples * samples))


def screen(size: int, pose: Pose = Pose()) -> tuple[np.ndarray, np.ndarray]:
    """Where in the picture each pixel's centre lies.

    Args:
        size: width and height in pixels.
        pose: of the picture in the image.

    Returns:
        Two float32 [size * size]: to the right and up, the picture's edges being -1 and 1.
    """
    centres = (np.arange(size, dtype=np.float32) * 2 + 1) / np.float32(size) - 1
    across = (centres - 2 * pose.shift[0])[None, :] / pose.scale
    up = (2 * pose.shift[1] - centres)[:, None] / pose.scale
    cosine, sine = math.cos(math.radians(pose.roll)), math.sin(math.radians(pose.roll))
    turned_across, turned_up = cosine * across - sine * up, sine * across + cosine * up
    return turned_across.astype(np.float32).ravel(), turned_up.astype(np.float32).ravel()


def trace(parts: Sequence[Part], camera: Camera, across: np.ndarray, up: np.ndarray) -> Hits:
    """Follow one ray per pixel to the first surface.

    Args:
        parts: of the toy.
        camera: who looks.
        across: float32 [rays], as ``screen`` gives.
        up: the same.

    Returns:
        What the rays met; those above the horizon meet the ground far away.
    """

    def directions(linear: np.ndarray) -> Vector:
        """Rays from the eye to the focused plane, after a linear map."""
        centre, right, above = (
            _apply(linear, vector).astype(np.float32)
            for vector in (camera.target - camera.eye, camera.right, camera.up)
        )
        x, y, z = (centre[i] + right[i] * across + above[i] * up for i in range(3))
        return x, y, z

    rays = directions(np.eye(3))
    distance = np.float32(-camera.eye[2]) / np.minimum(rays[2], np.float32(-1e-3))
    found = np.full(across.shape, GROUND, np.int8)
    for index, part in enumerate(parts):
        inverse = _inverse(part.axes)
        origin = _apply(inverse, camera.eye - part.centre).astype(np.float32)
        near, far = _interval(part.kind, tuple(origin), directions(inverse))
        first = (near <= far) & (near > 0) & (near < distance)
        np.copyto(distance, near, where=first)
        found[first] = index
    eye = camera.eye.astype(np.float32)
    x, y, z = (eye[i] + distance * rays[i] for i in range(3))
    return Hits(found, distance, (x, y, z), _normals(parts, found, (x, y, z)))


def illuminate(parts: Sequence[Part], hits: Hits, lamps: Sequence[Lamp]) -> list[np.ndarray]:
    """Light that arrives at each point under each lamp by itself, float32 [rays]."""
    around = np.float32(0.75) + np.float32(0.25) * hits.normals[2]
    shadows = shadowed(parts, hits, lamps)
    lights = []
    for lamp, shadow in zip(lamps, shadows, strict=True):
        cosine = _dot(hits.normals, lamp.direction.astype(np.float32))
        direct = np.maximum(cosine, 0) * ~shadow
        lights.append(np.float32(lamp.strength) * direct + np.float32(lamp.ambient) * around)
    return lights


def shadowed(parts: Sequence[Part], hits: Hits, lamps: Sequence[Lamp]) -> list[np.ndarray]:
    """Whether some part stands between each point and each lamp, bool [rays]."""
    x, y, z = (p + np.float32(_LIFT) * n for p, n in zip(hits.points, hits.normals, strict=True))
    shadows = [np.zeros(x.shape, bool) for _ in lamps]
    for part in parts:
        inverse = _inverse(part.axes)
        offset = _apply(inverse, part.centre).astype(np.float32)
        matrix = inverse.astype(np.float32)
        a, b, c = (_dot((x, y, z), matrix[i]) - offset[i] for i in range(3))
        for lamp, shadow in zip(lamps, shadows, strict=True):
            direction = _apply(inverse, lamp.direction).astype(np.float32)
            near, far = _interval(part.kind, (a, b, c), tuple(direction))
            shadow |= (near <= far) & (near > 0)
    return shadows


def _interval(kind: Kind, origin: Coordinates, ray: Coordinates) -> tuple[np.ndarray, np.ndarray]:
    """Where a line enters and leaves a unit shape, in lengths of ``ray``; it misses if near > far.

    Either argument may be three numbers: all rays from one point, or all in one direction.
    """
    if kind == "box":
        spans = [_slab(o, d) for o, d in zip(origin, ray, strict=True)]
    elif kind == "ellipsoid":
        spans = [_quadric(origin, ray)]
    else:
        spans = [_quadric(origin[:2], ray[:2]), _slab(origin[2], ray[2])]
    near, far = spans[0]
    for other_near, other_far in spans[1:]:
        near, far = np.maximum(near, other_near), np.minimum(far, other_far)
    return near, far


def _slab(origin: Any, ray: Any) -> tuple[np.ndarray, np.ndarray]:
    """Where one coordinate is between -1 and 1."""
    inverse = 1 / np.where(np.abs(ray) < _TINY, _TINY, ray)
    centre, half = -origin * inverse, np.abs(inverse)
    return centre - half, centre + half


def _quadric(origin: Coordinates, ray: Coordinates) -> tuple[np.ndarray, np.ndarray]:
    """Where the given coordinates have a norm below 1."""
    square = np.maximum(_dot(ray, ray), _TINY)
    linear = _dot(origin, ray)
    rest = _dot(origin, origin) - 1
    discriminant = linear * linear - square * rest
    inverse = 1 / square
    centre, half = -linear * inverse, np.sqrt(np.maximum(discriminant, 0)) * inverse
    # A line that misses gets an empty interval.
    half = np.where(discriminant < 0, np.float32(-1), half)
    return centre - half, centre + half


def _normals(parts: Sequence[Part], found: np.ndarray, points: Vector) -> Vector:
    normals = tuple(np.full(found.shape, value, np.float32) for value in (0, 0, 1))
    for index, part in enumerate(parts):
        (rays,) = np.nonzero(found == index)
        if not len(rays):
            continue
        inverse = _inverse(part.axes)
        matrix, offset = inverse.astype(np.float32), _apply(inverse, part.centre)
        here = [coordinate[rays] for coordinate in points]
        local = [_dot(here, matrix[i]) - np.float32(offset[i]) for i in range(3)]
        gradient = _gradient(part.kind, local)
        # A normal is mapped by the inverse transpose.
        world = [_dot(gradient, matrix[:, i]) for i in range(3)]
        length = np.sqrt(_dot(world, world))
        for normal, coordinate in zip(normals, world, strict=True):
            normal[rays] = coordinate / length
    x, y, z = normals
    return x, y, z


def _gradient(kind: Kind, local: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Outward direction at a point on a unit shape."""
    if kind == "ellipsoid":
        return local
    x, y, z = local
    if kind == "cylinder":
        cap = np.abs(z) >= np.sqrt(x * x + y * y)
        return np.where(cap, 0, x), np.where(cap, 0, y), np.where(cap, np.sign(z), 0)
    sizes = [np.abs(coordinate) for coordinate in local]
    largest = np.maximum(np.maximum(sizes[0], sizes[1]), sizes[2])
    return [np.where(s >= largest, np.sign(c), 0) for s, c in zip(sizes, local, strict=True)]


def _dot(one: Any, other: Any) -> Any:
    total = one[0] * other[0]
    for a, b in zip(one[1:], other[1:], strict=True):
        total = total + a * b
    return total


def _apply(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """A 3x3 matrix times a vector, added in a fixed order."""
    return _dot(matrix.T, vector)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Of a 3x3 matrix by cross products: a library's last bits may vary with the machine."""
    a, b, c = matrix.T
    rows = [_cross(b, c), _cross(c, a), _cross(a, b)]
    return np.stack(rows) / _dot(a, rows[0])


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    ahead, behind = [1, 2, 0], [2, 0, 1]
    return one[ahead] * other[behind] - one[behind] * other[ahead]
