"""Toys of five kinds, each one drawn at random within its kind: builds, postures, paint.

Each kind has five families of two toys that resemble each other, as models of a maker do.

x points forward, y to the left, z up. A toy is built in units of its own and then brought onto the
ground, above the origin, into a ball of radius 1.
"""

import math
from collections.abc import Callable

import numpy as np

from capsjax.data.draws import Draws, Relative
from capsjax.data.scene import Kind, Part, block, reach, rod

CATEGORIES = ("animal", "human", "airplane", "truck", "car")
MOST_PARTS = 16
# Which family of its category each instance is from. All five are on both sides of smallNORB's
# split (4, 6, 7, 8, 9 against 0, 1, 2, 3, 5), or else chance would decide how hard a seed is.
FAMILIES = (0, 1, 2, 3, 0, 4, 1, 2, 3, 4)
# By how much of its whole range a number may vary within a family.
VARIETY = 0.35
_SIDES = (-1, 1)


def toy(category: int, instance: int, seed: int) -> tuple[Part, ...]:
    """Build one toy.

    Args:
        category: index into ``CATEGORIES``.
        instance: which toy of the category.
        seed: another one gives other toys.

    Returns:
        At most ``MOST_PARTS`` parts within a ball of radius 1, the lowest at z = 0, those that
        reach farthest along x and along y as far on one side of the z axis as on the other.
    """
    family = (seed, 3, category, FAMILIES[instance])
    draws = Relative(family, (seed, 0, category, instance), VARIETY)
    parts = _BUILDERS[category](draws)
    base = draws(0.3, 0.9)
    # Each part in a shade of its own, near to the toy's; tyres are darker.
    parts = [part._replace(albedo=part.albedo * base * draws(0.75, 1.15)) for part in parts]
    return _placed(parts)


def _placed(parts: list[Part]) -> tuple[Part, ...]:
    low = np.min([part.centre - reach(part) for part in parts], 0)
    high = np.max([part.centre + reach(part) for part in parts], 0)
    origin = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    scale = 2 / math.dist(low, high)
    return tuple(
        part._replace(centre=(part.centre - origin) * scale, axes=part.axes * scale)
        for part in parts
    )


def _wheel(x: float, y: float, radius: float, width: float) -> Part:
    tyre = rod("cylinder", (x, y - width, radius), (x, y + width, radius), radius)
    return tyre._replace(albedo=0.4)


def _animal(draws: Draws) -> list[Part]:
    long, thick, leg = draws(0.55, 0.95), draws(0.2, 0.38), draws(0.45, 0.9)
    limb: Kind = draws.choose("ellipsoid", "cylinder", "box")
    radius, stride = draws(0.07, 0.14), draws(-0.25, 0.25)
    middle = leg + 0.7 * thick
    body: Kind = draws.choose("ellipsoid", "cylinder")
    if body == "cylinder":
        parts = [rod("cylinder", (-0.8 * long, 0, middle), (0.8 * long, 0, middle), thick)]
    else:
        parts = [block(body, (0, 0, middle), (long, thick, thick))]
    for x, pace in ((0.65 * long, stride), (-0.65 * long, -stride)):
        for side in _SIDES:
            y = 0.6 * thick * side
            foot = (x + pace * side, y * draws(0.9, 1.3), 0)
            parts.append(rod(limb, (x, y, middle), foot, radius))
    angle, neck = math.radians(draws(15, 80)), draws(0.3, 0.8)
    start = (0.75 * long, 0, middle + 0.3 * thick)
    poll = (start[0] + neck * math.cos(angle), 0, start[2] + neck * math.sin(angle))
    parts.append(rod(limb, start, poll, radius * draws(1.0, 1.8)))
    size, tilt = draws(0.14, 0.28), draws(-50, 15)
    shape: Kind = draws.choose("ellipsoid", "box")
    parts.append(block(shape, poll, (1.2 * size, 0.8 * size, 0.8 * size), tilt=tilt))
    nose = size * draws(1.0, 2.2)
    drop = math.radians(tilt)
    muzzle = (poll[0] + nose * math.cos(drop), 0, poll[2] + nose * math.sin(drop))
    parts.append(rod("ellipsoid", poll, muzzle, 0.5 * size))
    ear, spread = draws(0.1, 0.5), draws(0.2, 1.2)
    for side in _SIDES:
        top = (poll[0] - 0.3 * ear, side * (0.6 * size + spread * ear), poll[2] + size + 0.6 * ear)
        parts.append(rod("ellipsoid", (poll[0], side * 0.5 * size, poll[2]), top, 0.3 * size))
    tail, raised = draws(0.15, 0.8), math.radians(draws(-75, 60))
    rump = (-0.85 * long, 0, middle + 0.3 * thick)
    tip = (rump[0] - tail * math.cos(raised), 0, max(0, rump[2] + tail * math.sin(raised)))
    parts.append(rod(limb, rump, tip, draws(0.03, 0.12)))
    if draws.chance(0.35):
        parts.append(block("ellipsoid", (draws(-0.3, 0.4) * long, 0, middle + thick), (0.3,) * 3))
    return parts


