"""TFDS builders under official names and versions, prepared without TensorFlow.

TFDS's own generators open their files through TensorFlow; these read the archives themselves and
leave everything else (features, splits, versions, file layout) to the official builder. Only
``coil20`` has none: its features follow TFDS's ``coil100``.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.image_classification import cifar as official_cifar
from tensorflow_datasets.image_classification import mnist as official_mnist

from capsjax.data import cifar10, coil20, mnist, mnist_like, smallnorb, svhn, toy_norb
from capsjax.data.archives import Archive, collect
from capsjax.data.dataset import Arrays

Read = Callable[[Mapping[str, Path], str], Arrays]


class _Prepared:
    """What all of them share: archives, one reader, examples made of arrays."""

    ARCHIVES: Mapping[str, Archive] = {}
    SPLITS: tuple[str, ...] = ("train", "test")

    def __init__(self, *, unverified: bool = False, **kwargs: Any):
        self.unverified = unverified
        parent: Any = super()
        parent.__init__(file_format=tfds.core.FileFormat.ARRAY_RECORD, **kwargs)

    def _split_generators(self, dl_manager: Any) -> list[tfds.core.SplitGenerator]:
        paths = self.archives(dl_manager.download)
        return [
            tfds.core.SplitGenerator(name=split, gen_kwargs={"paths": paths, "split": split})
            for split in self.SPLITS
        ]

    def _generate_examples(
        self, paths: Mapping[str, Path], split: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        arrays = self.read(paths, split)
        for index in range(len(arrays["label"])):
            yield index, self.example(arrays, index, split)

    def archives(self, download: Callable[[str], Any]) -> Mapping[str, Path]:
        """Paths of the archives, checked."""
        name: str = self.name  # type: ignore[attr-defined]
        return collect(name, self.ARCHIVES, download, unverified=self.unverified)

    def read(self, paths: Mapping[str, Path], split: str) -> Arrays:
        """A split's arrays."""
        raise NotImplementedError

    def example(self, arrays: Arrays, index: int, split: str) -> dict[str, Any]:
        """An example's official features."""
        del split
        return {"image": _picture(arrays["image"][index]), "label": int(arrays["label"][index])}


def _picture(pixels: np.ndarray) -> Image.Image:
    # TFDS encodes a PIL image by itself, but an array only through TensorFlow.
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _norb_features(arrays: Arrays, index: int) -> dict[str, Any]:
    left, right = np.moveaxis(arrays["image"][index], -1, 0)
    return {
        "image": Image.fromarray(left),
        "image2": Image.fromarray(right),
        "label_category": int(arrays["label"][index]),
        "instance": int(arrays["instance"][index]),
        "label_azimuth": int(arrays["azimuth"][index]) // 20,
        "label_elevation": (int(arrays["elevation"][index]) - 30) // 5,
        "label_lighting": int(arrays["lighting"][index]),
    }


class Mnist(_Prepared, official_mnist.MNIST, skip_registration=True):  # type: ignore[call-arg]
    """TFDS's ``mnist``, made from the embedded archives."""

    name = "mnist"

    def archives(self, download: Callable[[str], Any]) -> Mapping[str, Path]:
        """None are needed from elsewhere."""
        del download
        return {}

    def read(self, paths: Mapping[str, Path], split: str) -> Arrays:
        """A split's arrays."""
        del paths
        return mnist.read(split)


class FashionMnist(
    _Prepared,
    official_mnist.FashionMNIST,
    skip_registration=True,  # type: ignore[call-arg]
):
    """TFDS's ``fashion_mnist``."""

    name = "fashion_mnist"
    ARCHIVES = mnist_like.FASHION_ARCHIVES
    read = staticmethod(mnist_like.read)


class Kmnist(_Prepared, official_mnist.KMNIST, skip_registration=True):  # type: ignore[call-arg]
    """TFDS's ``kmnist``."""

    name = "kmnist"
    ARCHIVES = mnist_like.KMNIST_ARCHIVES
    read = staticmethod(mnist_like.read)


class Cifar10(_Prepared, official_cifar.Cifar10, skip_registration=True):  # type: ignore[call-arg]
    """TFDS's ``cifar10``."""

    name = "cifar10"
    ARCHIVES = cifar10.ARCHIVES
    read = staticmethod(cifar10.read)

    def _split_generators(self, dl_manager: Any) -> list[tfds.core.SplitGenerator]:
        self.info.features["label"].names = list(cifar10.CLASS_NAMES)
        return super()._split_generators(dl_manager)

    def example(self, arrays: Arrays, index: int, split: str) -> dict[str, Any]:
        """An example's official features."""
        return {"id": f"{split}_{index:05d}", **super().example(arrays, index, split)}


