"""Pictures of the explorer for README, in a browser without a screen.

    python -m experiments.screenshots

wants the extra ``dev`` and chromium, and writes ``experiments/results/explorer/``.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from capsjax import load_pretrained
from capsjax.cli.explore import DEFAULT, PAIRS
from capsjax.explorer import Explored, serve
from capsjax.pretrained import names

FOLDER = Path(__file__).parent / "results" / "explorer"
# A 2, as shares of the canvas.
_STROKE = (
    (0.36, 0.36), (0.42, 0.27), (0.52, 0.25), (0.6, 0.31), (0.6, 0.41), (0.52, 0.53), (0.43, 0.63),
    (0.35, 0.73), (0.45, 0.72), (0.55, 0.72), (0.65, 0.72),
)  # fmt: skip


def main() -> None:
    """Serve, draw, look, save."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no chromium to look with: install it")
    pairs = Explored(load_pretrained(PAIRS), PAIRS) if PAIRS in names() else None
    served = serve(Explored(load_pretrained(DEFAULT), DEFAULT), pairs, wait=False)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 760})
        page.goto(served.local_url)
        page.wait_for_selector("#lengths table")
        _draw(page)
        _save(page, "look")
        tabs = {"Routing": "#flow svg", "Move": "#moved img", "Side by side": "#routings section"}
        if pairs is not None:
            tabs["Two digits"] = "#pair img"
        for name, content in tabs.items():
            page.get_by_role("tab", name=name, exact=True).click()
            page.wait_for_selector(content)
            _save(page, name.split()[0].lower())
        narrow = browser.new_page(viewport={"width": 360, "height": 740})
        narrow.goto(served.local_url)
        narrow.wait_for_selector("#lengths table")
        _save(narrow, "narrow")
        browser.close()
    served.close()


def _draw(page: Any) -> None:
    page.wait_for_selector("#sketch canvas")
    page.wait_for_timeout(2000)  # until the brush is chosen
    box = page.locator("#sketch canvas").first.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in _STROKE]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()
    page.wait_for_selector("#said p")


def _save(page: Any, name: str) -> None:
    page.wait_for_timeout(1500)
    page.screenshot(path=FOLDER / f"{name}.png")
    print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
