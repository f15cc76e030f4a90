"""The real affNIST, read from its MATLAB files (Tieleman 2013).

MNIST's digits under affine transformations on 40 x 40 pixels. The files have to be at hand: the
page https://www.cs.toronto.edu/~tijmen/affNIST says where they are. What ``affine_mnist`` makes is
like them, but another data set.
"""

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from capsjax.data.dataset import Arrays, check_arrays

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
    with path.open("rb") as file:
        try:
            content = loadmat(file, variable_names=[_STRUCT])
        except Exception as error:  # SciPy raises many kinds for a file that is not its own
            raise ValueError(
                f"{path} is not a readable MATLAB file ({error}), expected affNIST's, in the "
                "format of MATLAB 5"
            ) from error
    struct = content.get(_STRUCT)
    names = getattr(struct, "dtype", np.dtype(float)).names or ()
    if struct is None or struct.size != 1 or not set(_FIELDS) <= set(names):
        found = "no such variable" if struct is None else f"fields {', '.join(names) or 'none'}"
        raise ValueError(
            f"{path} has {found}, expected a struct {_STRUCT} with the fields {', '.join(_FIELDS)}"
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
