"""The ray tracer against what geometry and optics say by hand."""

import math

import numpy as np
import pytest

from capsjax.data import render, scene
from capsjax.data.render import GROUND

AROUND = scene.lamp(0, 90, 0.0, 1.0)
EYE = scene.camera(40, 0.5)
BALL = scene.block("ellipsoid", (0, 0, 0.5), (0.5, 0.5, 0.5))._replace(albedo=1.0)


def trace(part: scene.Part, eye: scene.Camera = EYE, size: int = 101) -> render.Hits:
    return render.trace([part], eye, *render.screen(size))


def middle(values: np.ndarray) -> float:
    return float(values[len(values) // 2])


def towards(eye: scene.Camera) -> np.ndarray:
    """The unit vector from the target to the eye."""
    return (eye.eye - eye.target) / 7


@pytest.mark.core
def test_the_screen_runs_right_and_up_from_its_centre() -> None:
    across, up = (values.reshape(4, 4) for values in render.screen(4))
    np.testing.assert_allclose(across, np.tile([-0.75, -0.25, 0.25, 0.75], (4, 1)))
    np.testing.assert_allclose(up, across[:, ::-1].T)


@pytest.mark.core
def test_a_pose_scales_turns_and_shifts_in_that_order() -> None:
    """The picture's point (0.5, 0) at twice the size, a quarter turn on, a quarter image on."""
    across, up = render.screen(200, scene.Pose(shift=(0.25, 0.1), scale=0.5, roll=90))
    nearest = np.argmin((across - 0.5) ** 2 + up**2)
    row, column = np.divmod(nearest, 200)
    # 0.25 to the right, turned clockwise to 0.25 down; half an image is 1.
    assert (column, row) == pytest.approx((150, 100 + 20 + 25), abs=1)


# Geometry


@pytest.mark.parametrize("elevation", [30, 55, 70])
def test_a_balls_outline_is_the_tangent_cone(elevation: float) -> None:
    eye = scene.camera(elevation, 0.5)
    seen = trace(BALL, eye, 301).part.reshape(301, 301) == 0
    # The cone's half angle has the sine 0.5 / 7, and the image 2.5 units at a distance of 7.
    radius = 7 * math.tan(math.asin(0.5 / 7)) / 2.5 * 301
    assert seen.sum() == pytest.approx(math.pi * radius**2, rel=0.01)
    rows, columns = np.nonzero(seen)
    assert (rows.mean(), columns.mean()) == pytest.approx((150, 150), abs=0.2)
    assert np.ptp(rows) + 1 == pytest.approx(2 * radius, abs=1.5)


@pytest.mark.core
def test_a_balls_depth_and_normal_at_its_middle() -> None:
    hits = trace(BALL)
    # The ray's length is 1 at the focused plane, 7 units away, on which the ball's centre lies.
    assert middle(hits.distance) == pytest.approx(6.5 / 7, abs=1e-5)
    np.testing.assert_allclose([middle(n) for n in hits.normals], towards(EYE), atol=1e-4)


def test_every_point_of_a_stretched_ball_satisfies_its_equation() -> None:
    axes = np.array([[0.6, 0.1, 0.0], [0.0, 0.3, 0.2], [-0.1, 0.0, 0.4]])
    part = scene.Part("ellipsoid", np.array([0.1, -0.1, 0.6]), axes, 1.0)
    hits = trace(part)
    on = hits.part == 0
    local = np.linalg.solve(axes, np.stack(hits.points)[:, on] - part.centre[:, None])
    assert on.sum() > 500
    np.testing.assert_allclose((local**2).sum(0), 1, atol=1e-3)
    # The gradient of |A^-1 x|^2 is along A^-T A^-1 x.
    gradient = np.linalg.solve(axes.T, local)
    gradient /= np.linalg.norm(gradient, axis=0)
    np.testing.assert_allclose(np.stack(hits.normals)[:, on], gradient, atol=1e-3)


def test_a_boxs_faces_have_their_places_and_normals() -> None:
    part = scene.block("box", (0, 0, 0.5), (0.3, 0.4, 0.5))
    hits = trace(part)
    on = hits.part == 0
    points, normals = np.stack(hits.points)[:, on], np.stack(hits.normals)[:, on]
    # From in front and above, only the front and the top are seen.
    front, top = normals[0] == 1, normals[2] == 1
    assert front.any()
    assert top.any()
    assert (front | top).all()
    np.testing.assert_allclose(points[0, front], 0.3, atol=1e-5)
    np.testing.assert_allclose(points[2, top], 1.0, atol=1e-5)
    assert np.abs(points[1]).max() <= 0.4 + 1e-5


def test_a_cylinders_cap_and_side_have_their_places_and_normals() -> None:
    part = scene.rod("cylinder", (0, 0, 0), (0, 0, 0.8), 0.4)
    hits = trace(part)
    on = hits.part == 0
    points, normals = np.stack(hits.points)[:, on], np.stack(hits.normals)[:, on]
    cap = normals[2] == 1
    np.testing.assert_allclose(points[2, cap], 0.8, atol=1e-5)
    np.testing.assert_allclose(np.hypot(*points[:2, ~cap]), 0.4, atol=1e-4)
    np.testing.assert_allclose(normals[:2, ~cap] * 0.4, points[:2, ~cap], atol=1e-4)
    assert cap.any()
    assert not cap.all()


def test_the_nearer_part_hides_the_farther() -> None:
    behind = scene.block("box", (-0.6, 0, 0.5), (0.1, 0.6, 0.6))
    for parts, first in (([BALL, behind], 0), ([behind, BALL], 1)):
        hits = render.trace(parts, EYE, *render.screen(51))
        assert middle(hits.part) == first
        assert set(hits.part) == {GROUND, 0, 1}


@pytest.mark.core
def test_the_ground_is_met_where_the_ray_reaches_height_zero() -> None:
    hits = render.trace([], EYE, *render.screen(51))
    assert (hits.part == GROUND).all()
    np.testing.assert_allclose(hits.points[2], 0, atol=1e-5)
    # The middle ray goes through (0, 0, 0.5), 40 degrees down.
    expected = [-0.5 / math.tan(math.radians(40)), 0]
    np.testing.assert_allclose([middle(p) for p in hits.points[:2]], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["ellipsoid", "box", "cylinder"])
def test_nothing_of_a_part_lies_beyond_its_reach(kind: scene.Kind) -> None:
    axes = np.array([[0.3, 0.1, 0.0], [0.0, 0.2, 0.2], [-0.1, 0.0, 0.3]])
    part = scene.Part(kind, np.array([0.0, 0.1, 0.6]), axes, 1.0)
    points = []
    for azimuth in range(0, 360, 30):
        for elevation in (20, 60):
            hits = trace(scene.turned([part], azimuth)[0], scene.camera(elevation, 0.6))
            on = hits.part == 0
            angle = math.radians(azimuth)
            x, y, z = np.stack(hits.points)[:, on]
            back = (x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle))
            points.append(np.stack([back[0], back[1] - x * math.sin(angle), z]))
    offsets = np.abs(np.concatenate(points, 1) - part.centre[:, None]).max(1)
    assert (offsets <= scene.reach(part) + 1e-4).all()
    assert (offsets[:2] >= 0.95 * scene.reach(part)[:2]).all()


# Light


@pytest.mark.parametrize("elevation", [20, 50, 90])
def test_lamberts_cosine_on_the_ground_and_on_a_ball(elevation: float) -> None:
    lamp = scene.lamp(30, elevation, 0.7, 0.0)
    empty = render.draw([], EYE, [lamp], size=4, ground=0.5)
    np.testing.assert_allclose(empty, 0.35 * math.sin(math.radians(elevation)), rtol=1e-5)
    image = render.draw([BALL], EYE, [lamp], size=101, samples=1)
    cosine = max(0.0, float(towards(EYE) @ lamp.direction))
    assert image[0, 50, 50] == pytest.approx(0.7 * cosine, abs=1e-3)


def test_light_from_around_falls_to_half_on_what_faces_down() -> None:
    hits = trace(BALL)
    (light,) = render.illuminate([BALL], hits, [AROUND])
    np.testing.assert_allclose(light, 0.75 + 0.25 * hits.normals[2], rtol=1e-6)
    assert light[hits.part == GROUND] == pytest.approx(1)


@pytest.mark.parametrize("azimuth", [-120, 0, 75])
def test_a_balls_shadow_is_the_ellipse_that_its_lamp_casts(azimuth: float) -> None:
    lamp = scene.lamp(azimuth, 50, 1.0, 0.2)
    hits = trace(BALL, size=151)
    (shadow,) = render.shadowed([BALL], hits, [lamp])
    ground = hits.part == GROUND
    points = np.stack(hits.points)[:, ground]
    # In it are the points whose distance from the line through the centre is below the radius.
    offset = points - BALL.centre[:, None]
    along = lamp.direction @ offset
    distance = np.sqrt((offset**2).sum(0) - along**2)
    # Shadows are looked for a little above the ground.
    clear = np.abs(distance - 0.5) > 3e-3
    assert np.array_equal(shadow[ground][clear], (distance < 0.5)[clear])
    assert shadow[ground].any()


@pytest.mark.parametrize("kind", ["ellipsoid", "box", "cylinder"])
def test_a_lit_part_does_not_shade_itself(kind: scene.Kind) -> None:
    part = scene.block(kind, (0, 0, 0.5), (0.4, 0.3, 0.5))
    lamp = scene.lamp(20, 50, 1.0, 0.0)
    hits = trace(part)
    (shadow,) = render.shadowed([part], hits, [lamp])
    faces = sum(n * d for n, d in zip(hits.normals, lamp.direction, strict=True))
    on = hits.part == 0
    assert not shadow[on & (faces > 0.05)].any()
    assert shadow[on & (faces < -0.2)].all()


@pytest.mark.core
def test_lamps_are_lit_one_at_a_time() -> None:
    lamps = [scene.lamp(angle, 40, 0.8, 0.3) for angle in (0, 90)]
    both = render.draw([BALL], EYE, lamps, size=24)
    alone = [render.draw([BALL], EYE, [lamp], size=24)[0] for lamp in lamps]
    assert both.dtype == np.float32
    assert np.array_equal(both, np.stack(alone))
    assert not np.array_equal(*alone)


def test_a_pixel_is_the_mean_of_its_samples() -> None:
    fine = render.draw([BALL], EYE, [AROUND], size=48, samples=1)[0]
    coarse = render.draw([BALL], EYE, [AROUND], size=24, samples=2)[0]
    np.testing.assert_allclose(coarse, fine.reshape(24, 2, 24, 2).mean((1, 3)), rtol=1e-6)


def test_eyes_agree_on_the_focused_plane_and_differ_before_it() -> None:
    """A small ball moves between the eyes by its place before or behind the target."""

    def column(ball: scene.Part, offset: float) -> float:
        hits = trace(ball, scene.camera(0, 0.5, offset=offset), 201)
        return float((np.nonzero(hits.part == 0)[0] % 201).mean())

    for x, sign in ((0.0, 0), (1.0, 1), (-1.0, -1)):
        ball = scene.block("ellipsoid", (x, 0, 0.5), (0.2, 0.2, 0.2))
        apart = column(ball, -0.3) - column(ball, 0.3)
        # By similar triangles: the eyes' 0.6 times x over the ball's distance 7 - x.
        assert apart == pytest.approx(0.6 * x / (7 - x) / 2.5 * 201, abs=0.7)
        assert np.sign(round(apart)) == sign
