"""MultiMNIST, pixel for pixel against a composition in NumPy."""

from typing import Any

import numpy as np
import pytest

from capsjax import data
from capsjax.data import generated, multi_mnist
from tests.conftest import bare, bare_config

COUNT = 300


@pytest.fixture(scope="module")
def base() -> dict[str, np.ndarray]:
    """The first 300 of MNIST's test images."""
    arrays = data.load("mnist", split="test")
    return multi_mnist.prepare({name: array[:COUNT] for name, array in arrays.items()})


def made(base: dict, config: multi_mnist.Config, *, variants: int = 10) -> dict[str, np.ndarray]:
    n, k = np.repeat(np.arange(COUNT), variants), np.tile(np.arange(variants), COUNT)
    return generated.examples(multi_mnist.example, base, 0, n, k, config)


@pytest.fixture(scope="module")
def paper(base: dict) -> dict[str, np.ndarray]:
    return made(base, multi_mnist.PAPER)


@pytest.fixture(scope="module")
def official(base: dict) -> dict[str, np.ndarray]:
    return made(base, multi_mnist.OFFICIAL)


def placed(image: np.ndarray, offset: tuple[int, int], limit: int) -> np.ndarray:
    """The middle 36 x 36 pixels of a wider canvas."""
    canvas = np.zeros((36 + 2 * limit, 36 + 2 * limit, 1), np.uint8)
    row, column = 4 + limit + np.array(offset)
    canvas[row : row + 28, column : column + 28] = image
    return canvas[limit : limit + 36, limit : limit + 36]


def all_placed(image: np.ndarray, limit: int) -> dict[bytes, tuple[int, int]]:
    """Offsets by what the placed image looks like; of several the last."""
    within = range(-limit, limit + 1)
    return {placed(image, (y, x), limit).tobytes(): (y, x) for y in within for x in within}


@pytest.mark.core
def test_shapes_and_dtypes(paper: dict) -> None:
    assert {name: (array.shape[1:], array.dtype) for name, array in paper.items()} == {
        "image": ((36, 36, 1), np.uint8),
        "sources": ((2, 36, 36, 1), np.uint8),
        "label": ((2,), np.int32),
    }


@pytest.mark.core
@pytest.mark.parametrize("name", ["paper", "official"])
def test_pictures_are_their_sources_added_and_cut_off(
    name: str, request: pytest.FixtureRequest
) -> None:
    found = request.getfixturevalue(name)
    total = found["sources"].astype(int).sum(axis=1)
    assert np.array_equal(found["image"], np.minimum(total, 255))
    assert (total > 255).any()


@pytest.mark.core
def test_a_picture_shows_the_base_digit_and_one_of_another_class(base: dict, paper: dict) -> None:
    assert np.array_equal(paper["label"][:, 0], np.repeat(base["label"], 10))
    assert np.all(paper["label"][:, 0] != paper["label"][:, 1])


@pytest.mark.core
def test_sources_are_base_images_moved_within_the_limit(base: dict, paper: dict) -> None:
    looks: dict[bytes, list[tuple[int, int, int]]] = {}
    for n, image in enumerate(base["image"]):
        for look, offset in all_placed(image, 4).items():
            looks.setdefault(look, []).append((n, *offset))
    offsets = []
    for p, (own, other) in enumerate(paper["sources"][:1000]):
        [(n, *offset)] = looks[own.tobytes()]
        assert n == p // 10
        # Whatever the partner is, it is an image of this base, and has the label given.
        [(partner, *partner_offset)] = looks[other.tobytes()]
        assert base["label"][partner] == paper["label"][p, 1]
        offsets.append([offset, partner_offset])
    counts = np.stack([np.bincount(axis + 4) for axis in np.array(offsets).reshape(-1, 4).T])
    assert counts.shape == (4, 9)
    # Chi squared of 8 degrees of freedom: 26.1 is exceeded once in a thousand.
    assert np.all(np.sum((counts - 1000 / 9) ** 2 / (1000 / 9), axis=1) < 26.1)