def _human(draws: Draws) -> list[Part]:
    leg, torso, wide = draws(0.65, 1.0), draws(0.5, 0.8), draws(0.2, 0.36)
    limb: Kind = draws.choose("ellipsoid", "cylinder", "box")
    radius = draws(0.07, 0.13)
    hip, shoulder = leg, leg + torso
    trunk: Kind = draws.choose("ellipsoid", "box", "cylinder")
    deep = draws(0.13, 0.24)
    slim = 0.55 if trunk == "ellipsoid" else 0.5
    parts = [block(trunk, (0, 0, hip + 0.5 * torso), (deep, wide, slim * torso))]
    stride, spread = draws(-0.35, 0.35), draws(0.0, 0.3)
    for side in _SIDES:
        knee = (0.6 * stride * side + 0.08, side * (0.5 * wide + 0.5 * spread), 0.5 * leg)
        foot = (stride * side, side * (0.5 * wide + spread), 0.06)
        parts.append(rod(limb, (0, side * 0.5 * wide, hip + 0.05), knee, radius * 1.15))
        parts.append(rod(limb, knee, foot, radius))
        parts.append(block("box", (foot[0] + 0.07, foot[1], 0.05), (0.15, 0.07, 0.05)))
    for side in _SIDES:
        lift, swing, bend = (math.radians(draws(*span)) for span in ((-85, 50), (-50, 60), (0, 80)))
        half = 0.5 * torso
        start = (0, side * (wide + 0.5 * radius), shoulder - 0.08)
        out = math.cos(lift)
        elbow = (
            start[0] + half * out * math.sin(swing),
            start[1] + side * half * out * math.cos(swing),
            start[2] + half * math.sin(lift),
        )
        forward = math.sin(swing + bend)
        hand = (
            elbow[0] + half * max(0.2, forward),
            elbow[1] + side * half * out * math.cos(swing + bend),
            elbow[2] + half * math.sin(lift + bend),
        )
        parts.append(rod(limb, start, elbow, radius))
        parts.append(rod(limb, elbow, hand, 0.8 * radius))
    head = draws(0.14, 0.26)
    top = shoulder + 0.9 * head
    shape: Kind = draws.choose("ellipsoid", "ellipsoid", "box")
    parts.append(block(shape, (0.03, 0, top), (head, 0.85 * head, head)))
    if draws.chance(0.5):
        brim = head * draws(0.8, 1.7)
        parts.append(block("cylinder", (0.03, 0, top + 0.8 * head), (brim, brim, 0.3 * head)))
    if draws.chance(0.4):
        parts.append(block("box", (-deep - 0.1, 0, shoulder - 0.3), (0.12, 0.18, 0.22)))
    if draws.chance(0.4):
        # Shoes may sink into it, as those of tin soldiers do.
        parts.append(block("cylinder", (0, 0, 0.03), (0.45, 0.5, 0.03)))
    return parts


