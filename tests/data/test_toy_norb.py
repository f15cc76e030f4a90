"""The rendered viewpoint benchmark: its layout, its labels against its pixels, its bytes."""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

from capsjax.data import draws, render, scene, toy_norb, toys
from capsjax.data.dataset import check_arrays

EVERY = np.arange(toy_norb.SIZE)
SOME = np.random.default_rng(0).choice(toy_norb.SIZE, 12, replace=False)
VARIED = ("shift", "scale", "roll", "background", "contrast", "brightness")


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


@pytest.fixture(scope="module")
def known() -> Mapping[str, np.ndarray]:
    return toy_norb.labels(EVERY)


@pytest.fixture(scope="module")
def some() -> Mapping[str, np.ndarray]:
    return toy_norb.render(SOME)


# Layout


@pytest.mark.core
def test_the_layout_is_smallnorbs() -> None:
    assert toy_norb.SIZE == 48_600
    assert toy_norb.EXAMPLES_PER_TOY == 972
    assert list(toy_norb.AZIMUTHS) == list(range(0, 360, 20))
    assert toy_norb.ELEVATIONS == (30, 35, 40, 45, 50, 55, 60, 65, 70)
    assert sorted(toy_norb.TRAIN_INSTANCES + toy_norb.TEST_INSTANCES) == list(range(10))


def test_every_combination_of_factors_is_there_once(known: Mapping[str, np.ndarray]) -> None:
    rows = np.stack([known[name] for name in toy_norb.FACTORS], 1)
    assert len(np.unique(rows, axis=0)) == 48_600
    values = [np.unique(column).tolist() for column in rows.T]
    numbers = [list(range(count)) for count in (5, 10, 18, 9, 6)]
    numbers[2:4] = list(range(0, 360, 20)), list(range(30, 75, 5))
    assert values == numbers


def test_what_varies_fills_its_range_evenly(known: Mapping[str, np.ndarray]) -> None:
    for name in VARIED:
        low, high = getattr(toy_norb, name.upper())
        assert known[name].dtype == np.float32
        shares = (known[name] - low) / (high - low)
        assert shares.min() == pytest.approx(0, abs=1e-3)
        assert shares.max() == pytest.approx(1, abs=1e-3)
        counts, _ = np.histogram(shares, 10, (0, 1))
        np.testing.assert_allclose(counts / shares.size, 0.1, atol=0.02)


