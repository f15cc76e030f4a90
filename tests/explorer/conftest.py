"""The page, served, and a browser that opens it."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from capsjax import load_pretrained
from capsjax.explorer import Explored, serve

BROWSER = shutil.which("chromium")
# Without these it asks its maker's hosts on its own, which is not the page's doing.
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run")  # fmt: skip


@pytest.fixture(scope="package")
def address() -> Iterator[str]:
    pytest.importorskip("gradio", reason="the extra explore is not installed")
    names = ("efficient_capsnet_mnist", "efficient_capsnet_multi_mnist")
    page = serve(*(Explored(load_pretrained(name), name) for name in names), wait=False)
    yield page.local_url
    page.close()


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end it must have asked nobody else for anything."""
    pages, elsewhere = [], []

    def note(request: Any) -> None:
        if not request.url.startswith((address.rstrip("/"), "data:", "blob:")):
            elsewhere.append(request.url)

    def call(width: int = 1200, height: int = 900, *, dark: bool = False) -> Any:
        page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        pages.append(page)
        page.on("request", note)
        page.set_default_timeout(60_000)
        page.goto(address)
        page.wait_for_selector("#lengths table")
        return page

    yield call
    for page in pages:
        page.close()
    assert elsewhere == []
