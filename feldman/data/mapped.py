"""How a data set that is memory-mapped reaches the workers: as names of files where they see them, else as plain arrays.

A memory map is an ndarray of a kind of its own, which pickle copies into its stream: every worker would hold a copy of the data
set. Workers on the same machine open the file instead, and the system's cache holds it once; on a cluster the plain array goes
into Ray's object store, once a node. Data too large for that are opened there by a path that every node sees, and each node
makes sure once that it finds the driver's content.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from feldman.data.dataset import Dataset
from feldman.data.digests import file_digest
from feldman.errors import DatasetError

__all__ = ["MappedDataset", "Whereabouts", "check_shareable", "for_workers"]

Whereabouts = Literal["here", "same-path", "elsewhere"]
"""Where workers are: on this machine, on others that see the same files, on others that do not."""


@dataclass(frozen=True, kw_only=True)
class MappedFile:
    """A ``.npy`` file as it was when the data set was loaded; with the digest of its content for other machines."""

    path: str
    num_bytes: int
    changed_ns: int
    digest: str | None


@dataclass(frozen=True, kw_only=True)
class MappedDataset:
    """A data set on its way to another process: some of its arrays are files still to be mapped."""

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


def for_workers(dataset: Dataset, whereabouts: Whereabouts) -> Dataset | MappedDataset:
    """Return a data set in the form in which workers shall get it.

    Parameters
    ----------
    dataset
        The data set.
    whereabouts
        Where they are.

    Raises
    ------
    DatasetError
        As `check_shareable`, if files are to be opened by their paths on other machines.
    """
    if whereabouts == "same-path":
        check_shareable(dataset)
    maps = _maps(dataset)
    by_path = whereabouts != "elsewhere"
    files = {name: file for name, array in maps.items() if by_path and (file := _whole_file(array)) is not None}
    if whereabouts == "same-path":
        files = {name: replace(file, digest=file_digest(Path(file.path))) for name, file in files.items()}
    if not maps:
        return dataset
    plain: dict[str, Any] = {name: np.asarray(array) for name, array in maps.items() if name not in files}
    if not files:
        return replace(dataset, **plain)
    values = {field.name: getattr(dataset, field.name) for field in fields(dataset) if field.name not in files}
    return MappedDataset(values=values | plain, files=files)


def check_shareable(dataset: Dataset) -> None:
    """Refuse to have other machines open a data set's files where it has none.

    Raises
    ------
    DatasetError
        If no array is a whole ``.npy`` file that is memory-mapped here.
    """
    if all(_whole_file(array) is None for array in _maps(dataset).values()):
        raise DatasetError(
            "execution.shared_files = true has every node open the files that are memory-mapped here, but data set "
            f"'{dataset.name}' has none: give a folder of .npy files or what `feldman prepare` makes, whole, or leave it out"
        )


def _maps(dataset: Dataset) -> dict[str, np.memmap[Any, Any]]:
    arrays = {field.name: getattr(dataset, field.name) for field in fields(dataset)}
    return {name: array for name, array in arrays.items() if isinstance(array, np.memmap)}


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
    return MappedFile(path=str(path), num_bytes=state.st_size, changed_ns=state.st_mtime_ns, digest=None)


def _opened(file: MappedFile) -> NDArray[np.generic]:
    path = Path(file.path)
    try:
        if file.digest is not None:
            _check_content(file, path)
        elif (path.stat().st_size, path.stat().st_mtime_ns) != (file.num_bytes, file.changed_ns):
            raise DatasetError(f"{path} has changed since the run began; put it back as it was, and resume")
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {path}, which the run learns from{_on_node(file)}: {error}") from None
    return array


def _check_content(file: MappedFile, path: Path) -> None:
    found = path.stat().st_size
    if found != file.num_bytes:
        what = f"{file.num_bytes:,} bytes were expected, {found:,} found"
    elif (digest := file_digest(path)) != file.digest:
        what = f"SHA-256 {str(file.digest)[:12]}... was expected, {digest[:12]}... found"
    else:
        return
    raise DatasetError(
        f"{path}{_on_node(file)} is not the file that the driver sees: {what}; copy the driver's file there, or leave "
        "execution.shared_files out"
    )


def _on_node(file: MappedFile) -> str:
    return f" on node {socket.gethostname()}" if file.digest is not None else ""