def test_lightings_share_a_view_and_each_has_its_own_print(known: Mapping[str, np.ndarray]) -> None:
    for name in VARIED:
        # A view's six lightings are neighbours.
        differ = np.ptp(known[name].reshape(-1, 6, known[name].size // 48_600), axis=1) > 0
        assert differ.all() if name in ("contrast", "brightness") else not differ.any()


@pytest.mark.core
def test_arrays_have_the_librarys_form(some: Mapping[str, np.ndarray]) -> None:
    assert some["image"].shape == (12, 48, 48, 2)
    assert check_arrays(some, where="toy_norb").keys() == {"image", "label"}
    assert some["shift"].shape == (12, 2)
    for name in (*toy_norb.FACTORS, *VARIED[1:]):
        assert some[name].shape == (12,)
        assert some[name].dtype == (np.float32 if name in VARIED else np.int32)
    assert (some["image"][..., 0] != some["image"][..., 1]).any((1, 2)).all()


# Bytes


@pytest.mark.core
def test_the_same_index_gives_the_same_bytes_however_it_is_asked(
    some: Mapping[str, np.ndarray],
) -> None:
    alone = [toy_norb.render(int(index)) for index in SOME]
    assert same(some, {name: np.concatenate([one[name] for one in alone]) for name in some})
    backwards = toy_norb.render(SOME[::-1])
    assert same(some, {name: values[::-1] for name, values in backwards.items()})


def test_factors_name_an_index_and_rendering_it_gives_the_bytes(
    some: Mapping[str, np.ndarray],
) -> None:
    steps = {"azimuth": (0, 20), "elevation": (30, 5)}
    factors = [
        (some[name] - first) // step
        for name in toy_norb.FACTORS
        for first, step in [steps.get(name, (0, 1))]
    ]
    assert same(some, toy_norb.render(np.ravel_multi_index(tuple(factors), toy_norb.SHAPE)))


def test_a_spawned_process_gives_the_same_bytes(some: Mapping[str, np.ndarray]) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert same(some, pool.submit(toy_norb.render, SOME).result())


def test_toys_come_in_order_whoever_is_done_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a few images of two toys."""
    monkeypatch.setattr(toy_norb, "SHAPE", (1, 10, 18, 9, 6))
    monkeypatch.setattr(toy_norb, "render_toy", _first_images)
    one = toy_norb.render_all(instances=(0, 1), processes=1)
    assert one["label"].shape == (24,)
    monkeypatch.setattr(toy_norb, "ProcessPoolExecutor", _Backwards)
    assert same(one, toy_norb.render_all(instances=(0, 1), processes=2))


def _first_images(category: int, instance: int, size: int, seed: int) -> dict[str, np.ndarray]:
    first = (category * 10 + instance) * 972
    return toy_norb.render(np.arange(first, first + 12), size, seed)


class _Backwards:
    """A pool whose last piece of work is done first."""

    def __init__(self, processes: int, mp_context: Any):
        assert processes == 2
        assert mp_context.get_start_method() == "spawn"

    def __enter__(self) -> "_Backwards":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def map(self, work: Any, items: list[Any]) -> list[Any]:
        return [work(item) for item in items[::-1]][::-1]


@pytest.mark.core
def test_the_pictures_of_seed_0_are_pinned() -> None:
    """Results on this data set would no longer compare if they changed; a cosine's last bit may."""
    images = toy_norb.render(np.arange(0, 48_600, 9_733))["image"]
    np.testing.assert_allclose(images.mean((1, 2, 3)), PINNED, atol=0.01)


PINNED = [118.2109, 150.0951, 151.7591, 135.7982, 192.6734]


def test_another_seed_gives_other_toys_and_other_poses(some: Mapping[str, np.ndarray]) -> None:
    other = toy_norb.render(SOME, seed=1)
    for name in toy_norb.FACTORS:
        assert np.array_equal(other[name], some[name])
    for name in ("image", *VARIED):
        assert (other[name] != some[name]).reshape(12, -1).any(1).all()
    one, two = (toys.toy(0, 0, seed)[0].axes for seed in (0, 1))
    assert not np.allclose(one, two)


def test_a_toys_examples_are_its_972_places_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_norb, "render", lambda index, size, seed: toy_norb.labels(index, seed))
    found = toy_norb.render_toy(3, 7, 48, 5)
    assert same(found, toy_norb.labels(37 * 972 + np.arange(972), 5))
    assert set(zip(found["label"], found["instance"], strict=True)) == {(3, 7)}


def test_96_pixels_show_the_same_as_48() -> None:
    small, large = (toy_norb.render(SOME[:3], size)["image"] for size in (48, 96))
    halved = large.reshape(3, 48, 2, 48, 2, 2).mean((2, 4))
    assert np.abs(halved - small).mean() < 2


def test_a_view_may_have_factors_that_no_example_has() -> None:
    known = toy_norb.labels(SOME[:1])
    (whole,) = toy_norb.render(SOME[:1])["image"]
    np.testing.assert_array_equal(toy_norb.render_view(known)[0], whole)
    (round_,) = toy_norb.render_view(known | {"azimuth": known["azimuth"] + 360})
    assert np.abs(round_.astype(int) - whole).mean() < 0.01
    (turned,) = toy_norb.render_view(known | {"azimuth": known["azimuth"] + 10})
    assert np.abs(turned.astype(int) - whole).mean() > 1


# Labels against pixels


def moments(picture: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Centre (right, down, as fractions), size and angle of a silhouette."""
    down, right = np.nonzero(picture)
    points = np.stack([right, down]) / len(picture)
    spread = np.cov(points)
    angle = 0.5 * np.arctan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1])
    return points.mean(1), float(np.linalg.det(spread) ** 0.25), float(np.degrees(angle))


@pytest.mark.parametrize("index", SOME[:6])
def test_shift_scale_and_roll_are_recovered_from_the_silhouette(index: int) -> None:
    known = toy_norb.labels(int(index))
    parts = scene.turned(toys.toy(int(known["label"][0]), int(known["instance"][0]), 0), 33)
    camera = scene.camera(45, 0.4)

    def silhouette(pose: scene.Pose) -> np.ndarray:
        part = render.trace(parts, camera, *render.screen(240, pose)).part
        return part.reshape(240, 240) != render.GROUND

    plain_centre, plain_size, plain_angle = moments(silhouette(scene.Pose()))
    shift, scale, roll = known["shift"][0], float(known["scale"][0]), float(known["roll"][0])
    centre, size, angle = moments(silhouette(scene.Pose(tuple(shift.tolist()), scale, roll)))
    assert size / plain_size == pytest.approx(scale, rel=0.02)
    turned = (angle - plain_angle + 90) % 180 - 90
    assert turned == pytest.approx(roll, abs=1.5)
    radians = np.radians(roll)
    turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    expected = 0.5 + scale * turn @ (plain_centre - 0.5) + shift
    np.testing.assert_allclose(centre, expected, atol=0.005)


def test_contrast_brightness_and_background_are_recovered_from_the_lit_ground() -> None:
    """The corner that no shadow reaches, and the image's spread."""
    index = np.arange(24 * 6)
    found = toy_norb.render(index)
    lamps = [toy_norb.LIGHTINGS[i] for i in found["lighting"]]
    lights = np.array([lamp.strength * lamp.direction[2] + lamp.ambient for lamp in lamps])
    ground = found["background"] * lights
    expected = 0.5 + found["brightness"] + found["contrast"] * (ground - 0.5)
    corners = found["image"][:, [0, 0, -1, -1], [0, -1, 0, -1], 0].max(1) / 255
    np.testing.assert_allclose(corners, np.clip(expected, 0, 1), atol=0.6 / 255)


def test_elevation_and_azimuth_are_those_of_the_camera(some: Mapping[str, np.ndarray]) -> None:
    """The image drawn again from nothing but its labels, by the renderer itself."""
    for row in range(4):
        label = {name: values[row].tolist() for name, values in some.items() if name != "image"}
        parts = toys.toy(label["label"], label["instance"], 0)
        height = max(float(part.centre[2] + scene.reach(part)[2]) for part in parts)
        (shade,) = render.draw(
            scene.turned(parts, label["azimuth"]),
            scene.camera(label["elevation"], height / 2, offset=toy_norb.EYES[1]),
            [toy_norb.LIGHTINGS[label["lighting"]]],
            size=48,
            pose=scene.Pose(tuple(label["shift"]), label["scale"], label["roll"]),
            ground=label["background"],
        )
        printed = 0.5 + label["brightness"] + label["contrast"] * (shade - 0.5)
        expected = 255 * np.clip(printed, 0, 1)
        assert np.abs(expected - some["image"][row, :, :, 1]).max() < 0.51


# Toys


@pytest.mark.parametrize("category", range(5), ids=toys.CATEGORIES)
def test_toys_stand_on_the_ground_within_a_unit_ball(category: int) -> None:
    for number in range(100):
        parts = toys.toy(category, *divmod(number, 10))
        assert 5 <= len(parts) <= toys.MOST_PARTS
        low = np.min([part.centre - scene.reach(part) for part in parts], 0)
        high = np.max([part.centre + scene.reach(part) for part in parts], 0)
        assert low[2] == pytest.approx(0, abs=1e-9)
        np.testing.assert_allclose((low + high)[:2], 0, atol=1e-9)
        assert np.linalg.norm(high - low) == pytest.approx(2)
        assert all(0 < part.albedo < 1.1 for part in parts)
        assert all(abs(np.linalg.det(part.axes)) > 1e-7 for part in parts)


def test_draws_are_pinned() -> None:
    """They come from PCG64's bits, so no version of NumPy may change them."""
    draw = draws.Draws(0, 1, 2)
    assert [round(draw(), 6) for _ in range(3)] == [0.881704, 0.289177, 0.871036]


def test_a_familys_numbers_stay_near_and_within_their_range() -> None:
    plain = draws.Draws(1)
    near = [draws.Relative((1,), (own,), 0.2) for own in (2, 3)]
    for _ in range(200):
        share, (one, two) = plain(), (draw() for draw in near)
        assert 0 <= one <= 1
        assert abs(one - share) <= 0.1
        assert one != two


def test_every_family_is_on_both_sides_of_the_split() -> None:
    for side in (toy_norb.TRAIN_INSTANCES, toy_norb.TEST_INSTANCES):
        assert sorted(toys.FAMILIES[instance] for instance in side) == [0, 1, 2, 3, 4]


# Misuse

BAD = {
    "index below 0": (lambda: toy_norb.labels(-1), "-1 to -1, expected 0 to 48599"),
    "index too large": (lambda: toy_norb.render(48_600), "48600, expected 0 to 48599"),
    "index of floats": (lambda: toy_norb.labels(np.zeros(2)), r"float64 \(2,\), expected an int"),
    "index of 2 axes": (lambda: toy_norb.labels(np.zeros((2, 2), int)), r"\(2, 2\)"),
    "size": (lambda: toy_norb.render(0, 32), "32, expected 48 or 96"),
    "seed": (lambda: toy_norb.labels(0, -1), "-1, expected an integer of at least 0"),
    "category": (lambda: toy_norb.render_toy(5, 0), "category 5 and instance 0, expected"),
    "instance": (lambda: toy_norb.render_toy(0, 10), "instance 10, expected"),
    "processes": (lambda: toy_norb.render_all(processes=0), "0, expected at least 1"),
}


@pytest.mark.core
@pytest.mark.parametrize("what", BAD)
def test_misuse_is_a_value_error_that_says_what_was_expected(what: str) -> None:
    call, said = BAD[what]
    with pytest.raises(ValueError, match=said):
        call()
