"""Networks in a file: what comes back, what the file says, and what is refused."""

import hashlib
import json
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from capsjax import models, weights
from capsjax.models import capsnet, efficient_capsnet
from capsjax.models.published import Form, Model
from tests.conftest import bare
from tests.testing import own_routing
from tests.training.small import assert_same_bits, parameters

CAPSNET = capsnet.Config(
    features=4, kernel_size=3, primary_types=2, hidden=(6,), decoder_widths=(8,)
)
EFFICIENT = efficient_capsnet.Config(features=(4, 4, 4, 8), decoder_widths=(8,))
IMAGE = (20, 20, 1)


def narrow(name: str = "capsnet", config: Any = CAPSNET) -> Any:
    """A network with numbers drawn by NumPy: nothing is compiled."""
    make = partial(models.create, name, config=config, image_shape=IMAGE, num_classes=3)
    graph, state = nnx.split(nnx.eval_shape(make))
    random = np.random.default_rng(0)
    values = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), state)
    return nnx.merge(graph, values)


@pytest.fixture(scope="module")
def network() -> Any:
    """To be read only."""
    return narrow()


@pytest.fixture(scope="module")
def saved(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "capsnet.safetensors"
    weights.save(path, network, metadata={"error": 0.0026, "note": "ü"})
    return path


def content(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata by the format's own reader."""
    with safetensors.safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def rewritten(saved: Path, path: Path, *, arrays: dict[str, Any], **values: Any) -> Path:
    """The file with other content and a checksum that is right; None leaves something out."""
    before, texts = content(saved)
    after = {key: value for key, value in {**before, **arrays}.items() if value is not None}
    values = {key: json.dumps(value) for key, value in values.items() if value is not None}
    texts = {**texts, **values}
    del texts["sha256"]
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name in sorted(after):
        array = np.ascontiguousarray(after[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    texts["sha256"] = json.dumps(digest.hexdigest())
    path.write_bytes(safetensors.numpy.save(after, texts))
    return path


# What comes back


def assert_same(found: Any, expected: Any) -> None:
    """Both are the same network, to the last bit: they compute the same."""
    assert_same_bits(parameters(found), parameters(expected))
    assert nnx.graphdef(found) == nnx.graphdef(expected)
    assert type(found) is type(expected)
    assert found.config == expected.config


def test_what_was_saved_comes_back_to_the_bit(network: Any, saved: Path) -> None:
    assert_same(weights.load(saved), network)


def test_running_statistics_come_back_and_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "efficient.safetensors"
    network = narrow("efficient_capsnet", EFFICIENT)
    weights.save(path, network)
    assert_same(weights.load(path), network)
    names = {f"normalisations.{number}.{kind}" for number in range(4) for kind in ("mean", "var")}
    assert set(weights.read_metadata(path)["statistics"]) == names
    assert names < set(content(path)[0])


def test_float64_parameters_keep_their_bits_under_x64_alone(tmp_path: Path, network: Any) -> None:
    path = tmp_path / "wide.safetensors"
    graph, state = nnx.split(network)
    with jax.enable_x64(True):
        values = jax.tree.map(lambda x: np.asarray(x, np.float64) * (1 + 1e-12), state)
        wide = nnx.merge(graph, values)
        weights.save(path, wide)
        found: Any = weights.load(path)
        assert found.convolution.kernel[...].dtype == jnp.float64
        assert_same_bits(parameters(found), parameters(wide))
    narrower: Any = weights.load(path)
    assert narrower.convolution.kernel[...].dtype == jnp.float32
    # What was added is less than a unit in float32's last place.
    assert_same_bits(parameters(narrower), parameters(network))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_weights_take_half_the_room_and_load_as_float32(
    tmp_path: Path, network: Any, saved: Path, dtype: Any
) -> None:
    path = tmp_path / "half.safetensors"
    weights.save(path, network, dtype=dtype)
    arrays, _ = content(path)
    assert {str(array.dtype) for array in arrays.values()} == {dtype}
    full = sum(array.nbytes for array in content(saved)[0].values())
    assert sum(array.nbytes for array in arrays.values()) * 2 == full
    loaded: Any = weights.load(path)
    found = loaded.convolution.kernel[...]
    assert found.dtype == jnp.float32
    # Rounded to the nearest of 8 or 11 significant bits.
    kernel = np.asarray(network.convolution.kernel[...])
    step = {"bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
    assert 0 < np.max(np.abs(found - kernel) / np.abs(kernel)) <= step


def changed(network: Any, **attributes: Any) -> Any:
    """A copy with other attributes."""
    copy = nnx.merge(*nnx.split(network))
    for name, value in attributes.items():
        setattr(copy, name, value)
    return copy


def test_numbers_that_are_not_finite_come_back_and_too_large_ones_are_refused(
    tmp_path: Path, network: Any
) -> None:
    path = tmp_path / "odd.safetensors"
    odd = changed(network)
    odd.convolution.bias = nnx.Param(np.array([np.inf, -np.inf, np.nan, 70_000.0], np.float32))
    # Columns first in memory, which is not how a file has them.
    odd.primary.kernel = nnx.Param(np.asfortranarray(odd.primary.kernel[...]))
    weights.save(path, odd)
    assert_same_bits(parameters(weights.load(path)), parameters(odd))
    with pytest.raises(ValueError, match=r"convolution\.bias holds 70000.0, which is too large"):
        weights.save(path, odd, dtype="float16")
    weights.save(path, odd, dtype="bfloat16")


def test_a_routing_of_one_s_own_survives_by_its_module_s_name(tmp_path: Path, network: Any) -> None:
    routing = own_routing.Config(sharpness=2.5)
    own = changed(network, config=replace(CAPSNET, routing=routing))
    weights.save(tmp_path / "own.safetensors", own)
    found: Any = weights.load(tmp_path / "own.safetensors")
    assert found.config.routing == routing
    described = weights.read_metadata(tmp_path / "own.safetensors")["config"]["routing"]
    assert described == {"algorithm": "tests.testing.own_routing", "sharpness": 2.5}


class Dropping(nnx.Module):
    """A network with a random state, which no file holds."""

    def __init__(self, config: Any, *, image_shape: Any, num_classes: int, rngs: nnx.Rngs):
        self.config, self.image_shape, self.num_classes = config, image_shape, num_classes
        self.dense = nnx.Linear(3, num_classes, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(dropout=1))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dropout(self.dense(x))


def test_random_states_are_not_stored_and_are_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = Form("mnist", EFFICIENT, IMAGE, 3, 12)
    monkeypatch.setitem(models.MODELS, "dropping", Model(Dropping, EFFICIENT, "", (form,)))
    path = tmp_path / "dropping.safetensors"
    network: Any = models.create("dropping", num_classes=3)
    weights.save(path, network)
    assert set(content(path)[0]) == {"dense.kernel", "dense.bias"}
    found: Any = weights.load(path)
    stream, expected = found.dropout.rngs, network.dropout.rngs
    keys = [jax.random.key_data(each.key[...]).tolist() for each in (stream, expected)]
    assert keys[0] == keys[1]
    assert stream.count[...] == expected.count[...] == 0
    assert nnx.graphdef(found) == nnx.graphdef(network)


# What the file says


@pytest.mark.core
def test_names_are_dotted_paths_and_metadata_says_what_it_is(saved: Path) -> None:
    arrays, texts = content(saved)
    assert {name: array.shape for name, array in arrays.items()} == {
        "convolution.kernel": (3, 3, 1, 4),
        "convolution.bias": (4,),
        "primary.kernel": (3, 3, 4, 16),
        "primary.bias": (16,),
        # 20x20 images leave 18x18, then 8x8 for each of 2 types.
        "hidden.0.votes.weights": (8, 6, 16, 128),
        "classes.votes.weights": (16, 3, 16, 6),
        "decoder.layers.0.kernel": (48, 8),
        "decoder.layers.0.bias": (8,),
        "decoder.layers.1.kernel": (8, 400),
        "decoder.layers.1.bias": (400,),
    }
    assert json.loads(texts["model"]) == "capsnet"
    assert json.loads(texts["config"])["routing"]["algorithm"] == "dynamic"
    assert json.loads(texts["image_shape"]) == [20, 20, 1]
    assert json.loads(texts["num_classes"]) == 3
    found = weights.read_metadata(saved)
    assert found["metadata"] == {"error": 0.0026, "note": "ü"}
    assert found["statistics"] == []
    assert found["capsjax"].count(".") == 2


def test_a_name_is_found_by_the_config_where_networks_share_a_class(
    tmp_path: Path, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(models.find("capsnet"), config=CAPSNET)
    monkeypatch.setitem(models.MODELS, "narrow", other)
    path = tmp_path / "narrow.safetensors"

    def name(saved: Any, **options: Any) -> str:
        weights.save(path, saved, **options)
        return weights.read_metadata(path)["model"]

    assert name(network) == "narrow"
    assert name(network, name="capsnet") == "capsnet"
    assert name(changed(network, config=replace(CAPSNET, features=5))) == "capsnet"


# What is refused


@pytest.mark.parametrize("share", [0, 1e-4, 0.01, 0.1, 0.5, 0.99, 1 - 1e-6])
def test_a_truncated_file_is_a_value_error(tmp_path: Path, saved: Path, share: float) -> None:
    data = saved.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"cut\.safetensors is .*damaged.*anew"):
        weights.load(path)


def test_a_flipped_bit_anywhere_is_a_value_error(tmp_path: Path, saved: Path) -> None:
    data = saved.read_bytes()
    (header,) = struct.unpack("<Q", data[:8])
    path = tmp_path / "flipped.safetensors"
    random = np.random.default_rng(0)
    in_data = [8 + header, len(data) - 1, *random.integers(8 + header, len(data), 8)]
    # Blanks that fill the header up are no part of it: another blank is none the worse.
    said = [at for at in range(8 + header) if at < 8 or data[at : at + 1] != b" "]
    for at in (*random.choice(said, 150, replace=False), *in_data):
        damaged = bytearray(data)
        damaged[at] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"flipped\.safetensors is"):
            weights.load(path)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a missing array": ({"arrays": {"primary.bias": None}}, "primary.bias is missing"),
    "an unknown one": ({"arrays": {"more": np.zeros(2)}}, "more is unknown"),
    "a mis-shaped one": (
        {"arrays": {"primary.bias": np.zeros((4, 4), np.float32)}},
        r"primary.bias has shape \(4, 4\), expected \(16,\)",
    ),
    "many": (
        {"arrays": {f"more{number}": np.zeros(2) for number in range(8)}},
        "more4 is unknown and 3 more",
    ),
    "another format": ({"format": "capsjax weights 2"}, "format .*expected .*capsjax weights 1"),
    "an unknown model": ({"model": "capsnets"}, "unknown model 'capsnets', expected one of: caps"),
    "a field of another version": ({"config": {"colour": 1}}, "by capsjax 9.9.*fields: colour"),
    "a config that is none": ({"config": [1]}, r"by capsjax 9\.9.*expected an object"),
    "a value of another version": ({"config": {"padding": "CIRCULAR"}}, "(?s)padding.*CIRCULAR"),
    "a routing that is gone": (
        {"config": {"routing": {"algorithm": "no.such"}}},
        "unknown routing 'no.such'",
    ),
    "images that are none": ({"image_shape": [20, 20]}, "by capsjax 9.9"),
    "images that are too small": ({"image_shape": [3, 3, 1]}, "images of 3x3 are smaller"),
    "another count of classes": ({"num_classes": 4}, "classes.votes.weights has shape"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_does_not_fit_is_refused_with_the_reason(
    tmp_path: Path, saved: Path, what: str
) -> None:
    changes, said = REFUSED[what]
    path = tmp_path / "changed.safetensors"
    rewritten(saved, path, **{"arrays": {}, "capsjax": "9.9", **changes})
    with pytest.raises(ValueError, match=said):
        weights.load(path)


def test_files_of_others_and_no_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3)}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="but not one of capsjax"):
        weights.load(path)
    safetensors.numpy.save_file({"x": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="but not one of capsjax"):
        weights.read_metadata(path)
    path.write_text("PK")
    with pytest.raises(ValueError, match="is no safetensors file"):
        weights.load(path)
    with pytest.raises(FileNotFoundError):
        weights.load(tmp_path / "nowhere.safetensors")


def test_networks_and_options_that_no_file_can_hold_are_refused(
    tmp_path: Path, network: Any
) -> None:
    path = tmp_path / "none.safetensors"
    with pytest.raises(ValueError, match=r"Linear is none of the networks .*capsnet"):
        weights.save(path, nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="name is 'efficient_capsnet', but the network is: capsn"):
        weights.save(path, network, name="efficient_capsnet")
    with pytest.raises(ValueError, match="unknown model 'x'"):
        weights.save(path, network, name="x")
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        bare(weights.save)(path, network, dtype="int8")
    with pytest.raises(ValueError, match="metadata cannot be written as JSON"):
        weights.save(path, network, metadata={"x": object()})
    for value, said in ((frozenset("a"), "cannot be written"), ([8], "does not come back")):
        strange = replace(CAPSNET)
        object.__setattr__(strange, "decoder_widths", value)
        with pytest.raises(ValueError, match=f"{said}.* JSON"):
            weights.save(path, changed(network, config=strange))
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, network: Any) -> None:
    path = tmp_path / "kept.safetensors"
    weights.save(path, network)
    before = path.read_bytes()
    # What is written to it goes to a device without room.
    (tmp_path / "kept.safetensors.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        weights.save(path, network, dtype="float16")
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["kept.safetensors"]
    weights.save(path, network, dtype="float16")
    assert path.read_bytes() != before
