"""Affine transformations, against SciPy's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from capsjax.data import warp
from tests.conftest import Precision, bare

PARAMETERS = {
    "identity": (0.0, 0.0, 1.0, 1.0, 0.0, 0.0),
    "shift": (0.0, 0.0, 1.0, 1.0, 1.25, -2.5),
    "rotation": (17.0, 0.0, 1.0, 1.0, 0.0, 0.0),
    "shear": (0.0, 0.3, 1.0, 1.0, 0.1, 0.1),
    "scale": (0.0, 0.0, 1.3, 0.7, 0.0, 0.0),
    "all": (-33.0, -0.2, 0.8, 1.2, 2.1, 0.3),
}


def forward(rotation: float, shear: float, scale_y: float, scale_x: float) -> np.ndarray:
    """Rotation after shear after scale, on (y, x) columns, multiplied out by NumPy."""
    angle = np.deg2rad(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn @ np.array([[1, 0], [shear, 1]]) @ np.diag([scale_y, scale_x])


def scipy_affine(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, int] | None = None
) -> np.ndarray:
    """The same warp, about the centres, channel by channel in float64."""
    size = size or image.shape[:2]
    middle, new_middle = (np.array(image.shape[:2]) - 1) / 2, (np.array(size) - 1) / 2
    offset = middle + matrix[:, 2] - matrix[:, :2] @ new_middle
    options = {"order": 1, "mode": "constant", "prefilter": False, "output_shape": size}
    channels = [
        ndimage.affine_transform(channel, matrix[:, :2], offset, **options)
        for channel in np.moveaxis(image.astype(float), -1, 0)
    ]
    return np.stack(channels, -1)


def off_the_edge(
    shape: tuple[int, ...], matrix: np.ndarray, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Where rounding does not decide what is within the image: bool [*size, 1]."""
    size, middle = size or shape[:2], (np.array(shape[:2]) - 1) / 2
    points = np.indices(size).reshape(2, -1) - (np.array(size)[:, None] - 1) / 2
    positions = matrix[:, :2] @ points + matrix[:, 2:] + middle[:, None]
    edges = np.stack([positions, positions - 2 * middle[:, None]])
    return np.all(np.abs(edges) > 2e-4, axis=(0, 1)).reshape(*size, 1)


@pytest.fixture
def image(random: np.random.Generator) -> np.ndarray:
    return random.uniform(0, 1, (11, 8, 2))


@pytest.mark.core
@pytest.mark.parametrize("size", [None, (15, 6)])
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_warp_equals_scipys(
    image: np.ndarray, name: str, size: tuple[int, int] | None, precision: Precision
) -> None:
    matrix = jax.jit(warp.affine_matrix)(*jnp.array(PARAMETERS[name], precision.dtype))
    affine = jax.jit(warp.affine, static_argnames="size")
    found = affine(jnp.asarray(image, precision.dtype), matrix, size=size)
    assert found.dtype == matrix.dtype == precision.dtype
    expected = scipy_affine(image, np.asarray(matrix, float), size)
    clear = off_the_edge(image.shape, np.asarray(matrix, float), size)
    exact = name in ("identity", "shift")
    # Positions are rounded, and a pixel's neighbour differs from it by up to 1.
    np.testing.assert_allclose(
        np.where(clear | exact, found, expected), expected, atol=precision.tolerance
    )
    assert clear.mean() > 0.95 or exact
    assert np.count_nonzero(expected) > 40


def test_random_matrices_equal_scipys(random: np.random.Generator, image: np.ndarray) -> None:
    matrices = random.normal(0, 1, (40, 2, 3)).astype(np.float32)
    many = jax.jit(jax.vmap(warp.affine, in_axes=(None, 0)))
    for found, matrix in zip(
        many(jnp.asarray(image, jnp.float32), matrices), matrices, strict=True
    ):
        expected = scipy_affine(image, matrix.astype(float))
        clear = off_the_edge(image.shape, matrix.astype(float))
        np.testing.assert_allclose(np.where(clear, found, expected), expected, atol=2e-5)
        assert clear.mean() > 0.95


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_matrix_inverts_scale_then_shear_then_rotation_then_shift(
    name: str, precision: Precision
) -> None:
    parameters = PARAMETERS[name]
    matrix = np.asarray(warp.affine_matrix(*parameters))
    expected = np.linalg.inv(forward(*parameters[:4]))
    np.testing.assert_allclose(matrix[:, :2], expected, atol=precision.tolerance)
    np.testing.assert_allclose(
        matrix[:, 2], -expected @ parameters[4:], atol=2 * precision.tolerance
    )
    np.testing.assert_allclose(
        warp.linear_map(*parameters[:4]), forward(*parameters[:4]), atol=precision.tolerance
    )


