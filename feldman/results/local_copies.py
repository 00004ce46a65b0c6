"""Tables of an object store, as files: Parquet and SQL read files, and the sandbox of queries has no network."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from feldman.errors import StorageError
from feldman.trials.locations import Location, ObjectInfo, ObjectPath
from feldman.trials.storage import storage_errors

__all__ = ["building_file", "local_copy"]

_KEPT_SECONDS = 3600
"""So long an older copy of a table is left to processes that may be reading it."""


def local_copy(location: Location) -> Path:
    """Return a file with the content of a table: itself, or a copy of the object as it is now, downloaded once.

    Copies lie below the system's folder for temporary files, in one of this user's own that nobody else can enter.

    Raises
    ------
    FileNotFoundError
        If there is no such table.
    StorageError
        If the storage refuses, or the folder of copies is not this user's.
    """
    if isinstance(location, Path):
        return location
    info = location.info()
    if info is None:
        raise FileNotFoundError(str(location))
    folder = _own_folder()
    copy = folder / _copy_name(location, info)
    if copy.exists():
        return copy
    with _partial(folder) as building:
        with storage_errors(folder), building.open("xb") as file:
            info = location.download(file)  # by now it may be another one
        copy = folder / _copy_name(location, info)
        building.replace(copy)
    for older in folder.glob(f"{_copy_name(location)}*"):
        with suppress(OSError):  # another process was faster
            if older != copy and time.time() - older.stat().st_mtime > _KEPT_SECONDS:
                older.unlink()
    return copy


@contextmanager
def building_file(location: Location) -> Iterator[Path]:
    """Yield the name of a file to write; left without an error it appears at ``location``, whole. Gone in any case.

    Raises
    ------
    StorageError
        If the storage refuses.
    """
    if isinstance(location, ObjectPath):
        with _partial(_own_folder()) as building:
            yield building
            location.upload(building)
        return
    with _partial(location.parent, f".{location.name}.") as building:
        yield building
        with building.open("rb") as written:
            os.fsync(written.fileno())
        building.replace(location)


@contextmanager
def _partial(folder: Path, prefix: str = "") -> Iterator[Path]:
    building = folder / f"{prefix}{uuid.uuid4().hex[:8]}.partial"
    try:
        yield building
    finally:
        building.unlink(missing_ok=True)


def _copy_name(location: ObjectPath, info: ObjectInfo | None = None) -> str:
    """Return the name of a copy; without ``info``, what those of all contents begin with."""
    place = hashlib.sha256(str(location).encode()).hexdigest()[:16]
    if info is None:
        return f"{place}-"
    content = hashlib.sha256(repr(info).encode()).hexdigest()[:16]
    return f"{place}-{content}-{location.name}"


def _own_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"feldman-tables-{os.getuid()}"
    with storage_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StorageError(
            f"'{folder}' is not a folder of this user's alone; remove it, or set TMPDIR to another folder"
        )
    return folder