def _airplane(draws: Draws) -> list[Part]:
    radius, raised = draws(0.09, 0.2), draws(0.1, 0.35)
    z = radius + raised
    body: Kind = draws.choose("ellipsoid", "cylinder")
    if body == "ellipsoid":
        parts = [block("ellipsoid", (0, 0, z), (1.05, radius * 1.2, radius * 1.2))]
    else:
        parts = [rod("cylinder", (-0.75, 0, z), (0.7, 0, z), radius)]
        parts.append(block("ellipsoid", (0.7, 0, z), (draws(0.2, 0.4), radius, radius)))
        parts.append(block("ellipsoid", (-0.75, 0, z), (0.35, radius, radius)))
    parts.append(block("ellipsoid", (draws(0.2, 0.6), 0, z + radius), (0.25, 0.5 * radius, 0.09)))
    span, chord, sweep = draws(0.6, 1.2), draws(0.12, 0.32), draws(-0.1, 0.6)
    wing = draws(-0.15, 0.3)
    level, dihedral = draws(-0.8, 0.9) * radius, draws(-0.05, 0.15) * span
    biplane = draws.chance(0.25)
    heights = (z - radius, z + 1.6 * radius) if biplane else (z + level,)
    for height in heights:
        for side in _SIDES:
            parts.append(_fin(wing, height, chord, (-sweep, side * span, dihedral), 0.03))
    tail, breadth = draws(0.2, 0.42), draws(0.08, 0.16)
    high = draws.chance(0.5)
    rise = draws(0.25, 0.5)
    for side in _SIDES:
        height = z + (rise if high else 0.05)
        parts.append(_fin(-0.85, height, breadth, (-0.3 * sweep - 0.05, side * tail, 0), 0.025))
    parts.append(_upright(-0.8, z, breadth * 1.3, (-0.2, 0, rise)))
    engines = 0 if biplane else int(draws(0, 3))
    for number in range(engines):
        out = span * (0.35 + 0.3 * number)
        x = wing - sweep * out / span + 0.5 * chord
        for side in _SIDES:
            drop = z + level + dihedral * out / span - 0.06
            pod = ((x - 0.15, side * out, drop), (x + 0.22, side * out, drop))
            parts.append(rod("cylinder", *pod, 0.07))
    if len(parts) < MOST_PARTS - 3 and draws.chance(0.6):
        for x, y in ((0.55, 0.0), (-0.1, 0.2), (-0.1, -0.2)):
            parts.append(rod("cylinder", (x, y, z), (x, 1.2 * y, 0), 0.035))
    return parts


def _fin(x: float, z: float, chord: float, tip: tuple, thin: float) -> Part:
    """A flat box from the fuselage at ``x`` to ``tip`` beyond it, slanted along its length."""
    half = np.array(tip, float) / 2
    axes = np.stack([[chord, 0, 0], half, [0, 0, thin]], 1)
    return Part("box", np.array([x, 0, z]) + half, axes, 1.0)


def _upright(x: float, z: float, chord: float, tip: tuple) -> Part:
    """A fin that stands on the fuselage."""
    half = np.array(tip, float) / 2
    axes = np.stack([[chord, 0, 0], [0, 0.025, 0], half], 1)
    return Part("box", np.array([x, 0, z]) + half, axes, 1.0)