class SvhnCropped(
    _Prepared,
    tfds.builder_cls("svhn_cropped"),  # type: ignore[misc]
    skip_registration=True,  # type: ignore[call-arg]
):
    """TFDS's ``svhn_cropped``."""

    name = "svhn_cropped"
    ARCHIVES = svhn.ARCHIVES
    SPLITS = ("train", "test", "extra")
    read = staticmethod(svhn.read)

    def example(self, arrays: Arrays, index: int, split: str) -> dict[str, Any]:
        """An example's official features."""
        return {"id": f"{split}_{index:06d}", **super().example(arrays, index, split)}


class Smallnorb(
    _Prepared,
    tfds.builder_cls("smallnorb"),  # type: ignore[misc]
    skip_registration=True,  # type: ignore[call-arg]
):
    """TFDS's ``smallnorb``."""

    name = "smallnorb"
    ARCHIVES = smallnorb.ARCHIVES
    read = staticmethod(smallnorb.read)

    def example(self, arrays: Arrays, index: int, split: str) -> dict[str, Any]:
        """An example's official features."""
        del split
        return _norb_features(arrays, index)


class Coil20(_Prepared, tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """COIL-20, with features as in TFDS's ``coil100``."""

    name = "coil20"
    VERSION = tfds.core.Version("1.0.0")
    ARCHIVES = coil20.ARCHIVES
    SPLITS = ("train",)

    def _info(self) -> tfds.core.DatasetInfo:
        angles = [str(angle) for angle in range(0, 360, coil20.STEP)]
        return tfds.core.DatasetInfo(
            builder=self,
            description="Twenty objects on a turntable, a view every 5 degrees.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(128, 128, 1)),
                    "angle_label": tfds.features.ClassLabel(names=angles),
                    "object_id": tfds.features.ClassLabel(names=list(coil20.CLASS_NAMES)),
                    "angle": np.int64,
                }
            ),
            supervised_keys=("image", "object_id"),
            homepage="https://www.cs.columbia.edu/CAVE/software/softlib/coil-20.php",
        )

    def read(self, paths: Mapping[str, Path], split: str) -> Arrays:
        """A split's arrays."""
        arrays = coil20.read(paths, split)
        if not self.unverified:
            coil20.check(arrays)
        return arrays

    def example(self, arrays: Arrays, index: int, split: str) -> dict[str, Any]:
        """An example's features."""
        del split
        angle = int(arrays["azimuth"][index])
        return {
            "image": _picture(arrays["image"][index]),
            "angle_label": angle // coil20.STEP,
            "object_id": int(arrays["label"][index]),
            "angle": angle,
        }


class ToyNorb(_Prepared, tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The rendered viewpoint benchmark, with features as in TFDS's ``smallnorb`` and its pose."""

    name = "toy_norb"
    VERSION = tfds.core.Version("1.0.0")
    SIDE = 48

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(self.SIDE, self.SIDE, 1))
        label = tfds.features.ClassLabel
        return tfds.core.DatasetInfo(
            builder=self,
            description="Toys of five categories from all sides, rendered by capsjax.",
            features=tfds.features.FeaturesDict(
                {
                    "image": image,
                    "image2": image,
                    "label_category": label(names=list(toy_norb.CATEGORIES)),
                    "instance": label(num_classes=toy_norb.INSTANCES),
                    "label_azimuth": label(num_classes=len(toy_norb.AZIMUTHS)),
                    "label_elevation": label(num_classes=len(toy_norb.ELEVATIONS)),
                    "label_lighting": label(num_classes=len(toy_norb.LIGHTINGS)),
                    "pose": tfds.features.Tensor(shape=(len(toy_norb.POSE),), dtype=np.float32),
                }
            ),
            supervised_keys=("image", "label_category"),
        )

    def archives(self, download: Callable[[str], Any]) -> Mapping[str, Path]:
        """None: it is rendered."""
        del download
        return {}

    def read(self, paths: Mapping[str, Path], split: str) -> Arrays:
        """A split's arrays."""
        del paths
        halves = {"train": toy_norb.TRAIN_INSTANCES, "test": toy_norb.TEST_INSTANCES}
        return toy_norb.render_all(self.SIDE, instances=halves[split], progress=True)

    def example(self, arrays: Arrays, index: int, split: str) -> dict[str, Any]:
        """An example's features."""
        del split
        one = {key: value[index : index + 1] for key, value in arrays.items()}
        return {**_norb_features(arrays, index), "pose": toy_norb.pose(one)[0]}


class ToyNorb96(ToyNorb, skip_registration=True):  # type: ignore[call-arg]
    """The same with 96 x 96 pixels."""

    name = "toy_norb_96"
    SIDE = 96


BUILDERS: dict[str, Any] = {
    builder.name: builder
    for builder in (
        Mnist,
        FashionMnist,
        Kmnist,
        Cifar10,
        SvhnCropped,
        Smallnorb,
        Coil20,
        ToyNorb,
        ToyNorb96,
    )
}
