"""What the server takes of a request."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from capsjax.explorer import guard
from capsjax.explorer.guard import Guard


def asked(body, *, kind=b"application/json", method="POST", parts=1):
    """What is answered, and the body that reached the library."""
    reached, sent = [], []

    async def app(scope, receive, send):
        message = await receive()
        reached.append(message.get("body", b""))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    size = -(-len(body) // parts)
    messages = [
        {
            "type": "http.request",
            "body": body[n * size : (n + 1) * size],
            "more_body": n < parts - 1,
        }
        for n in range(parts)
    ]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "headers": [(b"content-type", kind)]}
    # In a thread of its own: where the browser's tests ran before, this one has a loop already.
    with ThreadPoolExecutor(1) as other:
        other.submit(asyncio.run, Guard(app)(scope, receive, send)).result()
    return sent[0]["status"], reached


def test_a_question_goes_through_whole():
    body = json.dumps({"data": [{"path": "/tmp/x/one.png"}, [1, "a://b"]]}).encode()
    assert asked(body, parts=3) == (200, [body])
    assert asked(b"", method="GET") == (200, [b""])
    assert asked(b"{broken") == (200, [b"{broken"])


@pytest.mark.parametrize("path", ["http://10.0.0.1/x.png", "https://a.b/c", "file:///etc/passwd"])
def test_an_address_is_no_uploaded_file(path):
    body = json.dumps({"data": [None, {"background": None, "layers": [{"path": path}]}]}).encode()
    assert asked(body) == (400, [])


def test_a_body_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(guard, "LARGEST_BODY", 100)
    assert asked(b"0" * 101, kind=b"multipart/form-data", parts=2) == (413, [])
    assert asked(b"0" * 100, kind=b"multipart/form-data")[0] == 200


def test_deeply_nested_json_is_left_to_the_library():
    assert asked(b"[" * 100_000)[0] == 200
