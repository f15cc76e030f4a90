"""No path in a request leads to a file: the page answers with its own, and opens uploads alone."""

import http.client
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the extra explore is not installed")
from capsjax.cli.explore import Explore
from tests.explorer.visitor import Failed, Visitor, file_of, png

# The server's threads and sockets end when they like.
pytestmark = pytest.mark.filterwarnings("ignore")

SECRET = "nobody may read this"
opened: list[str] = []
_hooked: list[bool] = []


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A file beside the page's; who opens it in this process, where the server runs, is seen."""
    place = tmp_path / "secret.png"
    place.write_text(SECRET)

    def audit(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            opened.append(os.fsdecode(arguments[0]))

    if not _hooked:
        sys.addaudithook(audit)  # for good
        _hooked.append(True)
    opened.clear()
    yield place
    for path in opened:
        assert os.path.realpath(path) not in (str(place), "/etc/passwd", "/etc/hostname")


@pytest.fixture
def visitor(address: str) -> Iterator[Visitor]:
    found = Visitor(address)
    yield found
    found.close()


def uploads() -> str:
    return os.environ["GRADIO_TEMP_DIR"]


def paths(secret: Path) -> list[str]:
    """Ways to name a file that is not the page's."""
    up = "/".join([".."] * 12)
    sha = "0" * 64
    return [
        str(secret),
        "/etc/passwd",
        f"{up}/etc/passwd",
        os.path.relpath(secret),
        f"{uploads()}/../../etc/passwd",
        f"{uploads()}/{up}{secret}",
        f"{uploads()}/{sha}/../..{secret}",
        f"{uploads()}/{sha}/..",
        f"{uploads()}/{sha}/.",
        uploads(),
        f"/proc/self/root{secret}",
        f"file://{secret}",
        f"//localhost{secret}",
        f"http://127.0.0.1:1{secret}",
        "~/.bashrc",
        f"{secret}\0.png",
        "setup.cfg",
        "",
    ]


def ways(path: str) -> tuple[str, str, str]:
    """Ways to write a path into an address."""
    return quote(path), quote(path, safe=""), quote(quote(path, safe=""))


def get(address: str, target: str, method: str = "GET") -> tuple[int, bytes]:
    """An answer to a target that is sent as it is: no client tidies it up."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=300)
    connection.putrequest(method, target)
    connection.endheaders()
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def test_addresses_lead_to_no_file_but_the_page_s_own(address: str, secret: Path) -> None:
    (Path(uploads()) / "link.png").unlink(missing_ok=True)
    (Path(uploads()) / "link.png").symlink_to(secret)
    named = [*paths(secret), f"{uploads()}/link.png"]
    routes = (
        *("/gradio_api/file=", "/gradio_api/file/", "/gradio_api/proxy=", "/assets/"),
        *("/static/", "/svelte/", "/gradio_api/custom_component/x/client/", "/"),
    )
    for route in routes:
        for path in named:
            # Each way of writing it has its turn with each route: all are tried on the guard alone.
            written = ways(path)[(routes.index(route) + named.index(path)) % 3]
            status, body = get(address, route + written)
            assert SECRET.encode() not in body, route + written
            assert b"root:" not in body, route + written
            ours = route == "/" and path == ""
            assert ours or status in (400, 403, 404), (route + written, status)
    for query in ("deep_link", "file", "path", "page", "__theme"):
        status, body = get(address, f"/?{query}={quote(str(secret), safe='')}")
        assert SECRET.encode() not in body
    for route in ("/gradio_api/process_recording", "/gradio_api/vibe-edit/", "/gradio_api/runs"):
        assert get(address, route, "POST")[0] == 404
        assert get(address, route)[0] == 404


@pytest.mark.skipif(sys.platform != "linux", reason="sockets are read from /proc")
def test_only_this_machine_is_listened_to_unless_asked_otherwise(address: str) -> None:
    port = f":{urlsplit(address).port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[1].endswith(port) and row[3] == "0A"}
    assert listening == {"0100007F" + port}  # 127.0.0.1, backwards
    assert Explore().host == "127.0.0.1"


def test_what_the_page_needs_is_served(address: str) -> None:
    served = (
        "/",
        "/config",
        "/theme.css",
        "/gradio_api/info",
        "/static/img/logo_nosize.svg",
        "/gradio_api/queue/status",
    )
    assert [get(address, target)[0] for target in served] == [200] * len(served)
    assert get(address, "/", "HEAD")[0] == 200


@pytest.mark.parametrize("kind", ["application/json", "application/x+json", "text/plain", None])
def test_questions_about_other_files_are_refused(
    visitor: Visitor, secret: Path, kind: str | None
) -> None:
    file, sketch = visitor.question("file", "change"), visitor.question("sketch", "change")
    number = visitor.question("number", "input")
    headers = {} if kind is None else {"content-type": kind}
    for turn, path in enumerate(paths(secret)):
        given = file_of(path)
        drawing = {"background": None, "layers": [given], "composite": None}
        asked = (
            *((file, given), (file, [given]), (file, {**given, "is_stream": True})),
            *((sketch, drawing), (sketch, {**drawing, "layers": [], "background": given})),
            *((number, given), (number, [[given]])),
        )
        question, value = asked[turn % len(asked)]
        asking = {"data": [value], "fn_index": question, "session_hash": visitor.session}
        route = ("run/predict", "queue/join", "component_server/")[turn % 3]
        said = visitor.http.post(
            f"/gradio_api/{route}", content=json.dumps(asking).encode(), headers=headers
        )
        assert said.status_code == 400, (path, said.text)
        assert SECRET not in said.text


def test_no_module_is_imported_by_a_question(visitor: Visitor) -> None:
    assert "antigravity" not in sys.modules  # it would open a browser
    with pytest.raises(Failed):
        visitor.ask(visitor.question("which", "change"), [None, "antigravity"])
    assert "antigravity" not in sys.modules


def test_a_link_among_the_uploads_leads_nowhere(visitor: Visitor, secret: Path) -> None:
    folder = Path(uploads()) / ("a" * 64)
    folder.mkdir(exist_ok=True)
    for target in (secret, Path("/etc/passwd")):
        link = folder / "digit.png"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(Failed):
            visitor.ask(visitor.question("file", "change"), [file_of(str(link))])
        drawing = {"background": None, "layers": [file_of(str(link))], "composite": None}
        with pytest.raises(Failed, match="500"):
            visitor.ask(visitor.question("sketch", "change"), [drawing])
    link.unlink()


@pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "..", "a/../../b.png", "x\\..\\y"])
def test_an_upload_s_name_leads_nowhere(visitor: Visitor, secret: Path, name: str) -> None:
    digit = np.zeros((40, 40), np.uint8)
    digit[5:35, 18:22] = 255
    response = visitor.http.post("/gradio_api/upload", files={"files": (name, png(digit))})
    assert response.status_code in (200, 400)
    for path in response.json() if response.status_code == 200 else []:
        assert Path(path).parent.parent == Path(uploads())
        assert Path(path).name in ("x.png", "b.png", "x..y")
        assert Path(path).read_bytes() == png(digit)
    for place in (Path(uploads()), *Path(uploads()).parents):
        assert not (place / "x.png").exists()
        assert not (place / "b.png").exists()


def test_drawings_are_bounded_in_bytes_pixels_and_number(visitor: Visitor) -> None:
    assert visitor.send_layer(b"0" * 1_000_001, "large").status_code == 413
    for index in ("1000000000", "-1", "x", "null", "4"):
        assert visitor.send_layer(b"0", "far", index).status_code == 400
    for pixels, said in (
        *((b"no picture", "draw it anew"), (blank(20_000), "draw it anew")),
        *((blank(1025), "expected at most 1024 a side"), (blank(280)[:60], "draw it anew")),
    ):
        assert visitor.send_layer(pixels, "bad").status_code == 200
        visitor.set("sketch", {"id": "bad"})
        visitor.happen("sketch", "change")
        assert said in visitor.value("said")
    visitor.set("sketch", {"id": "bad"})  # forgotten: nothing is shown anew
    visitor.happen("sketch", "change")
    strokes = np.zeros((280, 280, 4), np.uint8)
    strokes[60:220, 130:150, 3] = 255
    visitor.draw(strokes)
    assert visitor.value("whose") == "1"


def blank(side: int) -> bytes:
    """Few bytes, however many pixels."""
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()
