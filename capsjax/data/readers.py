"""Readers of official file formats, which TFDS has only on top of TensorFlow."""

import gzip
import hashlib
import math
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from capsjax import checks

_IDX_UINT8 = 0x08
_NORB_TYPES = {0x1E3D4C55: "u1", 0x1E3D4C54: "<i4"}
_BROKEN_TAR = (tarfile.TarError, EOFError, zlib.error, LookupError, RecursionError)
_CIFAR_RECORD = 1 + 3 * 32 * 32
# An archive that unfolds to more is a mistake, or made to fill the memory: smallNORB's largest has
# 448 million.
_LARGEST = 1 << 30  # bytes
_CHUNK = 1 << 20


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Refuse a file whose content is not the expected one.

    Args:
        path: the file.
        expected: its SHA-256 in hexadecimal.

    Raises:
        ValueError: the checksum differs (both are named).
        OSError: the file cannot be read.
    """
    found = sha256(checks.regular(path))
    if found != expected:
        raise ValueError(
            f"{path} is corrupt, truncated or another file: its SHA-256 is {found}, expected "
            f"{expected}; replace it"
        )


def read_idx(path: Path) -> np.ndarray:
    """Array of a gzipped IDX file of unsigned bytes (the format of MNIST).

    The header is two zero bytes, the type code, the number of axes, then a big-endian 32-bit size
    for each axis.

    Args:
        path: the ``.gz`` file.

    Returns:
        A uint8 array.

    Raises:
        ValueError: it is no such file, or its length is not what its header says.
        OSError: the file cannot be read.
    """
    content = _unzipped(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _IDX_UINT8:
        raise ValueError(
            f"{path} starts with {content[:4].hex(' ') or 'nothing'}, expected an IDX file of "
            "unsigned bytes (00 00 08 and the number of axes)"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(
            f"{path} ends within its header of {content[3]} axes, after {len(content)} bytes; "
            "replace it"
        )
    shape = np.frombuffer(content[4:start], ">u4")
    if len(content) - start != math.prod(shape.tolist()):
        raise ValueError(
            f"{path} holds {len(content) - start} bytes of data, expected the product of "
            f"{shape.tolist()}; replace it"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_norb(path: Path) -> np.ndarray:
    """Array of a gzipped file in the binary matrix format of NORB (its names end in .mat.gz).

    All numbers are 32-bit little-endian: a code of the type, the number of axes, at least three
    sizes (the last are meaningless for fewer axes), then the data.

    Args:
        path: the ``.gz`` file.

    Returns:
        A uint8 or int32 array.

    Raises:
        ValueError: it is no such file, or its length is not what its header says.
        OSError: the file cannot be read.
    """
    content = _unzipped(path)
    head = np.frombuffer(content[: 4 * (len(content) // 4)], "<i4", count=min(2, len(content) // 4))
    if len(head) < 2 or int(head[0]) not in _NORB_TYPES or not 1 <= int(head[1]) <= 8:
        raise ValueError(
            f"{path} starts with {content[:8].hex(' ') or 'nothing'}, expected a NORB matrix of "
            "bytes (55 4c 3d 1e) or of 32-bit integers (54 4c 3d 1e) and its number of axes"
        )
    axes = int(head[1])
    start = 8 + 4 * max(3, axes)
    if len(content) < start:
        raise ValueError(f"{path} ends within its header, after {len(content)} bytes; replace it")
    shape = np.frombuffer(content, "<i4", count=axes, offset=8).tolist()
    dtype = np.dtype(_NORB_TYPES[int(head[0])])
    if min(shape) < 0 or len(content) - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"{path} holds {len(content) - start} bytes of data, expected {dtype.itemsize} times "
            f"the product of {shape}; replace it"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def read_cifar10(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Both splits of CIFAR-10's binary version.

    Each record is a label and 32 x 32 red, green and blue bytes; the archive holds
    ``data_batch_1.bin`` and so on for training, and ``test_batch.bin``.

    Args:
        path: ``cifar-10-binary.tar.gz``.

    Returns:
        ``{"train": ..., "test": ...}``, each ``image`` uint8 ``[N, 32, 32, 3]`` and ``label`` int32
        ``[N]``, in the archive's order.

    Raises:
        ValueError: it is no such archive, or a member of it is incomplete.
        OSError: the file cannot be read.
    """
    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    try:
        with tarfile.open(checks.regular(path)) as archive:
            members = sorted(archive.getmembers(), key=lambda member: member.name)
            _check_size(sum(member.size for member in members), path)
            for member in members:
                name = member.name.rsplit("/", 1)[-1]
                split = "test" if name == "test_batch.bin" else "train"
                opened = archive.extractfile(member) if name.endswith(".bin") else None
                if opened is not None:
                    parts[split].append(_cifar_records(opened.read(), f"{name} in {path}"))
    # A link to what is not there is a KeyError, one to itself never ends; none leads out of it.
    except (*_BROKEN_TAR, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path} is not a complete .tar.gz archive ({error}); replace it"
        ) from error
    if not parts["train"] or not parts["test"]:
        raise ValueError(
            f"{path} holds {len(parts['train'])} training and {len(parts['test'])} test batches, "
            "expected CIFAR-10's binary version: data_batch_1.bin to data_batch_5.bin and "
            "test_batch.bin"
        )
    splits = {}
    for split, arrays in parts.items():
        records = np.concatenate(arrays)
        pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        splits[split] = {
            "image": np.ascontiguousarray(pixels),
            "label": records[:, 0].astype(np.int32),
        }
    return splits


