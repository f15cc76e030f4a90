"""Synthetic affNIST: its parameters are found again by registering images to their sources."""

import numpy as np
import pytest
from scipy import ndimage, optimize

from capsjax import data
from capsjax.data import affine_mnist, generated
from tests.conftest import bare_config

COUNT, VARIANTS = 100, 20
CONFIG = affine_mnist.Config()


@pytest.fixture(scope="module")
def base() -> dict[str, np.ndarray]:
    arrays = data.load("mnist", split="test")
    return {name: array[:COUNT] for name, array in arrays.items()}


@pytest.fixture(scope="module")
def many(base: dict) -> dict[str, np.ndarray]:
    n, k = np.repeat(np.arange(COUNT), VARIANTS), np.tile(np.arange(VARIANTS), COUNT)
    return generated.examples(affine_mnist.example, base, 0, n, k, CONFIG)


def transformed(image: np.ndarray, parameters: np.ndarray, *, margin: int = 6) -> np.ndarray:
    """A digit on a wider canvas, by SciPy in float64 and by the parameters' documented meaning."""
    rotation, shear, scale_y, scale_x, *shift = parameters
    angle = np.deg2rad(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(turn @ [[1, 0], [shear, 1]] @ np.diag([scale_y, scale_x]))
    canvas = np.pad(image[..., 0], margin).astype(float)
    middle = (len(canvas) - 1) / 2
    offset = middle - inverse @ (middle + np.array(shift))
    return ndimage.affine_transform(canvas, inverse, offset, order=1, prefilter=False)


@pytest.mark.core
def test_shapes_and_dtypes(base: dict, many: dict) -> None:
    assert {name: (array.shape[1:], array.dtype) for name, array in many.items()} == {
        "image": ((40, 40, 1), np.uint8),
        "label": ((), np.int32),
        "parameters": ((6,), np.float32),
    }
    assert np.array_equal(many["label"], np.repeat(base["label"], VARIANTS))


@pytest.mark.core
def test_images_are_what_their_parameters_say(base: dict, many: dict) -> None:
    for p in range(0, COUNT * VARIANTS, 7):
        expected = transformed(base["image"][p // VARIANTS], many["parameters"][p].astype(float))
        # Half a grey level of rounding, and the float32 of positions.
        np.testing.assert_allclose(many["image"][p, ..., 0], expected, atol=0.51)


@pytest.mark.parametrize("p", [3, 106, 411, 1202, 1817])
def test_registration_to_the_source_gives_the_parameters_back(
    base: dict, many: dict, p: int
) -> None:
    source, target = base["image"][p // VARIANTS], many["image"][p, ..., 0].astype(float)

    def difference(parameters: np.ndarray, blur: float) -> np.ndarray:
        found = transformed(source, parameters)
        return ndimage.gaussian_filter(found - target, blur).ravel()

    # From no knowledge but where the ink lies, first blurred so that it is found from afar.
    centres = [ndimage.center_of_mass(i) for i in (target, np.pad(source[..., 0], 6))]
    guess = np.array([0.0, 0, 1, 1, *np.subtract(*centres)])
    for blur in (3.0, 1.0, 0.0):
        guess = optimize.least_squares(
            difference, guess, x_scale=[10, 0.1, 0.1, 0.1, 1, 1], diff_step=1e-4, args=(blur,)
        ).x
    np.testing.assert_allclose(guess, many["parameters"][p], atol=0.02)


@pytest.mark.core
def test_digits_stay_whole_and_reach_the_frame(base: dict, many: dict) -> None:
    scale = many["parameters"][:, 2] * many["parameters"][:, 3]
    source_ink = np.repeat(base["image"].sum(axis=(1, 2, 3)), VARIANTS)
    ink = many["image"].sum(axis=(1, 2, 3))
    # Area grows with both scales; interpolation and rounding move it by some per cent.
    np.testing.assert_allclose(ink / (scale * source_ink), 1, atol=0.05)
    image = many["image"][..., 0] > 0
    edges = (image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1])
    assert all(edge.any() for edge in edges)


def test_no_ink_would_lie_outside_of_the_frame(base: dict, many: dict) -> None:
    for p in range(0, COUNT * VARIANTS, 5):
        wide = transformed(base["image"][p // VARIANTS], many["parameters"][p], margin=16)
        wide[10:-10, 10:-10] = 0
        assert wide.max() < 0.01


def test_parameters_are_uniform_within_their_ranges(many: dict) -> None:
    ranges = [(-20, 20), (-0.2, 0.2), (0.8, 1.2), (0.8, 1.2)]
    for values, (low, high) in zip(many["parameters"].T, ranges, strict=False):
        counts, _ = np.histogram(values, 10, (low, high))
        assert counts.sum() == COUNT * VARIANTS
        # Chi squared of 9 degrees of freedom: 27.9 is exceeded once in a thousand.
        assert np.sum((counts - 200) ** 2 / 200) < 27.9


@pytest.fixture(scope="module")
def enlarged(base: dict) -> dict[str, np.ndarray]:
    """A digit, 2,000 times, and a white square that outgrows the frame, larger by half."""
    image = np.stack([base["image"][0], np.full((28, 28, 1), 255, np.uint8)])
    config = affine_mnist.Config(rotation=0.0, shear=0.0, scale=(1.5, 1.5))
    n, k = np.repeat([0, 1], [2000, 5]), np.arange(2005)
    pair = {"image": image, "label": base["label"][:2]}
    return generated.examples(affine_mnist.example, pair, 0, n, k, config)


def test_shifts_are_uniform_and_reach_both_ends_of_their_room(base: dict, enlarged: dict) -> None:
    ink = base["image"][0, ..., 0] > 0
    for axis, shifts in enumerate(enlarged["parameters"][:2000, 4:].T):
        where = np.flatnonzero(ink.any(axis=1 - axis)) - 13.5
        # The outermost ink fades within one of the source's pixels, and may then touch the frame.
        low, high = -20.5 - 1.5 * (where[0] - 1), 20.5 - 1.5 * (where[-1] + 1)
        assert low <= shifts.min() < low + 0.1
        assert high - 0.1 < shifts.max() <= high
        counts, _ = np.histogram(shifts, 10, (low, high))
        # Chi squared of 9 degrees of freedom: 27.9 is exceeded once in a thousand.
        assert np.sum((counts - 200) ** 2 / 200) < 27.9


def test_what_is_larger_than_the_frame_lies_in_its_middle(enlarged: dict) -> None:
    np.testing.assert_allclose(enlarged["parameters"][2000:, 4:], 0, atol=1e-5)
    assert np.all(enlarged["image"][2000:] == 255)


@pytest.mark.core
def test_an_image_follows_from_its_numbers_alone(base: dict, many: dict) -> None:
    n, k = np.array([99, 7, 0, 7]), np.array([19, 3, 0, 4])
    found = generated.examples(affine_mnist.example, base, 0, n, k, CONFIG)
    for name, array in found.items():
        assert np.array_equal(array, many[name][n * VARIANTS + k])
    other = generated.examples(affine_mnist.example, base, 1, n, k, CONFIG)
    assert not np.array_equal(other["image"], found["image"])


def test_it_says_that_it_is_synthetic() -> None:
    assert "synthetic" in affine_mnist.SOURCE
    assert "not affNIST" in affine_mnist.SOURCE


@pytest.mark.parametrize(
    "options",
    [{"rotation": -1}, {"shear": -0.1}, {"pad": -1}, {"scale": (1.2, 0.8)}, {"scale": (0, 1)}],
)
def test_ranges_out_of_order_are_refused(options: dict) -> None:
    values = {"rotation": 20, "shear": 0.2, "scale": (0.8, 1.2), "pad": 6}
    with pytest.raises(ValueError, match="expected"):
        bare_config(affine_mnist.Config, **{**values, **options})
