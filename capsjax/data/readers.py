"""Readers of official file formats, which TFDS has only on top of TensorFlow."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

_IDX_UINT8 = 0x08


def check_sha256(path: Path, expected: str) -> None:
    """Refuse a file whose content is not the expected one.

    Args:
        path: the file.
        expected: its SHA-256 in hexadecimal.

    Raises:
        ValueError: the checksum differs (both are named).
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is corrupt or truncated: its SHA-256 is {found}, expected {expected}; "
            "replace the file (for one that came with capsjax, reinstall the package)"
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
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a complete gzip file ({error}); replace it") from error
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
