"""A user's own arrays: an ``.npz`` file, or a folder of ``.npy`` files opened memory-mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feldman.data.dataset import Dataset, as_labels
from feldman.data.feature_facts import FEATURES, read_facts
from feldman.data.npz import open_npz, why_unreadable
from feldman.errors import DatasetError, listed

__all__ = ["load_arrays"]

PARTS = ("x_train", "y_train", "x_test", "y_test")


def load_arrays(path: str | None) -> Dataset:
    """Load ``x_train, y_train, x_test, y_test``, and ``class_names`` if they are there.

    ``x`` may have any shape and any integer or float type; bytes (uint8) are scaled to 0 .. 1, everything else is taken
    as it is. Labels are integers from 0; the number of classes is the largest label plus 1. Nothing is unpickled. A folder that
    `feldman features` has made tells whose features they are: the data set's ``source``.

    Raises
    ------
    DatasetError
        If there is no such file or folder, an array is missing or unreadable, or the arrays do not fit each other, or what is
        recorded of them.
    """
    if path is None:
        raise DatasetError("dataset 'arrays' needs dataset.path: an .npz file, or a folder of .npy files")
    where = Path(path)
    try:
        if not where.exists():
            raise DatasetError(f"dataset.path = '{path}' does not exist")
        arrays = _from_folder(where) if where.is_dir() else _from_npz(where)
        facts = read_facts(where) if where.is_dir() else None
    except OSError as error:
        raise DatasetError(f"cannot read dataset.path = '{path}': {error.strerror or error}") from None
    labels = {part: as_labels(arrays[part], part) for part in ("y_train", "y_test")}
    for part, y in labels.items():
        if y.ndim != 1:
            raise DatasetError(f"{part} must hold one label an example, in one dimension; found shape {y.shape}")
    if any(len(y) == 0 for y in labels.values()):
        raise DatasetError("y_train and y_test must hold at least one label each")
    if (arrays["x_train"].dtype == np.uint8) != (arrays["x_test"].dtype == np.uint8):
        raise DatasetError(
            "x_train and x_test must both be bytes (uint8, scaled to 0 .. 1) or neither; "
            f"found {arrays['x_train'].dtype} and {arrays['x_test'].dtype}"
        )
    names = _class_names(arrays, labels)
    dataset = Dataset(
        name="arrays",
        x_train=arrays["x_train"],
        y_train=labels["y_train"],
        x_test=arrays["x_test"],
        y_test=labels["y_test"],
        class_names=names,
        scale=1 / 255 if arrays["x_train"].dtype == np.uint8 else 1.0,
        source=None if facts is None else facts.source,
    )
    if facts is not None and dataset.fingerprint != facts.fingerprint:
        raise DatasetError(
            f"the arrays in {where} are not those that {FEATURES} was written for: their content is {dataset.fingerprint[:12]}, "
            f"{facts.fingerprint[:12]} then; make the features anew, or remove {FEATURES} to take the arrays as they are, as a "
            "data set without a source"
        )
    return dataset


def _class_names(arrays: dict[str, NDArray[np.generic]], labels: dict[str, NDArray[np.int64]]) -> tuple[str, ...]:
    if "class_names" in arrays:
        if arrays["class_names"].ndim != 1:
            raise DatasetError(
                f"class_names must be one name a class, in one dimension; found shape {arrays['class_names'].shape}"
            )
        return tuple(str(name) for name in arrays["class_names"])
    largest, num_train = max(int(y.max()) for y in labels.values()), len(labels["y_train"])
    if largest >= num_train:  # told here: so many names might not fit into memory
        raise DatasetError(
            f"labels must be 0 .. number of classes - 1, and every class needs a training example; found the label {largest} "
            f"with {num_train} training examples"
        )
    return tuple(str(label) for label in range(max(largest, 0) + 1))


def _from_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    with open_npz(path, listed(PARTS), DatasetError) as npz:
        _check_present(list(npz.names), path)
        return {name: npz.read(name) for name in npz.names if name in (*PARTS, "class_names")}


def _from_folder(folder: Path) -> dict[str, NDArray[np.generic]]:
    _check_present([file.stem for file in folder.glob("*.npy")], folder)
    arrays = {}
    for name in (*PARTS, "class_names"):
        file = folder / f"{name}.npy"
        if file.exists():
            try:
                arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DatasetError(f"{file} cannot be read as .npy: {why_unreadable(error)}") from None
    return arrays


def _check_present(found: list[str], where: Path) -> None:
    missing = [part for part in PARTS if part not in found]
    if missing:
        raise DatasetError(f"{where} lacks {listed(missing)}; it holds {listed(sorted(found)) or 'nothing'}")
