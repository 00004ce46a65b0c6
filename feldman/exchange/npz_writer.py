"""Write an ``.npz`` file member by member, a slab of rows at a time: what is in it never has to be in memory at once."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

__all__ = ["NpzWriter"]

_BEGINNING_OF_TIME = (1980, 1, 1, 0, 0, 0)
"""What a zip file can say; one date, so that equal arrays make equal files."""


class NpzWriter:
    """Writes an ``.npz`` file that `numpy.load` reads. A context manager.

    Parameters
    ----------
    path
        Of the new file.
    """

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path, "x", allowZip64=True)

    def write(self, name: str, array: NDArray[np.generic]) -> None:
        """Add one array."""
        self.write_slabs(name, array.dtype, array.shape, [array])

    def write_slabs(
        self, name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], slabs: Iterable[NDArray[np.generic]]
    ) -> None:
        """Add one array of ``shape`` as consecutive slabs of its rows."""
        member = zipfile.ZipInfo(f"{name}.npy", _BEGINNING_OF_TIME)
        member.compress_type = zipfile.ZIP_DEFLATED
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        with self._archive.open(member, "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for slab in slabs:
                file.write(np.ascontiguousarray(slab).data)

    def __enter__(self) -> NpzWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._archive.close()
