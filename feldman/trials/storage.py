"""What the operating system refuses, as an error that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from feldman.errors import StorageError
from feldman.trials.locations import Location

__all__ = ["storage_errors"]


@contextmanager
def storage_errors(path: Location) -> Iterator[None]:
    """Turn what the operating system refuses into an error that a user can act on.

    Raises
    ------
    StorageError
        For any `OSError` inside.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write to {path}: {error.strerror or error}; what is committed is safe: "
            "make room or mend the permissions, then run the same command again"
        ) from error