def _cifar_records(content: bytes, where: str) -> np.ndarray:
    if not content or len(content) % _CIFAR_RECORD:
        raise ValueError(
            f"{where} has {len(content):,} bytes, expected a multiple of {_CIFAR_RECORD:,}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(f"{where} has the label {records[:, 0].max()}, expected 0 to 9")
    return records


def read_svhn(path: Path) -> dict[str, np.ndarray]:
    """A split of SVHN's cropped digits.

    Args:
        path: a MATLAB file with ``X`` uint8 ``[32, 32, 3, N]`` and ``y`` ``[N, 1]``, in which the
            digit 0 is 10.

    Returns:
        ``image`` uint8 ``[N, 32, 32, 3]`` and ``label`` int32 ``[N]`` from 0 to 9.

    Raises:
        ValueError: it is no such file.
        OSError: the file cannot be read.
    """
    content = read_matlab(path, ("X", "y"))
    image, label = content["X"], content["y"].reshape(-1)
    if image.dtype != np.uint8 or image.shape != (32, 32, 3, len(label)):
        raise ValueError(
            f"{path} has X {image.dtype} {image.shape} and y {content['y'].shape}, expected uint8 "
            "(32, 32, 3, N) and (N, 1)"
        )
    if len(label) and not 1 <= label.min() <= label.max() <= 10:
        raise ValueError(f"{path} has labels {label.min()} to {label.max()}, expected 1 to 10")
    images = np.ascontiguousarray(image.transpose(3, 0, 1, 2))
    return {"image": images, "label": (label % 10).astype(np.int32)}


def read_matlab(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Variables of a MATLAB file of version 5.

    Args:
        path: the file.
        names: which variables.

    Returns:
        Their values.

    Raises:
        ValueError: it is no such file, or a variable is missing.
        OSError: the file cannot be read.
    """
    with checks.regular(path).open("rb") as file:
        try:
            content = scipy.io.loadmat(file, variable_names=list(names))
        except Exception as error:  # SciPy raises many types for a damaged file
            raise ValueError(f"{path} is not a readable MATLAB 5 file ({error})") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}, expected {', '.join(names)}")
    return content


def _unzipped(path: Path) -> bytes:
    content = bytearray()
    try:
        with gzip.open(checks.regular(path)) as file:
            while part := file.read(_CHUNK):
                content += part
                _check_size(len(content), path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a complete gzip file ({error}); replace it") from error
    return bytes(content)


def _check_size(size: int, path: Path) -> None:
    if size > _LARGEST:
        raise ValueError(
            f"{path} unfolds to more than {_LARGEST:,} bytes, expected less; replace it"
        )
