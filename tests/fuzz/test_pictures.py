"""Pictures, arrays and archives of others: refused or read, nothing unpickled, nothing written."""

import gzip
import io
import struct
import subprocess
import tarfile
import zipfile
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from capsjax import data
from capsjax.data import coil20, files, readers
from capsjax.explorer.images import uploaded
from tests.fuzz.opening import cut_or_changed, hostile_files, read_coil20, refused

MNIST = SimpleNamespace(dataset="mnist", shape_of_data=(28, 28, 1))


def picture(kind: str, mode: str = "L", size: tuple[int, int] = (30, 20), **options: Any) -> bytes:
    buffer = io.BytesIO()
    random = np.random.default_rng(0).integers(0, 255, (size[1], size[0])).astype(np.uint8)
    image = Image.fromarray(random)
    image = Image.new(mode, size) if mode == "F" else image.convert(mode)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(side: int) -> bytes:
    """A PNG that says to have so many rows, and holds none."""
    content = bytearray(picture("PNG"))
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


PICTURES = {
    "grey.png": picture("PNG"),
    "sixteen.png": picture("PNG", "I;16"),
    "palette.png": picture("PNG", "P"),
    "bits.png": picture("PNG", "1"),
    "cmyk.jpg": picture("JPEG", "CMYK"),
    "float.tif": picture("TIFF", "F"),
    "one.png": picture("PNG", size=(1, 1)),
    "long.png": picture("PNG", size=(3000, 1)),
    "frames.gif": picture("GIF", save_all=True, append_images=[Image.new("L", (30, 20), 9)] * 200),
    "bomb.png": bomb(60_000),
    "larger bomb.png": bomb(2**31 - 1),
    "smaller bomb.png": bomb(10_000),
    "no rows.png": bomb(0),
    "empty.png": b"",
    "text.png": b"<svg onload=alert(1)>",
    "program.png": b"%!PS\n(/etc/passwd) (r) file",
}
READ_IMAGE = (files.read_image, lambda path: uploaded(path, MNIST))


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("read", READ_IMAGE, ids=["read_image", "uploaded"])
def test_odd_pictures_are_refused_or_pixels(tmp_path, name, read):
    path = tmp_path / name
    path.write_bytes(PICTURES[name])
    if "bomb" in name or name.startswith(("empty", "text", "program", "no rows")):
        assert refused(read, path)
    elif not refused(read, path):
        found = read(path)
        pixels = getattr(found, "image", found)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3


@hostile_files
@given(st.sampled_from(["grey.png", "cmyk.jpg", "float.tif", "frames.gif"]), st.data())
def test_damaged_pictures_are_refused_or_pixels(folder, name, data):
    path = folder / name
    path.write_bytes(data.draw(cut_or_changed(PICTURES[name])))
    for read in READ_IMAGE:
        refused(read, path)


@pytest.mark.parametrize("read", READ_IMAGE, ids=["read_image", "uploaded"])
def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch, read):
    started = []

    def start(command, *_, **__):
        started.append(command)
        raise OSError(2, "a program was started")

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    path = tmp_path / "digit.png"
    path.write_bytes(picture("EPS"))
    with pytest.raises(OSError, match="was started"), Image.open(path) as picture_of_pillow:
        picture_of_pillow.load()
    started.clear()
    with pytest.raises(ValueError, match=r"digit\.png .*PNG, JPEG"):
        read(path)
    assert started == []


NPZ_OBJECT = io.BytesIO()
np.savez(NPZ_OBJECT, image=np.array([print, {}], object), label=np.array([0, 1]))


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "../"), content)
    return buffer.getvalue()


def npy(shape: str, dtype: str = "|u1") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"


ARRAYS = {
    "pickled": NPZ_OBJECT.getvalue(),
    "a size that no memory holds": npz(**{"image.npy": npy(f"({2**50},)")}),
    "a negative size": npz(**{"image.npy": npy("(-1, 8, 8)")}),
    "a size of text": npz(**{"image.npy": npy("('a',)")}),
    "code for a shape": npz(**{"image.npy": npy("(__import__('os').getpid(),)")}),
    "no arrays": npz(a=b"text"),
    "names from elsewhere": npz(**{"__image.npy": b"x"}),
    "no archive": b"PK\x03\x04",
    "one array": npy("(3,)") + b"abc",
}


