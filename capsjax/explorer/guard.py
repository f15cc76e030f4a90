"""What the server takes of a request: so many bytes, the page's own routes, and uploaded files.

The page's library has more routes than this page needs: some send files, fetch addresses, run other
programs on what is sent, or write. It checks paths by itself (gradio 6.31), and would fetch an
address that a request gives in place of an uploaded file, and hold a body of any size.
"""

import json
import re
import stat
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path, PurePath
from typing import Any

LARGEST_BODY = 16_000_000  # bytes: the largest file, and what an upload adds to it
LARGEST_SUM = 500_000_000  # bytes of all uploads that lie there at a time

# What a browser asks for to show this page and to use it.
_API = (
    "app_id|cancel|component_server|heartbeat/[0-9A-Za-z_-]+|info|login_check|queue/(data|join|status)"
    "|reset|run/[0-9A-Za-z_-]+|startup-events|theme[.]css|upload|upload_progress"
)
_FILES = "config|favicon[.]ico|manifest[.]json|robots[.]txt|theme[.]css"
# Files of the library: no name of a folder or a file there begins with a dot.
_PARTS = "(assets|static|svelte)(/[0-9A-Za-z_-][0-9A-Za-z_.@-]*)+"
_ROUTES = re.compile(f"/(({_FILES}|gradio_api/({_API}))/?|{_PARTS})?")
# An upload lies in a folder that is named by its SHA-256.
_FOLDER = re.compile("[0-9a-f]{64}")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Guard:
    """Refuses requests before the page's library sees them (ASGI).

    Args:
        app: what answers the others.
        uploads: folder of the uploaded files.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], uploads: Path):
        self.app, self.uploads = app, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404 to other routes, 413 to what is too large, 400 to what names other files."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not _ROUTES.fullmatch(scope["path"]):
            await _refuse(send, 404, "expected one of the page's own addresses")
            return
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > LARGEST_BODY:
                await _refuse(send, 413, f"expected at most {LARGEST_BODY} bytes")
                return
            if not message.get("more_body", False):
                break
        # Of any content type: the library reads JSON where none is named, too.
        if _elsewhere(bytes(body), self.uploads):
            await _refuse(send, 400, "expected a file that was uploaded, not another path")
            return
        if "/upload" in scope["path"] and _size(self.uploads) + len(body) > LARGEST_SUM:
            await _refuse(send, 413, "too much was uploaded in the last minutes: wait for a while")
            return
        given = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Message:
            return given.pop() if given else await receive()

        await self.app(scope, again, send)


def _elsewhere(body: bytes, uploads: Path) -> bool:
    """Whether a request has anything else where the path of an uploaded file goes."""
    try:
        pending = [json.loads(body)]
    except (ValueError, RecursionError):
        return False  # no JSON: the library says so
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        elif isinstance(value, dict):
            pending += value.values()
            if value.get("path") is not None and not is_upload(value["path"], uploads):
                return True
    return False


def is_upload(path: Any, uploads: Path) -> bool:
    """Whether a path is one of an uploaded file, by its letters: nothing is looked up.

    Args:
        path: as a request gives it.
        uploads: folder of the uploaded files.

    Example:
        >>> is_upload("/tmp/uploads/../secret", Path("/tmp/uploads"))
        False
    """
    if not isinstance(path, str) or "\0" in path or not PurePath(path).is_relative_to(uploads):
        return False
    parts = PurePath(path).relative_to(uploads).parts
    return len(parts) == 2 and bool(_FOLDER.fullmatch(parts[0])) and parts[1] != ".."


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:  # deleted meanwhile
            continue
        if not stat.S_ISDIR(status.st_mode):
            total += status.st_size
    return total


async def _refuse(send: Send, status: int, why: str) -> None:
    body = json.dumps({"error": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
