"""What the server takes of a request."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from capsjax.explorer import guard
from capsjax.explorer.guard import Guard

UPLOADS = Path("/tmp/uploads")
SHA = "0123456789abcdef" * 4


def asked(body, *, kind=b"application/json", method="POST", parts=1, path="/gradio_api/upload"):
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

    headers = [(b"content-type", kind)]
    scope = {"type": "http", "method": method, "headers": headers, "path": path}
    # In a thread of its own: where the browser's tests ran before, this one has a loop already.
    with ThreadPoolExecutor(1) as other:
        other.submit(asyncio.run, Guard(app, UPLOADS)(scope, receive, send)).result()
    return sent[0]["status"], reached


def test_a_question_goes_through_whole():
    body = json.dumps({"data": [{"path": f"{UPLOADS}/{SHA}/one.png"}, [1, "a://b"]]}).encode()
    assert asked(body, parts=3) == (200, [body])
    assert asked(b"", method="GET") == (200, [b""])
    assert asked(b"{broken") == (200, [b"{broken"])


OTHERS = [
    *("http://10.0.0.1/x.png", "https://a.b/c", "file:///etc/passwd", "/etc/passwd", "x.png", ""),
    *("../x.png", f"{UPLOADS}", f"{UPLOADS}/", f"{UPLOADS}/{SHA}", f"{UPLOADS}/one.png"),
    *(f"{UPLOADS}/{SHA}/..", f"{UPLOADS}/{SHA}/../x", f"{UPLOADS}/../{SHA}/x", f"{UPLOADS}{SHA}/x"),
    *(
        f"{UPLOADS}/{SHA}/a/b",
        f"{UPLOADS}/{SHA}/a\0b",
        f"{UPLOADS}/{SHA}/.",
        f"x{UPLOADS}/{SHA}/x",
    ),
    *(5, ["x"], {"path": "/etc/passwd"}, True),
]


@pytest.mark.parametrize("path", OTHERS, ids=repr)
@pytest.mark.parametrize("kind", [b"application/json", b"Application/X+json", b"text/plain", b""])
def test_what_is_no_uploaded_file_is_refused(path, kind):
    body = json.dumps({"data": [None, {"background": None, "layers": [{"path": path}]}]}).encode()
    assert asked(body, kind=kind) == (400, [])
    # JSON may be written in these, too.
    assert asked(body.decode().encode("utf-16"), kind=kind) == (400, [])


SERVED = [
    *("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/gradio_api/info"),
    *("/assets/index-C1.js", "/static/fonts/a/b-Regular.woff2", "/svelte/svelte.js"),
    *("/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/run/predict"),
    *("/gradio_api/heartbeat/abc123", "/gradio_api/component_server/", "/gradio_api/upload"),
]
NOT_SERVED = [
    *("/etc/passwd", "//etc/passwd", "", "config", "/gradio_api/", "/gradio_api/file=/etc/passwd"),
    *("/gradio_api/file/etc/passwd", "/gradio_api/proxy=http://x", "/gradio_api/process_recording"),
    *("/gradio_api/vibe-edit/", "/gradio_api/deep_link", "/gradio_api/runs", "/monitoring"),
    *("/gradio_api/run/../file=x", "/gradio_api/heartbeat/a/b", "/gradio_api/queue/join/x"),
    *(
        "/assets/",
        "/assets/../x",
        "/assets/%2e%2e/x",
        "/assets//etc/passwd",
        "/assets/.x",
        "/assets",
    ),
    *("/static/a/../../x", "/static/a\\..\\x", "/static/a%2fx", "/static/~root/x", "/static/a\n"),
    *("/\n", "/config\n", "/gradio_api/upload\n", "/pwa_icon/192", "/custom_component/a"),
]


def test_addresses_that_the_page_needs_are_the_only_ones():
    for path in SERVED:
        assert asked(b"", method="GET", path=path)[0] == 200, path
    for path in NOT_SERVED:
        for method in ("GET", "HEAD", "POST", "DELETE"):
            assert asked(b"", method=method, path=path) == (404, []), path


def test_uploads_are_bounded_together(monkeypatch, tmp_path):
    monkeypatch.setattr("tests.explorer.test_guard.UPLOADS", tmp_path)
    (tmp_path / SHA).mkdir()
    monkeypatch.setattr(guard, "LARGEST_SUM", 1000)  # folders, which stay behind, do not count
    (tmp_path / SHA / "digit.png").write_bytes(b"0" * 600)
    assert asked(b"0" * 400, kind=b"multipart/form-data")[0] == 200
    assert asked(b"0" * 401, kind=b"multipart/form-data") == (413, [])
    assert asked(b"0" * 401, path="/gradio_api/run/predict")[0] == 200


def test_a_body_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(guard, "LARGEST_BODY", 100)
    assert asked(b"0" * 101, kind=b"multipart/form-data", parts=2) == (413, [])
    assert asked(b"0" * 100, kind=b"multipart/form-data")[0] == 200


def test_deeply_nested_json_is_left_to_the_library():
    assert asked(b"[" * 100_000)[0] == 200
