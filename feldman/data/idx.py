"""MNIST and Fashion-MNIST: the idx files, plain or gzipped.

The format (Y. LeCun, C. Cortes, C. Burges, "The MNIST database"): two zero bytes, a type code (0x08 is unsigned byte), the
number of dimensions, each dimension as a big-endian uint32, then the values in C order.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feldman.data.dataset import Dataset
from feldman.data.places import cache_folder, is_there
from feldman.errors import DatasetError

__all__ = ["IDX_DATASETS", "IdxSource", "load_idx_dataset", "read_idx"]

FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


@dataclass(frozen=True, kw_only=True)
class IdxSource:
    """One data set of four idx files: where it is found and what is known of it."""

    name: str
    torchvision_class: str
    system_folder: str
    class_names: tuple[str, ...]
    # Mean and standard deviation of the pixels (0 to 255) of the 60,000 training images, rounded: declared constants.
    mean: float
    std: float


IDX_DATASETS = {
    "mnist": IdxSource(
        name="mnist",
        torchvision_class="MNIST",
        system_folder="/usr/share/datasets/mnist",
        class_names=tuple(str(digit) for digit in range(10)),
        mean=33.32,
        std=78.57,
    ),
    "fashion-mnist": IdxSource(
        name="fashion-mnist",
        torchvision_class="FashionMNIST",
        system_folder="/usr/share/datasets/fashion-mnist",
        class_names=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        mean=72.94,
        std=90.02,
    ),
}  # fmt: skip


def load_idx_dataset(source: IdxSource, root: str | None) -> Dataset:
    """Load a data set from its idx files.

    They are looked for in ``root`` alone if it is given; else under ``$FELDMAN_DATA`` (there, in a folder of the data set's
    name, or where torchvision puts them), then where Debian's package puts them; else torchvision downloads them to
    ``$FELDMAN_DATA`` or ``~/.cache/feldman``.

    Raises
    ------
    DatasetError
        If they are nowhere to be found, cut short, or not idx files.
    """
    folder = _find(source, root)
    arrays = {part: read_idx(_existing(folder, file)) for part, file in FILES.items()}
    for part in ("x_train", "x_test"):
        if arrays[part].ndim != 3:
            raise DatasetError(f"{folder / FILES[part]} must hold [example, height, width]; found {arrays[part].shape}")
    return Dataset(
        name=source.name,
        x_train=arrays["x_train"][..., np.newaxis],
        y_train=arrays["y_train"].astype(np.int64),
        x_test=arrays["x_test"][..., np.newaxis],
        y_test=arrays["y_test"].astype(np.int64),
        class_names=source.class_names,
        shift=source.mean,
        scale=1 / source.std,
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one idx file of unsigned bytes, gzipped if its name ends in ``.gz``.

    Raises
    ------
    DatasetError
        If it cannot be read, is not such a file, or is cut short.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path} is damaged or cut short ({error}); fetch it again") from None
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise DatasetError(f"{path} is not an idx file of unsigned bytes (its first bytes are {content[:4].hex()!r})")
    shape = struct.unpack(f">{content[3]}I", content[4 : 4 + 4 * content[3]])
    expected = int(np.prod(shape))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    if len(values) != expected:
        raise DatasetError(
            f"{path} says it holds {'x'.join(map(str, shape))} = {expected} bytes, but has {len(values)}: "
            "it is cut short or damaged; fetch it again"
        )
    return values.reshape(shape)


def _find(source: IdxSource, root: str | None) -> Path:
    if root is not None:
        folders = _layouts(Path(root), source)
    else:
        own, system = _layouts(cache_folder(), source), Path(source.system_folder)
        folders = [*own, system] if os.environ.get("FELDMAN_DATA") else [system, *own]
    for folder in folders:
        found = [file for file in FILES.values() if _candidates(folder, file)]
        if len(found) == len(FILES) or (found and root is not None):
            return folder
    if root is not None:
        raise DatasetError(
            f"no {source.name} files under dataset.root = '{root}'; expected {FILES['x_train']}[.gz] and its three companions"
        )
    return _download(source, folders)


def _layouts(root: Path, source: IdxSource) -> list[Path]:
    # Named folders first: the files of all such data sets have the same names.
    return [root / source.name, root / source.torchvision_class / "raw", root]


def _candidates(folder: Path, file: str) -> list[Path]:
    return [path for path in (folder / file, folder / f"{file}.gz") if is_there(path)]


def _existing(folder: Path, file: str) -> Path:
    found = _candidates(folder, file)
    if not found:
        raise DatasetError(f"{folder} lacks {file}[.gz]; the data set needs four files: {', '.join(FILES.values())}")
    return found[0]


def _download(source: IdxSource, looked_in: list[Path]) -> Path:
    import torchvision

    target = cache_folder()
    try:
        getattr(torchvision.datasets, source.torchvision_class)(root=str(target), download=True)
    except (OSError, RuntimeError) as error:
        package = f", install Debian's package dataset-{source.name}" if source.name == "fashion-mnist" else ""
        raise DatasetError(
            f"{source.name} was not found in {', '.join(map(str, looked_in))} and could not be downloaded ({error}); "
            f"put its four idx files in a folder and set dataset.root to it{package}, or connect to the network"
        ) from None
    return target / source.torchvision_class / "raw"
