"""How a data set that is memory-mapped reaches the workers: as names of files where they see them, else as plain arrays.

A memory map is an ndarray of a kind of its own, which pickle copies into its stream: every worker would hold a copy of the data
set. Workers on the same machine open the file instead, and the system's cache holds it once; on a cluster the plain array goes
into Ray's object store, once a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feldman.data.dataset import Dataset
from feldman.errors import DatasetError

__all__ = ["MappedDataset", "for_workers"]


@dataclass(frozen=True, kw_only=True)
class MappedFile:
    """A ``.npy`` file as it was when the data set was loaded."""

    path: str
    num_bytes: int
    changed_ns: int


@dataclass(frozen=True, kw_only=True)
class MappedDataset:
    """A data set on its way to another process of this machine: some of its arrays are files still to be mapped."""

    values: Mapping[str, Any]
    files: Mapping[str, MappedFile]

    def open(self) -> Dataset:
        """Map the files.

        Raises
        ------
        DatasetError
            If one is gone, or no longer what it was.
        """
        return Dataset(**self.values, **self._maps())

    def _maps(self) -> dict[str, Any]:
        return {name: _opened(file) for name, file in self.files.items()}


def for_workers(dataset: Dataset, *, same_machine: bool) -> Dataset | MappedDataset:
    """Return a data set in the form in which workers shall get it.

    Parameters
    ----------
    dataset
        The data set.
    same_machine
        Whether they see the same files.
    """
    maps = {
        field.name: getattr(dataset, field.name)
        for field in fields(dataset)
        if isinstance(getattr(dataset, field.name), np.memmap)
    }
    if not maps:
        return dataset
    files = {name: file for name, array in maps.items() if same_machine and (file := _whole_file(array)) is not None}
    plain: dict[str, Any] = {name: np.asarray(array) for name, array in maps.items() if name not in files}
    if not files:
        return replace(dataset, **plain)
    values = {field.name: getattr(dataset, field.name) for field in fields(dataset) if field.name not in files}
    return MappedDataset(values=values | plain, files=files)


def _whole_file(array: np.memmap[Any, Any]) -> MappedFile | None:
    """Return the file that a map shows from beginning to end; None where it is part of one, or a file without a head."""
    try:
        path = Path(str(array.filename))
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        state = path.stat()
    except (OSError, ValueError, EOFError):
        return None
    same = ("shape", "dtype", "strides", "offset")
    if not isinstance(found, np.memmap) or any(getattr(found, name) != getattr(array, name) for name in same):
        return None
    return MappedFile(path=str(path), num_bytes=state.st_size, changed_ns=state.st_mtime_ns)


def _opened(file: MappedFile) -> NDArray[np.generic]:
    path = Path(file.path)
    try:
        state = path.stat()
        if (state.st_size, state.st_mtime_ns) != (file.num_bytes, file.changed_ns):
            raise DatasetError(f"{path} has changed since the run began; put it back as it was, and resume")
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {path}, which the run learns from: {error}") from None
    return array
