"""What a person sees, in a real browser: drawing, sliders, every tab, errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.small import digits

# The server's threads and the browser's sockets end when they like.
pytestmark = pytest.mark.filterwarnings("ignore")


def most_active(page: Any) -> str:
    return page.locator("#lengths .caps-most th").inner_text()


def becomes(page: Any, name: str, *, seconds: int) -> bool:
    for _ in range(seconds):
        page.wait_for_timeout(1000)
        if most_active(page) == name:
            return True
    return False


def changed(page: Any, selector: str, attribute: str, before: str) -> None:
    page.wait_for_function(
        "([s, a, b]) => document.querySelector(s)?.getAttribute(a) !== b",
        arg=[selector, attribute, before],
    )


def source(page: Any, place: str) -> str:
    return page.locator(f"{place} img").first.get_attribute("src")


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def test_a_stroke_is_a_one_and_a_slider_changes_what_is_drawn(visit: Callable[..., Any]) -> None:
    page = visit()
    assert most_active(page) == "7"  # the first test image
    page.wait_for_selector("#sketch canvas")
    page.wait_for_timeout(1500)  # until the brush is chosen
    box = page.locator("#sketch canvas").first.bounding_box()
    x = box["x"] + box["width"] / 2
    for wait in (5, 10, 30):  # on a busy machine the brush is chosen late, and a stroke is lost
        page.mouse.move(x, box["y"] + 0.35 * box["height"])
        page.mouse.down()
        for step in range(20):
            page.mouse.move(x, box["y"] + (0.35 + 0.02 * step) * box["height"])
        page.mouse.up()
        if becomes(page, "1", seconds=wait):
            break
    assert most_active(page) == "1"
    assert "MNIST's size and place" in page.locator("#said").inner_text()
    assert page.get_by_text("drawn by the capsule of 1").count() == 1
    slider = page.locator("#dim-3 input[type=range]")
    before, value = source(page, "#drawn"), float(slider.input_value())
    slider.focus()
    page.keyboard.press("ArrowRight")
    changed(page, "#drawn img", "src", before)
    assert float(slider.input_value()) == pytest.approx(value + 0.01)
    before = source(page, "#drawn")
    page.locator("#whose").get_by_label("4").click()
    changed(page, "#drawn img", "src", before)
    assert page.get_by_text("drawn by the capsule of 4").count() == 1
    assert page.locator("input[type=range][aria-label*='dimension']").count() == 16


def test_a_test_image_is_chosen_by_its_number(visit: Callable[..., Any]) -> None:
    page = visit()
    open_tab(page, "Test image")
    number = page.locator("#number input")
    number.fill("2")
    number.press("Enter")
    label = str(digits(3, "test")["label"][2])
    page.wait_for_function(
        "b => document.querySelector('#lengths .caps-most th').innerText === b", arg=label
    )
    number.fill("10000")
    number.press("Enter")
    page.wait_for_selector("#said [role=alert]")
    assert "give a number from 0 to 9999" in page.locator("#said").inner_text()


def test_files_are_taken_or_refused_in_words(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit()
    open_tab(page, "File")
    digit = tmp_path / "one.png"
    Image.fromarray(255 - digits(3, "test")["image"][2, ..., 0]).save(digit)
    text, dot = tmp_path / "text.png", tmp_path / "dot.png"
    text.write_text("no image")
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(dot)
    for path, said in (
        (digit, "Dark ink on bright paper was inverted."),
        (text, "cannot be read as an image"),
        (dot, "is 1 wide and 1 high, expected at least 8"),
    ):
        page.locator("#file input[type=file]").set_input_files(path)
        page.get_by_text(said).wait_for()
        page.locator("#file").get_by_label("Clear").click()
    large = tmp_path / "large.png"
    large.write_bytes(b"0" * 50_000_000)
    page.locator("#file input[type=file]").set_input_files(large)
    page.get_by_text("exceed the maximum allowed size").wait_for()
    assert most_active(page) == "1"


def test_every_tab_shows_what_it_promises(visit: Callable[..., Any]) -> None:
    page = visit()
    open_tab(page, "Routing")
    page.locator("#which").get_by_label("dynamic").click()
    moving = "#flow svg[aria-label*='dynamic'][aria-label*='3 iterations'] animate"
    page.wait_for_selector(moving, state="attached")
    page.locator("#iteration input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#flow svg[aria-label*='at 1']")
    assert page.locator("#flow animate").count() == 0
    open_tab(page, "Move")
    page.wait_for_selector("#moved img")
    before = source(page, "#moved")
    page.locator("#angle input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    changed(page, "#moved img", "src", before)
    assert page.locator("#poses tr").count() == 16
    open_tab(page, "Side by side")
    page.wait_for_selector("#routings section")
    said = [each.inner_text() for each in page.locator("#routings h3").all()]
    assert said == ["self attention", "dynamic", "em", "variational bayes", "uniform"]


def test_two_digits_are_pulled_apart(visit: Callable[..., Any]) -> None:
    page = visit()
    open_tab(page, "Two digits")
    page.get_by_text("7 and 2", exact=True).wait_for()  # the first two test digits
    captions = [each.inner_text() for each in page.locator("#pair figcaption").all()]
    assert captions[-2:] == ["7 alone", "2 alone"]
    assert sorted(captions[1:3]) == ["drawn by the capsule of 2", "drawn by the capsule of 7"]
    assert page.locator("#pair img").count() == 5
    before = source(page, "#pair")
    page.locator("#right input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    changed(page, "#pair img", "src", before)
    number = page.get_by_label("Second digit, 0 to 9,999")
    number.fill("2")
    page.get_by_text("7 and 1", exact=True).wait_for()
    number.fill("10000")
    page.locator("#pair [role=alert]").wait_for()
    assert "give a number from 0 to 9999" in page.locator("#pair").inner_text()


def test_it_fits_a_narrow_screen(visit: Callable[..., Any]) -> None:
    page = visit(360, 740)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#drawn img").first.bounding_box()["width"] <= 360


def test_all_but_drawing_is_done_with_the_keyboard(visit: Callable[..., Any]) -> None:
    page = visit()

    def go(there: str, key: str = "Tab") -> None:
        for _ in range(80):
            page.keyboard.press(key)
            if page.evaluate(f"(e => {there})(document.activeElement)"):
                return
        raise AssertionError(f"80 presses of {key} do not lead to where {there}")

    go("e.role === 'tab' && e.innerText.trim() === 'Test image'")
    page.keyboard.press("Enter")
    go("e.matches('#number input')")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    label = str(digits(2, "test")["label"][1])
    page.wait_for_function(
        "b => document.querySelector('#lengths .caps-most th').innerText === b", arg=label
    )
    go("e.role === 'tab' && e.innerText.trim() === 'Routing'", "Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#flow svg")
    go("e.matches('#which input[value=dynamic]')")
    page.keyboard.press("Space")
    page.wait_for_selector("#flow svg[aria-label*='dynamic']")


def test_it_is_read_on_a_dark_page(visit: Callable[..., Any]) -> None:
    page = visit(dark=True)
    text, back = (
        page.evaluate(
            """name => {
              const probe = document.createElement('i');
              probe.style.color = `var(--${name})`;
              document.querySelector('#lengths').append(probe);
              return getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
            }""",
            name,
        )
        for name in ("body-text-color", "body-background-fill")
    )
    assert max(back) < 64
    assert min(text) > 192
