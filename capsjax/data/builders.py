"""TFDS builders under official names and versions, prepared without TensorFlow.

TFDS's own generators open their files through TensorFlow; these read the archives themselves and
leave everything else (features, splits, versions, checks, file layout) to the official builder.
"""

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.image_classification import mnist as official

from capsjax.data import mnist


class Mnist(official.MNIST, skip_registration=True):  # type: ignore[call-arg]
    """TFDS's ``mnist``, made from the embedded archives."""

    name = "mnist"

    def __init__(self, **kwargs: Any):
        super().__init__(file_format=tfds.core.FileFormat.ARRAY_RECORD, **kwargs)

    def _split_generators(self, dl_manager: Any) -> list[tfds.core.SplitGenerator]:
        del dl_manager
        return [
            tfds.core.SplitGenerator(name=split, gen_kwargs={"split": split})
            for split in mnist.ARCHIVES
        ]

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        arrays = mnist.read(split)
        pairs = zip(arrays["image"], arrays["label"], strict=True)
        for index, (image, label) in enumerate(pairs):
            # TFDS encodes a PIL image by itself, but an array only through TensorFlow.
            yield index, {"image": Image.fromarray(image[..., 0]), "label": int(label)}


BUILDERS = {"mnist": Mnist}