@pytest.mark.parametrize("name", ARRAYS)
def test_odd_arrays_are_refused_and_nothing_is_unpickled(tmp_path, name):
    path = tmp_path / "mine.npz"
    path.write_bytes(ARRAYS[name])
    assert refused(data.find, path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["mine.npz"]


def tarred(member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


ARCHIVES = {
    "above": tarred(tarfile.TarInfo("../data_batch_1.bin"), bytes(10)),
    "absolute": b"",  # in the test's own folder
    "a link out": tarred(link("data_batch_1.bin", "/etc/passwd")),
    "a hard link out": tarred(link("test_batch.bin", "/etc/passwd", tarfile.LNKTYPE)),
    "a link to itself": tarred(link("data_batch_1.bin", "data_batch_1.bin")),
    "a device": tarred(link("data_batch_1.bin", "", tarfile.CHRTYPE)),
    "a pipe": tarred(link("data_batch_1.bin", "", tarfile.FIFOTYPE)),
    "no archive": b"\x1f\x8b" + bytes(30),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_write_nothing_anywhere(tmp_path, name):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    absolute = tarfile.TarInfo(str(tmp_path / "elsewhere" / "data_batch_1.bin"))
    (inside / "cifar.tar.gz").write_bytes(ARCHIVES[name] or tarred(absolute, bytes(10)))
    assert refused(readers.read_cifar10, inside / "cifar.tar.gz")
    found = [str(item.relative_to(tmp_path)) for item in sorted(tmp_path.rglob("*"))]
    assert found == ["a", "a/b", "a/b/cifar.tar.gz"]


@pytest.mark.parametrize("name", ["idx", "norb", "cifar10"])
def test_archives_unfold_to_no_more_than_a_bound(tmp_path, monkeypatch, name):
    contents = {
        "idx": gzip.compress(b"\0\0\x08\x01" + (9000).to_bytes(4, "big") + bytes(9000)),
        "norb": gzip.compress(struct.pack("<6i", 0x1E3D4C55, 1, 9000, 1, 1, 0)[:20] + bytes(9000)),
        "cifar10": tarred(tarfile.TarInfo("test_batch.bin"), bytes(3073 * 3)),
    }
    path = tmp_path / "official.gz"
    path.write_bytes(contents[name])
    monkeypatch.setattr(readers, "_LARGEST", 8000)
    with pytest.raises(
        ValueError, match=r"official\.gz unfolds to more than 8,000 bytes, expected"
    ):
        getattr(readers, f"read_{name}")(path)


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("obj1__0.png", content)
    return buffer.getvalue()


VIEWS = {
    "a bomb of bytes": zipped(picture("PNG") + bytes(2_000_000)),
    "a bomb of pixels": zipped(bomb(60_000)),
    "a smaller one": zipped(bomb(10_000)),
    "another format": zipped(picture("GIF")),
    "no image": zipped(b"abc"),
    "one view": zipped(picture("PNG")),
    "no archive": b"PK\x03\x04",
}


@pytest.mark.parametrize("name", VIEWS)
def test_archives_of_views_are_refused_by_name(tmp_path, name):
    path = tmp_path / "coil-20-proc.zip"
    path.write_bytes(VIEWS[name])
    with pytest.raises(ValueError, match=r"coil-20-proc\.zip (is not a readable|holds 1 views)"):
        coil20.read({"all": path}, "train")
    assert refused(read_coil20, path)


@hostile_files
@given(st.data())
def test_damaged_archives_of_views_are_refused(folder, data):
    path = folder / "coil.zip"
    path.write_bytes(data.draw(cut_or_changed(VIEWS["one view"])))
    assert refused(read_coil20, path)


@hostile_files
@given(st.sampled_from([readers.read_idx, readers.read_norb, readers.read_svhn]), st.binary())
def test_readers_refuse_what_is_not_their_format(folder, read, content):
    path = folder / "official"
    path.write_bytes(content)
    assert refused(read, path)
    path.write_bytes(gzip.compress(content))
    assert refused(read, path)
