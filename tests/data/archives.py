"""Small archives in the official formats, written from their descriptions alone."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from capsjax.data import mnist_like, smallnorb
from capsjax.data.archives import Archive


def idx(array: np.ndarray) -> bytes:
    """IDX of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return b"\0\0\x08" + bytes([array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def norb(array: np.ndarray) -> bytes:
    """NORB's binary matrix."""
    code = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[str(array.dtype)]
    head = [code, array.ndim, *array.shape, *[1] * (3 - array.ndim)]
    return b"".join(number.to_bytes(4, "little") for number in head) + array.tobytes()


def write_mnist_like(folder: Path, archives: dict[str, Archive], random: np.random.Generator):
    """Twelve images to train and five to test, as four archives; returns the arrays."""
    folder.mkdir(parents=True)
    arrays = {}
    for split, count in (("train", 12), ("test", 5)):
        arrays[f"{split}_image"] = random.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        arrays[f"{split}_label"] = random.integers(0, 10, count).astype(np.uint8)
    for key, archive in archives.items():
        (folder / archive.name).write_bytes(gzip.compress(idx(arrays[key])))
    return arrays


def write_kmnist(folder: Path, random: np.random.Generator) -> dict[str, np.ndarray]:
    """KMNIST's four archives."""
    return write_mnist_like(folder / "kmnist", mnist_like.KMNIST_ARCHIVES, random)


def write_cifar10(folder: Path, batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """The binary version: for each member images ``[N, 32, 32, 3]`` and labels."""
    path = folder / "cifar10" / "cifar-10-binary.tar.gz"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, (images, labels) in batches.items():
            content = b"".join(
                bytes([label]) + b"".join(image[..., channel].tobytes() for channel in range(3))
                for image, label in zip(images, labels, strict=True)
            )
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_svhn(path: Path, images: np.ndarray, digits: np.ndarray) -> None:
    """A MATLAB file: images ``[N, 32, 32, 3]``, digits 0 to 9, of which 0 is stored as 10."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
    scipy.io.savemat(path, {"X": np.moveaxis(images, 0, -1), "y": stored})


def write_smallnorb(folder: Path, parts: dict[str, dict[str, np.ndarray]]) -> None:
    """The six archives: for each split ``dat``, ``cat`` and ``info``."""
    (folder / "smallnorb").mkdir(parents=True)
    for key, archive in smallnorb.ARCHIVES.items():
        split, part = key.split("_")
        content = gzip.compress(norb(parts[split][part]))
        (folder / "smallnorb" / archive.name).write_bytes(content)


def write_coil20(folder: Path, images: np.ndarray) -> None:
    """A .zip of PNGs: images ``[20, 72, 128, 128]``."""
    path = folder / "coil20" / "coil-20-proc.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for thing, views in enumerate(images, 1):
            for view, pixels in enumerate(views):
                content = io.BytesIO()
                Image.fromarray(pixels).save(content, "PNG", compress_level=1)
                archive.writestr(f"coil-20-proc/obj{thing}__{view}.png", content.getvalue())
