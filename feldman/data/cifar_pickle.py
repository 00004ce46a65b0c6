"""The pickles of CIFAR's python version, read without running anything that they name.

A pickle is a program: it may call whatever it can import. These files need a dict of texts, lists, numbers and one array of
bytes, so nothing is imported for them: the three NumPy names that they hold get stand-ins that only keep what they are told,
and every other name is refused. The array is then made here, of bytes whose number has been compared with its shape.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feldman.errors import DatasetError

__all__ = ["as_bytes_array", "read_cifar_pickle"]


class _Arguments:
    """What the pickle calls one of the three names with, and the state that it then sets. Does nothing with either."""

    __slots__ = ("arguments", "state")

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _ArrayArguments(_Arguments):
    __slots__ = ()


class _DtypeArguments(_Arguments):
    __slots__ = ()


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _ArrayArguments,
    ("numpy", "ndarray"): _ArrayArguments,
    ("numpy", "dtype"): _DtypeArguments,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> type[_Arguments]:
        if (module_name, global_name) not in _STAND_INS:
            raise _ForbiddenNameError(f"{module_name}.{global_name}")
        return _STAND_INS[module_name, global_name]


class _ForbiddenNameError(pickle.UnpicklingError):
    """The pickle asks for a name that the original files do not hold."""


def read_cifar_pickle(content: bytes, where: str) -> dict[str, Any]:
    """Read a pickle of texts, numbers, lists and arrays of bytes; nothing that it names is imported or run.

    Parameters
    ----------
    content
        The file.
    where
        Names it in messages.

    Returns
    -------
    dict
        By text key. Arrays are left to `as_bytes_array`.

    Raises
    ------
    DatasetError
        If it asks for anything else, is cut short, or holds no dict.
    """
    try:
        # The originals are of Python 2: their texts are bytes.
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except _ForbiddenNameError as error:
        raise DatasetError(
            f"{where} is refused: it asks for {error}, which no CIFAR file holds and which was not run; "
            "somebody made it for another purpose. Fetch the original"
        ) from None
    except Exception as error:  # a program that is cut short may stumble in any way
        raise DatasetError(
            f"{where} is no pickle, damaged or cut short ({type(error).__name__}: {error}); fetch it again"
        ) from None
    if not isinstance(found, dict):
        raise DatasetError(f"{where} must hold a dict, as CIFAR's python version does; found a {type(found).__name__}")
    return {key.decode("latin-1") if isinstance(key, bytes) else str(key): value for key, value in found.items()}


def as_bytes_array(value: object, where: str) -> NDArray[np.uint8]:
    """Make the array that a pickle describes.

    Parameters
    ----------
    value
        As `read_cifar_pickle` returned it.
    where
        Names it in messages.

    Raises
    ------
    DatasetError
        If it is no array of unsigned bytes, or holds another number of them than its shape says.
    """
    if not isinstance(value, _ArrayArguments):
        raise DatasetError(f"{where} must be an array of unsigned bytes; found a {type(value).__name__}")
    match value.state:
        case (_, tuple(shape), _DtypeArguments(arguments=(b"u1" | "u1", *_)), fortran, bytes(data)) if all(
            type(size) is int and size >= 0 for size in shape
        ):
            pass
        case _:
            raise DatasetError(f"{where} must be an array of unsigned bytes; found one of another type")
    expected = int(np.prod([1, *shape], dtype=object))
    if len(data) != expected:
        raise DatasetError(
            f"{where} says it holds {expected} bytes, but has {len(data)}: it is damaged; fetch it again"
        )
    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")
