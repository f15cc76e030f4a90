"""A person who uses the page, by the requests that a browser would send."""

import io
import json
import uuid
from typing import Any

import httpx
import numpy as np
from PIL import Image


class Failed(Exception):
    """An answer that is none: the status, or that the question broke down."""


class Visitor:
    """A visit of the page: the values of its parts, and questions about them.

    Args:
        address: of the page.
        patience: seconds to wait for an answer.
    """

    def __init__(self, address: str, patience: float = 300):
        # A connection each: the server closes one that rests for 5 s, as on a busy machine it may.
        alone = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=address, timeout=patience, limits=alone)
        self.session = uuid.uuid4().hex
        self._sent(self.http.get("/"))
        self.config = self._sent(self.http.get("/config")).json()
        self.parts = {part["id"]: part for part in self.config["components"]}
        self.values = {number: part["props"].get("value") for number, part in self.parts.items()}
        self.questions = {each["id"]: each for each in self.config["dependencies"]}
        self._follow([n for n, q in self.questions.items() if _asked_at_first(q)])

    def close(self) -> None:
        self.http.close()

    def part(self, name: str) -> int:
        """Number of the part with an ``elem_id``, a tab's id, or a label that begins so."""
        for number, part in self.parts.items():
            if name in (part["props"].get("elem_id"), part["props"].get("id")):
                return number
        for number, part in self.parts.items():
            label = part["props"].get("label") or part["props"].get("value")
            if isinstance(label, str) and label.startswith(name):
                return number
        raise KeyError(name)

    def set(self, name: str, value: Any) -> None:
        self.values[self.part(name)] = value

    def value(self, name: str) -> Any:
        return self.values[self.part(name)]

    def question(self, name: str, event: str) -> int:
        """Number of what is asked when a part has an event."""
        number = self.part(name)
        for question in self.questions.values():
            if [number, event] in [list(target) for target in question["targets"]]:
                return question["id"]
        raise KeyError((name, event))

    def happen(self, name: str, event: str) -> None:
        """Ask what an event asks for, and what follows from it; take the answers over."""
        self._follow([self.question(name, event)])

    def _follow(self, asked: list[int]) -> None:
        while asked:
            number = asked.pop()
            question = self.questions[number]
            data = [
                None if self.parts[each]["type"] == "state" else self.values[each]
                for each in question["inputs"]
            ]
            answer = self.ask(number, data)
            for each, value in zip(question["outputs"], answer, strict=True):
                if not isinstance(value, dict) or value.get("__type__") != "update":
                    self.values[each] = value
                elif "value" in value:
                    self.values[each] = value["value"]
            asked += [n for n, q in self.questions.items() if q.get("trigger_after") == number]

    def ask(self, number: int, data: list[Any]) -> list[Any]:
        """The answer to a question, with whatever is given."""
        body = {"data": data, "fn_index": number, "session_hash": self.session}
        if self.questions[number]["queue"] is False:
            return self._sent(self.http.post("/gradio_api/run/predict", json=body)).json()["data"]
        self._sent(self.http.post("/gradio_api/queue/join", json=body))
        listening = {"session_hash": self.session}
        with self.http.stream("GET", "/gradio_api/queue/data", params=listening) as stream:
            for line in stream.iter_lines():
                said = json.loads(line[5:]) if line.startswith("data:") else {}
                if said.get("msg") == "process_completed":
                    if not said["success"]:
                        raise Failed(str(said["output"]))
                    return said["output"]["data"]
        raise Failed("the stream ended without an answer")

    def draw(self, strokes: np.ndarray) -> None:
        """Strokes, uint8 ``[H, W, 4]``, on the canvas."""
        drawing = uuid.uuid4().hex
        self._sent(self.send_layer(png(strokes), drawing))
        self.set("sketch", {"id": drawing})
        self.happen("sketch", "change")

    def send_layer(self, content: bytes, drawing: str, index: str = "0") -> httpx.Response:
        fields = {
            **{"id": drawing, "type": "layer", "index": index, "fn_name": "accept_blobs"},
            **{"component_id": str(self.part("sketch")), "session_hash": self.session},
        }
        files = {"file": ("layer_0.png", content)}
        return self.http.post("/gradio_api/component_server/", data=fields, files=files)

    def drop(self, content: bytes, name: str) -> None:
        """A file on the page."""
        self.set("file", self.upload(content, name))
        self.happen("file", "change")

    def upload(self, content: bytes, name: str) -> dict[str, Any]:
        files = {"files": (name, content)}
        [path] = self._sent(self.http.post("/gradio_api/upload", files=files)).json()
        return file_of(path)

    @staticmethod
    def _sent(response: httpx.Response) -> httpx.Response:
        if response.status_code != 200:
            raise Failed(f"{response.status_code}: {response.text[:300]}")
        return response


def _asked_at_first(question: dict[str, Any]) -> bool:
    return question["backend_fn"] and any(event == "load" for _, event in question["targets"])


def file_of(path: Any) -> dict[str, Any]:
    """A file as requests name it."""
    return {"path": path, "orig_name": "digit.png", "meta": {"_type": "gradio.FileData"}}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
