"""What the server takes of a request: so many bytes, and no file but one that was uploaded.

The page's library checks paths on this machine by itself (gradio 6.31); it would fetch an address
that a request gives in place of an uploaded file, and hold a body of any size.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

LARGEST_BODY = 16_000_000  # bytes: the largest file, and what an upload adds to it

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Guard:
    """Refuses requests before the page's library sees them (ASGI).

    Args:
        app: what answers the others.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 to what is too large and 400 to what names a file elsewhere."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
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
        kind = dict(scope["headers"]).get(b"content-type", b"")
        if kind.startswith(b"application/json") and _elsewhere(bytes(body)):
            await _refuse(send, 400, "expected a file that was uploaded, not an address")
            return
        given = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Message:
            return given.pop() if given else await receive()

        await self.app(scope, again, send)


def _elsewhere(body: bytes) -> bool:
    """Whether a request has an address where the path of an uploaded file goes."""
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
            path = value.get("path")
            if isinstance(path, str) and "://" in path:
                return True
    return False


async def _refuse(send: Send, status: int, why: str) -> None:
    body = json.dumps({"error": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