@pytest.mark.parametrize(
    ("parameters", "point", "expected"),
    [
        ({"rotation": 90.0}, (0, 3), (-3, 0)),
        ({"shear": 0.5}, (2, 0), (2, 1)),
        ({"scale_y": 2.0}, (2, 0), (4, 0)),
        ({"scale_x": 2.0}, (0, 2), (0, 4)),
        ({"shift_y": 2.0}, (0, 0), (2, 0)),
        ({"shift_x": 3.0}, (0, 0), (0, 3)),
        ({"rotation": 90.0, "shift_x": 3.0}, (0, 3), (-3, 3)),
    ],
)
def test_each_parameter_moves_a_point_as_documented(
    parameters: dict[str, float], point: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = np.zeros((11, 11, 1), np.float32)
    image[point[0] + 5, point[1] + 5] = 1
    moved = jax.jit(warp.affine)(jnp.asarray(image), warp.affine_matrix(**parameters))
    assert np.unravel_index(np.argmax(moved), moved.shape)[:2] == tuple(np.array(expected) + 5)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_lose_no_edge(random: np.random.Generator, turns: int) -> None:
    image = random.uniform(1, 2, (9, 9, 1)).astype(np.float32)
    turned = jax.jit(warp.affine)(jnp.asarray(image), warp.affine_matrix(rotation=90.0 * turns))
    np.testing.assert_allclose(turned, np.rot90(image, turns), atol=1e-5)


def test_the_parameters_are_uniform_within_their_ranges() -> None:
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = partial(warp.draw_linear, rotation=20.0, shear=0.2, scale=(0.8, 1.2))
    found = np.asarray(jax.vmap(draw)(keys))
    for values, (low, high) in zip(
        found.T, [(-20, 20), (-0.2, 0.2), (0.8, 1.2), (0.8, 1.2)], strict=True
    ):
        counts, _ = np.histogram(values, 10, (low, high))
        assert counts.sum() == 4000
        # Chi squared of 9 degrees of freedom: 27.9 is exceeded once in a thousand.
        assert np.sum((counts - 400) ** 2 / 400) < 27.9
    correlations = np.corrcoef(found.T) - np.eye(4)
    assert np.abs(correlations).max() < 0.06


def test_a_random_warp_follows_its_key_and_batches(image: np.ndarray) -> None:
    draw = partial(
        warp.random_affine, rotation=20.0, shear=0.1, scale=(0.9, 1.1), shift=2.0, size=(12, 10)
    )
    keys, pixels = jax.random.split(jax.random.key(0), 8), jnp.asarray(image, jnp.float32)
    looped = jnp.stack([jax.jit(draw)(key, pixels) for key in keys])
    assert looped.shape == (8, 12, 10, 2)
    batched = jax.jit(jax.vmap(draw, in_axes=(0, None)))(keys, pixels)
    np.testing.assert_allclose(batched, looped, atol=1e-5)
    assert len(np.unique(looped, axis=0)) == 8


def test_a_random_warp_of_no_extent_is_the_image(image: np.ndarray) -> None:
    pixels = jnp.asarray(image, jnp.float32)
    found = jax.jit(warp.random_affine)(jax.random.key(0), pixels)
    np.testing.assert_allclose(found, pixels, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype_is_kept(dtype: str) -> None:
    matrix = jax.jit(warp.affine_matrix)(10.0)
    found = jax.jit(warp.affine)(jnp.ones((4, 4, 1), dtype), matrix)
    assert found.dtype == dtype


@pytest.mark.parametrize(
    ("image", "matrix", "message"),
    [
        (jnp.ones((4, 4, 1), jnp.uint8), jnp.ones((2, 3)), "image is uint8"),
        (jnp.ones((4, 4, 1)), jnp.ones((3, 3)), r"matrix has shape \(3, 3\)"),
        (jnp.ones((1, 4, 1)), jnp.ones((2, 3)), "at least 2x2"),
    ],
)
def test_what_does_not_fit_is_refused(image: jax.Array, matrix: jax.Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bare(warp.affine)(image, matrix)
