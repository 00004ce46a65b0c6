"""Street View House Numbers (Y. Netzer et al., 2011), cropped digits: two MATLAB files.

``X`` is uint8 [32, 32, 3, example], ``y`` the digit shown, [example, 1], where 10 stands for 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from feldman.data.dataset import Dataset, as_labels
from feldman.data.places import cache_folder, download, is_there, searched_folders
from feldman.errors import DatasetError, listed

__all__ = ["load_svhn"]

FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}

# Mean and standard deviation of each channel's values (0 to 255) in the 73,257 training images, rounded: declared constants.
MEANS = (111.61, 113.16, 120.57)
STDS = (50.50, 51.26, 50.24)


def load_svhn(root: str | None) -> Dataset:
    """Load the cropped digits: uint8 [example, 32, 32, 3], classes 0 to 9.

    Looked for, and downloaded, as `feldman.data.cifar.load_cifar` has it.

    Raises
    ------
    DatasetError
        If a file is nowhere to be found, cut short, or holds something else.
    """
    folder = _find(root)
    x_train, y_train = _read(folder / FILES["train"])
    x_test, y_test = _read(folder / FILES["test"])
    return Dataset(
        name="svhn",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=tuple(str(digit) for digit in range(10)),
        shift=MEANS,
        scale=tuple(1 / std for std in STDS),
    )


def _read(path: Path) -> tuple[UInt8[np.ndarray, "example 32 32 3"], Int64[np.ndarray, " example"]]:
    from scipy.io import loadmat

    if not path.exists():
        raise DatasetError(f"{path.parent} lacks {path.name}; svhn needs {listed(FILES.values())}")
    try:
        found = loadmat(path, variable_names=["X", "y"])
    except PermissionError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # a file that is damaged makes SciPy stumble in any way
        raise DatasetError(
            f"{path} is no MATLAB file of version 5, damaged or cut short ({type(error).__name__}: {error}); fetch it again"
        ) from None
    missing = [name for name in ("X", "y") if name not in found]
    if missing:
        raise DatasetError(f"{path} lacks {listed(missing)}; expected the images X and the digits y")
    x, y = found["X"], found["y"].reshape(-1)
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape != (32, 32, 3, len(y)) or not len(y):
        raise DatasetError(
            f"{path}: X must be uint8 [32, 32, 3, example] with an example for each of {len(y)} digits in y; "
            f"found {x.dtype} {x.shape}"
        )
    labels = as_labels(y, f"{path}: y")
    if labels.min() < 1 or labels.max() > 10:
        raise DatasetError(
            f"{path}: y must be digits 1 .. 10, where 10 stands for 0; found {labels.min()} .. {labels.max()}"
        )
    return np.ascontiguousarray(x.transpose(3, 0, 1, 2)), labels % 10


def _find(root: str | None) -> Path:
    folders = searched_folders(root, "svhn", tuple(FILES.values()))
    for folder in folders:
        found = [is_there(folder / file) for file in FILES.values()]
        if all(found) or (any(found) and root is not None):
            return folder
    if root is not None:
        raise DatasetError(f"no svhn files under dataset.root = '{root}'; expected {' and '.join(FILES.values())}")
    return _download(folders)


def _download(looked_in: list[Path]) -> Path:
    from torchvision.datasets import SVHN

    target = cache_folder() / "svhn"
    try:
        for part, file in FILES.items():
            url, _, md5 = SVHN.split_list[part]
            if not (target / file).exists():
                download(url, md5, target)
    except (OSError, RuntimeError) as error:
        raise DatasetError(
            f"svhn was not found in {listed(map(str, looked_in))} and could not be downloaded ({error}); put "
            f"{' and '.join(FILES.values())} in a folder and set dataset.root to it, or connect to the network"
        ) from None
    return target
