"""A page in the browser to look into a trained network: ``capsjax explore``.

Everything runs on this machine. The page asks nothing of the network beyond it, and the server
listens to this machine alone unless told otherwise.
"""

import contextlib
import os
from typing import Any

from capsjax.explorer.answers import Explored

__all__ = ["Explored", "serve"]

LOOPBACK = "127.0.0.1"


def serve(
    explored: Explored,
    pairs: Explored | None = None,
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    browser: bool = False,
    wait: bool = True,
) -> Any:
    """Serve the page.

    Args:
        explored: the network that is looked at.
        pairs: one that names two digits in one image, for the tab that shows such.
        host: address to listen at.
        port: of the server; None is the first one that is free from 7860 on.
        browser: open the page in the browser.
        wait: until the server is stopped; else return at once.

    Returns:
        The page, of which ``local_url`` is the address and ``close()`` stops the server.

    Raises:
        ValueError: gradio is not installed, or the port is taken.
    """
    # No telemetry, and no question for a newer version.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ValueError(
            "the explorer needs gradio: install it with pip install 'capsjax[explore]'"
        ) from error
    from capsjax.explorer.drawings import STYLE
    from capsjax.explorer.images import LARGEST_FILE
    from capsjax.explorer.page import page

    _warm_up(explored, pairs)
    blocks = page(explored, pairs)
    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=LARGEST_FILE,
            footer_links=[],
            ssr_mode=False,
            mcp_server=False,
            # Fonts of the reader's system: the theme's own would be fetched from elsewhere.
            theme=gradio.themes.Base(font=fonts[0], font_mono=fonts[1]),
            css=STYLE,
        )
    except OSError as error:
        raise ValueError(f"port {port} of {host} is taken: give another --port") from error
    print(f"{explored.name} is at {blocks.local_url} (Ctrl-C stops it)", flush=True)
    if wait:
        blocks.block_thread()
    return blocks


def _warm_up(*networks: Explored | None) -> None:
    """Compile what a first click would wait for."""
    for explored in networks:
        if explored is None:
            continue
        image = explored.test["image"][0]
        look = explored.look(image)
        if look.poses is not None and explored.decoder is not None:
            explored.draw(look.poses[0], 0)
        with contextlib.suppress(ValueError):  # the page says why it has no routing to show
            for name in explored.routings:
                explored.iterations(image, name)