def test_the_official_shift_reaches_six_and_cuts_digits(base: dict, official: dict) -> None:
    first = official["sources"][::10, 0]
    ends = np.array(
        [
            all_placed(image, 6)[look.tobytes()]
            for image, look in zip(base["image"], first, strict=True)
        ]
    )
    assert ends.min() <= -5
    assert ends.max() == 6
    ink, whole = (images.sum(axis=(1, 2, 3)) for images in (first, base["image"]))
    assert np.all(ink <= whole)
    assert (ink < whole).any()


def test_the_base_shift_is_shared_only_where_asked_for(paper: dict, official: dict) -> None:
    def distinct(arrays: dict, which: int) -> np.ndarray:
        groups = arrays["sources"][:, which].reshape(COUNT, 10, -1)
        return np.array([len({look.tobytes() for look in group}) for group in groups])

    assert np.all(distinct(official, 0) == 1)
    assert np.all(distinct(paper, 0) > 1)
    assert distinct(official, 1).mean() > 9.5
    first = official["sources"][::10, 0]
    # One base digit's shift says nothing about another's.
    assert len(np.unique(np.argmax(first.any(axis=(2, 3)), axis=1))) > 6


@pytest.mark.core
def test_partners_are_uniform_over_the_images_of_other_classes() -> None:
    labels = np.array([0, 2, 0, 1, 2, 2, 5, 0, 1, 2], np.int32)
    image = np.zeros((10, 3, 3, 1), np.uint8)
    image[:, 1, 1, 0] = 1 + np.arange(10)
    base = multi_mnist.prepare({"image": image, "label": labels})
    n, k = np.repeat(np.arange(10), 1000), np.tile(np.arange(1000), 10)
    config = multi_mnist.Config(shift=1)
    found = generated.examples(multi_mnist.example, base, 0, n, k, config)["sources"]
    partners = found[:, 1].max(axis=(1, 2, 3)).reshape(10, 1000).astype(int) - 1
    for own, drawn in zip(labels, partners, strict=True):
        others = labels != own
        counts = np.bincount(drawn, minlength=10)
        assert np.all(counts[~others] == 0)
        expected = 1000 / others.sum()
        # Chi squared of at most 8 degrees of freedom: 32 is exceeded once in ten thousand.
        assert np.sum((counts[others] - expected) ** 2 / expected) < 32


def test_classes_of_partners_follow_their_share(base: dict, paper: dict) -> None:
    sizes = np.bincount(base["label"])
    own, other = paper["label"].T
    expected = np.array(
        [sum(sizes[c] / (COUNT - sizes[o]) for o in own if o != c) for c in range(10)]
    )
    # Chi squared of 9 degrees of freedom: 27.9 is exceeded once in a thousand.
    assert np.sum((np.bincount(other) - expected) ** 2 / expected) < 27.9


@pytest.mark.core
def test_a_picture_follows_from_its_numbers_alone(base: dict, paper: dict) -> None:
    n, k = np.array([7, 299, 0, 7]), np.array([3, 9, 0, 4])
    found = generated.examples(multi_mnist.example, base, 0, n, k, multi_mnist.PAPER)
    for name, array in found.items():
        assert np.array_equal(array, paper[name][n * 10 + k])
    other = generated.examples(multi_mnist.example, base, 1, n, k, multi_mnist.PAPER)
    assert not np.array_equal(other["image"], found["image"])


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"classes \[3\], expected at least two"):
        bare(multi_mnist.prepare)({"label": np.full(4, 3)})


def test_a_base_that_is_not_prepared_is_refused(base: dict) -> None:
    plain: Any = {name: base[name] for name in ("image", "label")}
    with pytest.raises(ValueError, match="expected what multi_mnist"):
        generated.examples(
            multi_mnist.example, plain, 0, np.zeros(1, int), np.zeros(1, int), multi_mnist.PAPER
        )


@pytest.mark.parametrize("options", [{"shift": -1}, {"pad": -1}])
def test_negative_pixels_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="expected at least 0"):
        bare_config(multi_mnist.Config, **{"shift": 4, "pad": 4, **options})