def _truck(draws: Draws) -> list[Part]:
    wheel, wide = draws(0.14, 0.22), draws(0.26, 0.36)
    deck = wheel * draws(1.2, 1.8)
    load, cab, high = draws(0.65, 1.0), draws(0.16, 0.26), draws(0.3, 0.45)
    gap = draws(0.05, 0.15)
    front = load + 2 * gap
    parts = [block("box", (0.5 * cab, 0, deck), (load + cab + gap, 0.7 * wide, 0.06))]
    lean = draws(-0.12, 0.02)
    parts.append(block("box", (front + cab, 0, deck + high), (cab, wide, high), lean=lean))
    bonnet = draws(0.1, 0.2) if draws.chance(0.35) else 0.0
    if bonnet:
        nose = front + 2 * cab + bonnet
        parts.append(block("box", (nose, 0, deck + 0.4 * high), (bonnet, 0.8 * wide, 0.4 * high)))
    tall = draws(0.8, 1.5) * high
    cargo = int(draws(0, 5))
    if cargo == 0:
        parts.append(block("box", (0, 0, deck + tall), (load, 1.05 * wide, tall)))
    elif cargo == 1:
        tank = 0.9 * wide
        parts.append(rod("cylinder", (-load, 0, deck + tank), (load, 0, deck + tank), tank))
        parts.append(block("cylinder", (0, 0, deck + 2 * tank), (0.1, 0.1, 0.08)))
    elif cargo == 2:
        for side in _SIDES:
            parts.append(block("box", (0, side * wide, deck + 0.15), (load, 0.03, 0.12)))
        parts.append(block("box", (0.97 * load, 0, deck + 0.25), (0.03, wide, 0.25)))
        if draws.chance(0.5):
            parts.append(rod("cylinder", (-load, 0, deck + 0.2), (load, 0, deck + 0.2), 0.15))
    elif cargo == 3:
        up = draws(-20, 0)
        box = block("box", (0, 0, deck + 0.45 * high), (load, wide, 0.4 * high), tilt=up, lean=-0.1)
        parts.append(box)
    else:
        parts.append(rod("ellipsoid", (-load, 0, deck + 0.7), (load, 0, deck + 0.3), 0.8 * wide))
        parts.append(block("box", (0.9 * load, 0, deck + 0.2), (0.06, 0.8 * wide, 0.2)))
    axles = [-0.75 * load, front + cab]
    axles += [-0.75 * load + 2.2 * wheel] if draws.chance(0.65) else []
    for x in axles:
        parts.extend(_wheel(x, side * (0.9 * wide), wheel, 0.07) for side in _SIDES)
    if draws.chance(0.4):
        top = deck + 2 * high + draws(0.1, 0.35)
        pipe = (front - 0.5 * gap, 0.6 * wide)
        parts.append(rod("cylinder", (*pipe, deck), (*pipe, top), 0.04))
    return parts


def _car(draws: Draws) -> list[Part]:
    wheel, wide = draws(0.16, 0.24), draws(0.38, 0.48)
    low, tall, roof = draws(0.08, 0.16), draws(0.13, 0.24), draws(0.13, 0.26)
    middle = low + tall
    shape: Kind = draws.choose("box", "box", "ellipsoid")
    if shape == "box":
        parts = [block("box", (0, 0, middle), (0.95, wide, tall), lean=draws(-0.06, 0.06))]
    else:
        parts = [block("ellipsoid", (0, 0, middle), (1.08, wide * 1.1, tall * 1.4))]
    top, back = middle + tall, draws(-0.4, 0.0)
    cabin: Kind = draws.choose("box", "ellipsoid", "cylinder")
    long = draws(0.3, 0.55)
    if cabin == "box":
        lean = draws(-0.2, 0.02)
        parts.append(block("box", (back, 0, top + roof), (long, 0.85 * wide, roof), lean=lean))
    elif cabin == "ellipsoid":
        parts.append(block("ellipsoid", (back, 0, top), (long * 1.3, 0.9 * wide, 1.9 * roof)))
    else:
        across = ((back, -0.85 * wide, top), (back, 0.85 * wide, top))
        barrel = rod("cylinder", *across, 1.0)
        # Squashed: as long as the cabin, as high as the roof.
        axes = barrel.axes * np.array([[1.2 * long], [1.0], [1.7 * roof]])
        parts.append(barrel._replace(axes=axes))
    if draws.chance(0.5):
        parts.append(block("ellipsoid", (0.65, 0, top - 0.04), (0.4, 0.8 * wide, 0.1)))
    if draws.chance(0.35):
        height = top + draws(0.08, 0.2)
        parts.append(block("box", (-0.88, 0, height), (0.12, 0.95 * wide, 0.025)))
        for side in _SIDES:
            fix = side * 0.7 * wide
            parts.append(rod("box", (-0.88, fix, middle), (-0.88, fix, height), 0.03))
    if draws.chance(0.6):
        for x in (-1.0, 1.0):
            parts.append(block("box", (x, 0, low + 0.08), (0.06, wide, 0.05)))
    base = draws(0.5, 0.68)
    for x in (-base, base):
        parts.extend(_wheel(x, side * wide, wheel, 0.08) for side in _SIDES)
    return parts


_BUILDERS: tuple[Callable[[Draws], list[Part]], ...] = (_animal, _human, _airplane, _truck, _car)
