"""Arrays of an ``.npz`` file, read one at a time. Nothing is ever unpickled: a file of strangers must not run code."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feldman.errors import InputError

__all__ = ["NpzReader", "open_npz", "why_unreadable"]

_UNREADABLE = (ValueError, EOFError, NotImplementedError, RuntimeError, MemoryError, KeyError,
               zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # fmt: skip
"""What NumPy and the zip library raise at damage, at objects, at passwords, and at a shape that no memory holds."""


class NpzReader:
    """An open ``.npz`` file; made by `open_npz`.

    Attributes
    ----------
    names
        Of its arrays.
    """

    def __init__(self, path: Path, archive: np.lib.npyio.NpzFile, error: type[InputError]) -> None:
        self.names = tuple(archive.files)
        self._path, self._archive, self._error = path, archive, error

    def read(self, name: str) -> NDArray[np.generic]:
        """Read one array into memory.

        Raises
        ------
        InputError
            Of the kind that `open_npz` was told, if it is damaged, holds Python objects or is no array.
        """
        try:
            array = self._archive[name]
        except (OSError, *_UNREADABLE) as error:
            raise self._error(f"{self._path} cannot be read as .npz: {why_unreadable(error, name)}") from None
        if not isinstance(array, np.ndarray):
            raise self._error(f"{self._path} cannot be read as .npz: {name} in it is not an array")
        return array


@contextmanager
def open_npz(path: Path, expected: str, error: type[InputError]) -> Iterator[NpzReader]:
    """Open an ``.npz`` file.

    Parameters
    ----------
    path
        The file.
    expected
        The arrays that it should hold, for messages.
    error
        Raised where it cannot be read.
    """
    with ExitStack() as stack:
        yield NpzReader(path, _opened(path, expected, error, stack), error)


def _opened(path: Path, expected: str, error: type[InputError], stack: ExitStack) -> np.lib.npyio.NpzFile:
    try:
        file = stack.enter_context(path.open("rb"))
        start = file.read(6)
        if start == b"\x93NUMPY":
            raise error(f"{path} holds one array; expected an .npz file with {expected}")
        if not start.startswith(b"PK"):
            raise error(f"{path} cannot be read as .npz: it is not a zip file of arrays, as numpy.savez writes it")
        file.seek(0)
        archive: np.lib.npyio.NpzFile = stack.enter_context(np.load(file, allow_pickle=False))
    except OSError as problem:
        raise error(f"cannot read {path}: {problem.strerror or problem}") from None
    except _UNREADABLE as problem:
        raise error(f"{path} cannot be read as .npz: {why_unreadable(problem)}") from None
    return archive


def why_unreadable(error: BaseException, name: str = "") -> str:
    """Say what is wrong with an array, in words for a user."""
    text = str(error) or type(error).__name__
    if "pickle" in text.lower():
        return f"{f'{name} in it' if name else 'it'} holds Python objects, which are not read"
    return f"{name}: {text}" if name else text
