"""A user's own arrays: an ``.npz`` file, or a folder of ``.npy`` files opened memory-mapped."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feldman.data.dataset import Dataset, as_labels
from feldman.errors import DatasetError, listed

__all__ = ["load_arrays"]

PARTS = ("x_train", "y_train", "x_test", "y_test")


def load_arrays(path: str | None) -> Dataset:
    """Load ``x_train, y_train, x_test, y_test``, and ``class_names`` if they are there.

    ``x`` may have any shape and any integer or float type; bytes (uint8) are scaled to 0 .. 1, everything else is taken
    as it is. Labels are integers from 0; the number of classes is the largest label plus 1 unless ``class_names`` says
    more. Nothing is unpickled.

    Raises
    ------
    DatasetError
        If there is no such file or folder, an array is missing or unreadable, or the arrays do not fit.
    """
    if path is None:
        raise DatasetError("dataset 'arrays' needs dataset.path: an .npz file, or a folder of .npy files")
    where = Path(path)
    if where.is_dir():
        arrays = _from_folder(where)
    elif where.exists():
        arrays = _from_npz(where)
    else:
        raise DatasetError(f"dataset.path = '{path}' does not exist")
    labels = {part: as_labels(arrays[part], part) for part in ("y_train", "y_test")}
    if any(len(y) == 0 for y in labels.values()):
        raise DatasetError("y_train and y_test must hold at least one label each")
    num_classes = 1 + max(int(y.max()) for y in labels.values())
    names = [str(name) for name in arrays["class_names"]] if "class_names" in arrays else []
    names = names or [str(label) for label in range(num_classes)]
    return Dataset(
        name="arrays",
        x_train=arrays["x_train"],
        y_train=labels["y_train"],
        x_test=arrays["x_test"],
        y_test=labels["y_test"],
        class_names=tuple(names),
        scale=1 / 255 if arrays["x_train"].dtype == np.uint8 else 1.0,
    )


def _from_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if isinstance(archive, np.ndarray):
                raise DatasetError(f"{path} holds one array; expected an .npz file with {listed(PARTS)}")
            _check_present(list(archive.files), path)
            return {name: archive[name] for name in archive.files if name in (*PARTS, "class_names")}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{path} cannot be read as .npz: {_reason(error)}") from None


def _from_folder(folder: Path) -> dict[str, NDArray[np.generic]]:
    _check_present([file.stem for file in folder.glob("*.npy")], folder)
    arrays = {}
    for name in (*PARTS, "class_names"):
        file = folder / f"{name}.npy"
        if file.exists():
            try:
                arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DatasetError(f"{file} cannot be read as .npy: {_reason(error)}") from None
    return arrays


def _check_present(found: list[str], where: Path) -> None:
    missing = [part for part in PARTS if part not in found]
    if missing:
        raise DatasetError(f"{where} lacks {listed(missing)}; it holds {listed(sorted(found)) or 'nothing'}")


def _reason(error: BaseException) -> str:
    text = str(error)
    return "it holds Python objects, which are not read" if "pickle" in text.lower() else text
