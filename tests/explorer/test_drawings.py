"""Pieces of the page hold what they are given, in words as well."""

import base64
import io
import re

import numpy as np
from PIL import Image

from capsjax.explorer import drawings


def test_a_picture_is_a_png_with_its_caption_in_words():
    image = np.arange(12).reshape(3, 4, 1).astype(np.uint8)
    html = drawings.picture(image, 'a "3" <there>')
    assert 'alt="a &quot;3&quot; &lt;there&gt;"' in html
    encoded = re.search(r"base64,([^\"]*)", html).group(1)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    np.testing.assert_array_equal(pixels, image[..., 0])
    pair = drawings.picture(np.zeros((3, 4, 2)), "")
    encoded = re.search(r"base64,([^\"]*)", pair).group(1)
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (8, 3)


def test_the_largest_bar_is_marked_and_none_is_wider_than_its_track():
    html = drawings.bars([0.25, 1.2], ["cat", "dog"], "activations")
    assert re.findall(r"width:([\d.]+)%", html) == ["25.0", "100.0"]
    assert html.index("caps-most") > html.index("cat")
    assert ">1.20<" in html


def test_poses_are_drawn_from_the_middle_beside_what_they_were():
    html = drawings.poses(np.array([0.5]), np.array([-0.5]), "pose")
    assert re.findall(r"left:([\d.]+)%;width:([\d.]+)%", html) == [
        ("25.0", "25.0"),
        ("50.0", "25.0"),
    ]


def test_lines_move_over_the_iterations_or_rest_at_one():
    shares = np.array([[[0.5, 0.5], [0.5, 0.0]], [[1.0, 0.25], [0.0, 0.0]]])
    lengths = np.array([[0.5, 0.5], [1.0, 0.0]])
    moving = drawings.flow(shares, lengths, ["face", "house"], "routing")
    moving, resting = moving.split('<div class="caps-resting">')
    assert moving.count("<line") == 3  # what is never seen is left out
    assert 'values="0.50;1.00;1.00"' in moving
    assert 'values="0.50;0.25;0.25"' in moving
    assert "iteration 2 of 2" in moving
    assert 'values="1;0"' in moving
    assert "face 1.00" in resting
    assert "<animate" not in resting
    still = drawings.flow(shares, lengths, ["face", "house"], "routing", iteration=1)
    assert "<animate" not in still
    assert "face 0.50" in still
    assert still.count('stroke-opacity="0.50"') == 3


def test_no_line_is_lost_on_a_dark_page():
    shares, lengths = np.full((1, 10, 2), 0.1), np.full((1, 10), 0.5)
    drawn = drawings.flow(shares, lengths, [str(digit) for digit in range(10)], "routing")
    assert "#000000" not in drawn
    assert drawn.count('stroke="var(--body-text-color)"') == 2


def test_bars_of_poses_end_at_their_reach():
    html = drawings.poses(np.array([2.0]), np.array([-4.0]), "pose", reach=4)
    assert re.findall(r"left:([\d.]+)%;width:([\d.]+)%", html) == [
        ("0.0", "50.0"),
        ("50.0", "25.0"),
    ]


def test_long_names_are_cut():
    shares = np.ones((1, 2, 1))
    html = drawings.flow(shares, np.ones((1, 2)), ["automobile", "cat"], "routing")
    assert "automobi… 1.00" in html
    assert "cat 1.00" in html


def test_an_error_is_read_out_and_never_markup():
    html = drawings.error("<script>")
    assert 'role="alert"' in html
    assert "&lt;script&gt;" in html
