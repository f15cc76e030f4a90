"""The real affNIST, read from its MATLAB files (Tieleman 2013).

MNIST's digits under affine transformations on 40 x 40 pixels. The files have to be at hand: the
page https://www.cs.toronto.edu/~tijmen/affNIST says where they are. What ``affine_mnist`` makes is
like them, but another data set.
"""

from pathlib import Path

import numpy as np

from capsjax.data.dataset import Arrays, check_arrays
from capsjax.data.readers import read_matlab

SIZE = 40
_STRUCT, _FIELDS = "affNISTdata", ("image", "label_int")


def read_affnist(path: str | Path) -> Arrays:
    """Images and labels of one ``.mat`` file of affNIST.

    Such a file has a struct ``affNISTdata`` whose field ``image``, uint8 ``[1600, N]``, holds an
    image in each column, pixel after pixel. Readers disagree about whether pixels go down first, as
    MATLAB has it, or across; here images are turned so that the ones among them stand upright, and
    without ones pixels go down first.

    Args:
        path: a file in the format of MATLAB 5, such as ``test.mat``.

    Returns:
        ``{"image": uint8 [N, 40, 40, 1], "label": int32 [N]}``.

    Raises:
        ValueError: it is no such file.
        OSError: the file cannot be read.
    """
    path = Path(path)
    struct = read_matlab(path, (_STRUCT,))[_STRUCT]
    names = getattr(struct, "dtype", np.dtype(float)).names or ()
    if struct.size != 1 or not set(_FIELDS) <= set(names):
        raise ValueError(
            f"{path} has {_STRUCT} with fields {', '.join(names) or 'none'}, expected a struct "
            f"with the fields {', '.join(_FIELDS)}"
        )
    image, label = (struct[name].item() for name in _FIELDS)
    if image.dtype != np.uint8 or image.ndim != 2 or image.shape[0] != SIZE**2:
        raise ValueError(
            f"{path} has images {image.dtype} {image.shape}, expected uint8 ({SIZE**2}, N)"
        )
    label = label.ravel()
    if len(label) == image.shape[1] and np.all(label % 1 == 0):
        label = label.astype(np.int32)  # some releases store whole numbers as doubles
    across = np.ascontiguousarray(image.T).reshape(-1, SIZE, SIZE)
    return check_arrays(
        {"image": np.ascontiguousarray(_upright(across, label)), "label": label}, where=str(path)
    )


def _upright(images: np.ndarray, label: np.ndarray) -> np.ndarray:
    ones = images[label == 1] > 0 if len(label) == len(images) else images[:0]
    rows, columns = ones.any(axis=2).sum(), ones.any(axis=1).sum()
    return images if rows > columns else images.swapaxes(1, 2)
