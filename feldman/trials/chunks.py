"""Decode a chunk of the trial store: Blosc, then a crc32c, as `feldman.trials.layout` writes them.

Zarr reads the same chunks. Decoding them here takes a third of its time, and threads share it: estimates read tens of thousands.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numcodecs import blosc
from numpy.typing import NDArray

from feldman.trials.locations import Location

__all__ = ["read_chunk"]

_CRC_BYTES = 4
_HEADER_BYTES = 16
"""Of Blosc: how many bytes there were, how many a block, and how many there are, in the last three times four."""


def read_chunk(path: Location, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read one chunk, whole: also what lies beyond the array's end.

    Parameters
    ----------
    path
        Its file, or object.
    shape, dtype
        Of the chunk grid.

    Returns
    -------
    ndarray
        Read-only.

    Raises
    ------
    ValueError
        If it is missing, or is not what was written; the text says which.
    StorageError
        If an object store does not answer: that says nothing about the chunk.
    """
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError("is missing") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    content = memoryview(raw)[:-_CRC_BYTES]
    if len(raw) <= _CRC_BYTES or crc32c(bytes(content)) != int.from_bytes(raw[-_CRC_BYTES:], "little"):
        raise ValueError("cannot be decoded: its checksum differs from its content")
    sizes = [int.from_bytes(content[start : start + 4], "little") for start in (4, 12)]
    if len(content) < _HEADER_BYTES or sizes != [math.prod(shape) * dtype.itemsize, len(content)]:
        raise ValueError("cannot be decoded: it is no chunk of this size")  # Blosc believes what is written there
    try:
        return np.frombuffer(blosc.decompress(content), dtype).reshape(shape)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"cannot be decoded: {error}") from None
