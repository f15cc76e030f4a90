"""Contact sheets: one axis an image, captions that fit, pairs side by side."""

import numpy as np
import pytest

from capsjax import figures


@pytest.mark.parametrize(("channels", "width"), [(1, 6), (2, 12), (3, 6)])
def test_every_image_stands_under_its_caption(channels: int, width: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 5, 6, channels)).astype(np.uint8)
    figure = figures.contact_sheet(images, [f"number {i}" for i in range(12)], title="all")
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == [f"number {i}" for i in range(12)]
    for axis, image in zip(shown, images, strict=True):
        drawn = np.asarray(axis.images[0].get_array())
        assert drawn.shape[:2] == (5, width)
        np.testing.assert_allclose(drawn[:, :6].reshape(5, 6, -1)[..., 0], image[..., 0] / 255)


def test_long_captions_are_broken_and_lines_kept() -> None:
    caption = "one\nparameters 1.00 2.00 3.00 4.00 5.00"
    figure = figures.contact_sheet(np.zeros((1, 4, 4, 1), np.uint8), [caption])
    lines = figure.axes[0].get_title().splitlines()
    assert lines[0] == "one"
    assert " ".join(lines[1:]) == caption.splitlines()[1]
    assert max(map(len, lines)) <= 18


@pytest.mark.parametrize("count", [0, 2])
def test_images_without_captions_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"there are {count} images and 1 captions"):
        figures.contact_sheet(np.zeros((count, 4, 4, 1), np.uint8), ["a"])
