"""Files that somebody else made: each is refused by name or read; none writes, none hangs."""

import contextlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from capsjax import data, pretrained, serial, weights
from capsjax.data import affnist, files, readers
from capsjax.explorer.images import uploaded
from capsjax.models import MODELS
from capsjax.training import Config, metric_log, run
from capsjax.training.settings import Settings, read_settings
from tests.fuzz.opening import EXAMPLES, cut_or_changed, hostile_files, read_coil20, refused
from tests.fuzz.test_calls import TIMES
from tests.test_weights import narrow

MNIST = SimpleNamespace(dataset="mnist", shape_of_data=(28, 28, 1))
DEEP = "[" * 100_000 + "]" * 100_000
SHAPE = (28, 28, 1)


@pytest.fixture(scope="module")
def network_file(folder: Path) -> Path:
    path = folder / "network.safetensors"
    weights.save(path, narrow())
    return path


@hostile_files
@given(st.data())
def test_damaged_weights_are_refused(folder, network_file, data):
    content = network_file.read_bytes()
    path = folder / "damaged.safetensors"
    damaged = data.draw(cut_or_changed(content))
    path.write_bytes(damaged)
    assert refused(weights.load, path) or damaged == content
    assert refused(pretrained.load, path)


def header(values: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = values if isinstance(values, bytes) else json.dumps(values).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS = {
    "nothing": b"",
    "a header longer than the file": header({}, length=2**40),
    "the longest header": header({}, length=2**64 - 1),
    "no JSON": header(b"{'a': 1}"),
    "a list": header([1, 2]),
    "nested": header(DEEP.encode()),
    "offsets that overlap": header({"a": TENSOR, "b": TENSOR}, bytes(8)),
    "offsets beyond the end": header({"a": {**TENSOR, "data_offsets": [0, 2**40]}}, bytes(8)),
    "offsets in the wrong order": header({"a": {**TENSOR, "data_offsets": [8, 0]}}, bytes(8)),
    "a shape of another size": header({"a": {**TENSOR, "shape": [2**40]}}, bytes(8)),
    "a negative shape": header({"a": {**TENSOR, "shape": [-2]}}, bytes(8)),
    "an unknown dtype": header({"a": {**TENSOR, "dtype": "PICKLE"}}, bytes(8)),
    "a name twice": header(b'{"a":%b,"a":%b}' % ((json.dumps(TENSOR).encode(),) * 2), bytes(8)),
    "metadata that is no text": header({"__metadata__": {"format": 1}}),
    "no metadata": header({"a": TENSOR}, bytes(8)),
}


@pytest.mark.parametrize("name", HEADERS)
def test_no_header_of_weights_is_taken_on_trust(tmp_path, name):
    path = tmp_path / "a.safetensors"
    path.write_bytes(HEADERS[name])
    for read in (weights.load, weights.read_metadata, pretrained.load, pretrained.describe):
        assert refused(read, path)


JSON_TEXTS = st.one_of(
    st.sampled_from([DEEP, '{"a":' * 5000 + "1" + "}" * 5000, "NaN", '"\\ud800"', "1e999", "{"]),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
    ).map(json.dumps),
)


@settings(hostile_files, max_examples=EXAMPLES * TIMES // 2)
@given(st.data())
def test_metadata_with_a_right_checksum_is_not_taken_on_trust_either(folder, network_file, data):
    with safetensors.safe_open(network_file, framework="numpy") as file:
        texts, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    names = ["format", "model", "config", "image_shape", "num_classes", "statistics", "metadata"]
    name = data.draw(st.sampled_from(names))
    before, text = texts.get(name), data.draw(JSON_TEXTS)
    texts[name] = text
    texts["sha256"] = json.dumps(weights._checksum(texts, arrays))
    path = folder / "forged.safetensors"
    safetensors.numpy.save_file(arrays, path, texts)
    given_again = name in ("statistics", "metadata") or _same(text, before)
    assert refused(weights.load, path) or given_again
    assert refused(pretrained.load, path)


def _same(text: str, before: str | None) -> bool:
    """Whether what was drawn is what had been there."""
    with contextlib.suppress(ValueError, RecursionError):
        return before is not None and json.loads(text) == json.loads(before)
    return False


def valid_settings() -> dict[str, Any]:
    model = MODELS["capsnet"].config
    return serial.to_json(Settings("capsnet", "mnist", model, Config(), SHAPE, ("a", "b")))


def places_of(values: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(values, dict):
        return [path]
    inner = [place for key, value in values.items() for place in places_of(value, (*path, key))]
    return [path, *inner] if path else inner


def with_value(values: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    if len(path) == 1:
        return {**values, path[0]: value}
    return {**values, path[0]: with_value(values[path[0]], path[1:], value)}


@hostile_files
@given(st.data())
def test_a_config_of_a_run_is_refused_or_makes_settings(folder, data):
    (folder / "run").mkdir(exist_ok=True)
    place = data.draw(st.sampled_from(places_of(valid_settings())))
    text = data.draw(JSON_TEXTS)
    with contextlib.suppress(ValueError, RecursionError):  # the whole file cannot be read then
        text = json.dumps(with_value(valid_settings(), place, json.loads(text)))
    (folder / "run" / "config.json").write_text(text)
    if not refused(read_settings, folder / "run"):
        hash(read_settings(folder / "run"))
    assert refused(run.load, folder / "run")  # it has no checkpoints


@hostile_files
@given(JSON_TEXTS, st.binary(max_size=20))
def test_metrics_are_refused_or_objects_with_a_step(folder, text, junk):
    path = folder / "metrics.jsonl"
    line = b'{"step": 1, "split": "train"}\n'
    path.write_bytes(line + text.encode() + b"\n" + junk + b"\n" + line)
    if not refused(metric_log.read, path):
        assert all(isinstance(entry["step"], int) for entry in metric_log.read(path))


OPENERS: dict[str, Callable[[Path], Any]] = {
    "read_image": files.read_image,
    "uploaded": lambda path: uploaded(path, MNIST),
    "weights.load": weights.load,
    "weights.read_metadata": weights.read_metadata,
    "pretrained.load": pretrained.load,
    "pretrained.find": pretrained.find,
    "read_idx": readers.read_idx,
    "read_norb": readers.read_norb,
    "read_cifar10": readers.read_cifar10,
    "read_svhn": readers.read_svhn,
    "read_matlab": lambda path: readers.read_matlab(path, ("X",)),
    "read_affnist": affnist.read_affnist,
    "read_coil20": read_coil20,
    "npz": data.find,
    "run.load": run.load,
    "read_settings": read_settings,
}


@pytest.mark.parametrize("name", OPENERS)
def test_nothing_waits_for_a_pipe_and_no_name_is_too_odd(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "loop.npz").symlink_to(tmp_path / "loop.npz")
    odd = ["pipe.npz", "folder.npz", "loop.npz", "not there", "a\nb", "-rf", "é\u202e", "x" * 5000,
           "zero\0byte", "../../nowhere", "CON"]  # fmt: skip
    for path in odd:
        assert refused(OPENERS[name], tmp_path / path), path


@pytest.mark.parametrize("name", ["a\nb", "-rf", "é\u202e", " ", "a" * 200])
def test_weights_are_written_where_they_were_asked_for(tmp_path, network_file, name):
    path = tmp_path / f"{name}.safetensors"
    weights.save(path, weights.load(network_file))
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    assert weights.read_metadata(path)["num_classes"] == 3
