"""Event files for TensorBoard, read back by the format's own definition."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from capsjax import models
from capsjax.models import capsnet
from capsjax.training import Config, fit
from capsjax.training.events import Events

TINY = capsnet.Config(features=2, kernel_size=11, primary_types=1, class_dim=4, decoder=False)


def _events(folder: Path) -> list[event_pb2.Event]:
    """Records are a length, its check sum, so many bytes, and theirs."""
    found = []
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
            at += length + 16
    return found


def _scalars(folder: Path) -> list[tuple[int, str, float]]:
    return [
        (event.step, value.tag, value.simple_value)
        for event in _events(folder)
        for value in event.summary.value
    ]


def test_a_training_writes_what_its_history_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = {
        "image": rng.integers(0, 256, (24, 28, 28, 1), np.uint8),
        "label": np.arange(24) % 10,
    }
    network = models.create("capsnet", image_shape=(28, 28, 1), num_classes=10, config=TINY)
    config = Config(epochs=2, batch_size=8, validation=8)
    result = fit(network, data, config, workdir=tmp_path, tensorboard=True)
    expected = [
        (entry["step"], f"{entry['split']}/{name}", np.float32(value))
        for entry in result.history
        for name, value in entry.items()
        if name not in ("step", "split")
    ]
    assert expected
    assert _scalars(tmp_path / "tensorboard") == expected


def test_going_on_takes_back_what_came_after(tmp_path: Path) -> None:
    first = Events(tmp_path)
    first.resume(0)
    first.write([{"step": step, "split": "train", "loss": 1.0} for step in (1, 2, 3)])
    first.close()
    again = Events(tmp_path)
    again.resume(2)
    again.write([{"step": 3, "split": "train", "loss": 0.5}])
    again.close()
    starts = [
        event.step
        for event in _events(tmp_path)
        if event.session_log.status == event_pb2.SessionLog.START
    ]
    assert starts == [3]
    assert _scalars(tmp_path)[-1] == (3, "train/loss", 0.5)


def test_without_tensorboardx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"pip install 'capsjax\[tensorboard\]'"):
        Events(Path("nowhere"))


def test_without_a_workdir_it_says_so() -> None:
    data = {"image": np.zeros((24, 28, 28, 1), np.uint8), "label": np.arange(24) % 10}
    network = models.create("capsnet", image_shape=(28, 28, 1), num_classes=10, config=TINY)
    with pytest.raises(ValueError, match="need a workdir"):
        fit(network, data, Config(epochs=1, batch_size=8, validation=8), tensorboard=True)
