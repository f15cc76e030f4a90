"""What people draw and drop becomes what the network takes, or a clear message."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from capsjax.explorer import images
from capsjax.explorer.images import centred, sketched, uploaded
from tests.training.small import digits

MNIST = SimpleNamespace(dataset="mnist", shape_of_data=(28, 28, 1))
COLOURED = SimpleNamespace(dataset="cifar10", shape_of_data=(32, 32, 3))


def saved(tmp_path, array, name="image.png", mode=None):
    path = tmp_path / name
    Image.fromarray(array, mode).save(path)
    return path


def stroke(height=100, width=80):
    """A vertical bar, white on black."""
    out = np.zeros((height, width), np.uint8)
    out[20:80, 30:40] = 255
    return out


def test_most_digits_of_mnist_stay_as_they_are():
    # They were made so; rounding moves some by a pixel.
    found = [
        np.abs(centred(image, 28) - image).mean()
        for image in digits(50, "test")["image"][..., 0] / 255
    ]
    assert np.median(found) < 0.01


def test_a_stroke_fills_20_of_28_rows_about_its_centre_of_mass():
    found = centred(stroke() / 255, 28)
    rows, columns = (np.flatnonzero(found.any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1] + 1) == (4, 24)
    assert len(columns) in (3, 4)
    assert abs((columns[0] + columns[-1]) / 2 - 14) <= 0.5


def test_dark_ink_on_paper_is_inverted_and_said_so(tmp_path):
    bright = uploaded(saved(tmp_path, stroke()), MNIST)
    dark = uploaded(saved(tmp_path, 255 - stroke(), "dark.png"), MNIST)
    np.testing.assert_array_equal(bright.image, dark.image)
    assert "inverted" in " ".join(dark.notes)
    assert "inverted" not in " ".join(bright.notes)
    assert (bright.image.dtype, bright.image.shape) == (np.uint8, (28, 28, 1))


def test_transparency_is_paper_and_16_bits_become_8(tmp_path):
    ink = np.zeros((100, 80, 4), np.uint8)
    ink[..., 3] = stroke()  # black where it is opaque
    clear = uploaded(saved(tmp_path, ink), MNIST)
    plain = uploaded(saved(tmp_path, stroke(), "plain.png"), MNIST)
    np.testing.assert_array_equal(clear.image, plain.image)
    assert "Transparent" in clear.notes[0]
    deep = uploaded(saved(tmp_path, stroke().astype(np.uint16) * 257, "deep.png"), MNIST)
    np.testing.assert_array_equal(deep.image, plain.image)
    assert "16 bits" in deep.notes[0]


def test_images_of_other_data_keep_their_middle_square(tmp_path):
    wide = np.zeros((64, 100, 3), np.uint8)
    wide[:, 18:82, 1] = 200
    found = uploaded(saved(tmp_path, wide), COLOURED)
    assert found.image.shape == (32, 32, 3)
    assert (found.image[..., 1] == 200).all()
    assert found.notes == ("The middle square was scaled to 32 x 32.",)


def test_strokes_are_ink_whatever_their_colour():
    layer = np.zeros((100, 80, 4), np.uint8)
    layer[..., 3] = stroke()
    found = sketched([layer], MNIST)
    assert found is not None
    assert found.image.max() == 255
    assert sketched([np.zeros((100, 80, 4), np.uint8)], MNIST) is None
    assert sketched([], MNIST) is None


def test_what_is_no_usable_image_is_named(tmp_path, monkeypatch):
    text = tmp_path / "note.png"
    text.write_text("no image")
    with pytest.raises(ValueError, match=r"note\.png cannot be read as an image: give .* PNG"):
        uploaded(text, MNIST)
    whole = saved(tmp_path, stroke()).read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.png cannot be read as an image"):
        uploaded(cut, MNIST)
    with pytest.raises(ValueError, match="is 1 wide and 1 high, expected at least 8 of both"):
        uploaded(saved(tmp_path, np.zeros((1, 1), np.uint8), "dot.png"), MNIST)
    with pytest.raises(ValueError, match="the image is blank"):
        uploaded(saved(tmp_path, np.zeros((28, 28), np.uint8), "blank.png"), MNIST)
    large = tmp_path / "large.png"
    large.write_bytes(b"0" * 50_000_000)
    with pytest.raises(ValueError, match=r"large\.png has 50 MB, expected at most 10"):
        uploaded(large, MNIST)
    monkeypatch.setattr(images, "LARGEST_IMAGE", 5000)
    with pytest.raises(ValueError, match=r"has 0 million pixels, expected at most 0 million"):
        uploaded(saved(tmp_path, stroke()), MNIST)


def test_a_bomb_is_refused_before_it_unfolds(tmp_path):
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(file.getvalue())
    with pytest.raises(ValueError, match="pixels, expected at most 40 million"):
        uploaded(bomb, MNIST)


def test_other_formats_are_not_even_tried(tmp_path):
    # Pillow would start another program for it.
    script = tmp_path / "digit.png"
    script.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\nshowpage\n")
    with pytest.raises(ValueError, match=r"digit\.png cannot be read as an image"):
        uploaded(script, MNIST)


def test_a_large_photograph_is_made_smaller_before_it_is_looked_at(tmp_path):
    wide = np.full((3000, 4000, 3), 255, np.uint8)
    wide[600:2400, 1900:2100] = 0
    picture, _ = images._read(saved(tmp_path, wide))
    assert max(picture.size) == 1024
    found = uploaded(saved(tmp_path, wide), MNIST).image
    np.testing.assert_array_equal(np.flatnonzero(found.any((1, 2)))[[0, -1]], [4, 23])


def test_grey_paper_is_paper_and_pale_ink_is_ink(tmp_path):
    plain = uploaded(saved(tmp_path, 255 - stroke(), "plain.png"), MNIST)
    photograph = np.where(stroke() > 0, 70, 180).astype(np.uint8)
    found = uploaded(saved(tmp_path, photograph, "photograph.png"), MNIST)
    np.testing.assert_array_equal(found.image, plain.image)


def test_a_photograph_is_turned_as_its_camera_was(tmp_path):
    lying = Image.fromarray(255 - stroke().T[::-1])
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter: to be seen turned clockwise
    lying.save(tmp_path / "lying.png", exif=exif)
    upright = uploaded(saved(tmp_path, 255 - stroke(), "upright.png"), MNIST)
    found = uploaded(tmp_path / "lying.png", MNIST).image
    np.testing.assert_allclose(found.astype(int), upright.image, atol=90)
    assert np.ptp(np.flatnonzero(found.any((1, 2)))) == 19


def test_digits_in_larger_frames_keep_mnist_s_size(tmp_path):
    frame = SimpleNamespace(dataset="multi_mnist", shape_of_data=(36, 36, 1))
    small, large = (uploaded(saved(tmp_path, stroke()), each).image for each in (MNIST, frame))
    np.testing.assert_array_equal(large[4:-4, 4:-4], small)
    assert large.sum() == small.sum()


def test_numbers_of_any_range_are_scaled_or_refused(tmp_path):
    path = tmp_path / "real.tiff"
    Image.fromarray((stroke() / 255).astype(np.float32)).save(path)
    found = uploaded(path, MNIST)
    plain = uploaded(saved(tmp_path, stroke()), MNIST)
    np.testing.assert_array_equal(found.image, plain.image)
    assert "from 0 to 1 were scaled" in found.notes[0]
    Image.fromarray(np.full((20, 20), np.nan, np.float32)).save(path)
    with pytest.raises(ValueError, match="pixels that are no numbers"):
        uploaded(path, MNIST)


def test_a_drawing_of_another_size_is_refused():
    with pytest.raises(ValueError, match="expected at most 1024 a side"):
        sketched([np.zeros((2000, 10, 4), np.uint8)], MNIST)
