"""A page in the browser to look into a trained network: ``capsjax explore``.

Everything runs on this machine. The page asks nothing of the network beyond it, and the server
listens to this machine alone unless told otherwise.
"""

import contextlib
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from capsjax import inspection
from capsjax.explorer import answers
from capsjax.explorer.answers import Explored

__all__ = ["Explored", "serve"]

LOOPBACK = "127.0.0.1"
# As many answers at once as two cores can give in time; visitors whose image and choices are kept;
# and questions that wait.
_THREADS, _VISITORS, _WAITING = 4, 64, 32


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
        ValueError: gradio is not installed, or host or port cannot be listened at.

    Example:
        >>> from capsjax import load_pretrained
        >>> explored = Explored(load_pretrained("efficient_capsnet_mnist"), "digits")
        >>> page = serve(explored, wait=False)  # doctest: +SKIP
        digits is at http://127.0.0.1:7860/ (Ctrl-C stops it)
        >>> page.close()  # doctest: +SKIP
    """
    _check_address(host, port)
    # Uploads lie in a folder that others on this machine cannot read, and end with this process.
    uploads = tempfile.TemporaryDirectory(prefix="capsjax-explore-")
    os.environ["GRADIO_TEMP_DIR"] = uploads.name
    # No telemetry, no question for a newer version, and no copy of each answer in the browser.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = os.environ["GRADIO_RUN_HISTORY"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ValueError(
            "the explorer needs gradio: install it with pip install 'capsjax[explore]'"
        ) from error
    from starlette.middleware import Middleware

    from capsjax.explorer.drawings import STYLE
    from capsjax.explorer.guard import Guard
    from capsjax.explorer.images import LARGEST_FILE
    from capsjax.explorer.page import page

    _warm_up(explored, pairs)
    blocks = page(explored, pairs).queue(max_size=_WAITING, api_open=False)
    blocks.uploads = uploads  # kept as long as the page
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
            max_threads=_THREADS,
            state_session_capacity=_VISITORS,
            app_kwargs={"middleware": [Middleware(Guard, uploads=Path(uploads.name))]},
            footer_links=[],
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            # Fonts of the reader's system: the theme's own would be fetched from elsewhere.
            theme=gradio.themes.Base(font=fonts[0], font_mono=fonts[1]),
            css=STYLE,
        )
    except OSError as error:
        raise ValueError(f"no port of {host} could be had: {error}") from error
    print(f"{explored.name} is at {blocks.local_url} (Ctrl-C stops it)", flush=True)
    if wait:
        blocks.block_thread()
    return blocks


def _check_address(host: str, port: int | None) -> None:
    if port is not None and not 0 < port < 2**16:
        raise ValueError(f"port is {port}, expected 1 to {2**16 - 1}")
    # First any port, so that the host is told from the port.
    for number in dict.fromkeys((0, port or 0)):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, number, type=socket.SOCK_STREAM
            )[0]
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
        except OSError as error:
            if number:
                raise ValueError(
                    f"port {port} of {host} cannot be listened at ({error.strerror}): give another "
                    "--port"
                ) from error
            raise ValueError(
                f"host is {host}, expected an address of this machine, such as {LOOPBACK}, or "
                "0.0.0.0 for all of them"
            ) from error


def _warm_up(explored: Explored, pairs: Explored | None) -> None:
    """Compile what a first click would wait for."""
    image = explored.test["image"][0]
    look = explored.look(image)
    if look.poses is not None and explored.decoder is not None:
        explored.draw(look.poses[0], 0)
    with contextlib.suppress(ValueError):  # the page says why it has no routing to show
        for name in explored.routings:
            explored.iterations(image, name)
    inspection.moved(image[None])
    if pairs is not None:
        digits = pairs.singles["image"]
        both, *_ = answers.overlapped(digits[0], digits[1], pad=pairs.pad, offset=(0, 0))
        pairs.look(both, classes=2)
