"""Zarr on an object store: errors that a user can act on, writes that are guarded, groups that are there whole or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import MemoryStore, ObjectStore, StorePath

from feldman.errors import RunDirectoryError
from feldman.trials.locations import ChangedMeanwhileError, Location, ObjectPath, object_errors

__all__ = ["built_object_group", "zarr_place"]

_GROUP = "zarr.json"


def zarr_place(location: Location) -> Path | StorePath:
    """Return what Zarr opens for a group or array at a place."""
    return location if isinstance(location, Path) else StorePath(_GuardedStore(location), location.key)


class _GuardedStore(ObjectStore[Any]):
    """Zarr's store of a bucket, whose writes call the guard of a place."""

    def __init__(self, location: ObjectPath, *, read_only: bool = False) -> None:
        super().__init__(location.store, read_only=read_only)
        self._location = location

    def with_read_only(self, read_only: bool = False) -> _GuardedStore:
        return type(self)(self._location, read_only=read_only)

    def _named(self, key: str) -> ObjectPath:
        return ObjectPath(store=self._location.store, bucket=self._location.bucket, key=key)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        with object_errors(self._named(key)):
            return await super().get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        with object_errors(self._named(key)):
            return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        self._location.guard()
        with object_errors(self._named(key), writing=True):
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        self._location.guard()
        with object_errors(self._named(key), writing=True):
            await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        self._location.guard()
        with object_errors(self._named(key), writing=True):
            await super().delete(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:  # type: ignore[override]  # Zarr's own is no coroutine either
        with object_errors(self._named(prefix)):
            async for name in super().list_dir(prefix):
                yield name


@contextmanager
def built_object_group(location: ObjectPath) -> Iterator[MemoryStore]:
    """Yield a store in memory to build a small group in; left without an error, it appears at ``location``.

    An object store renames nothing: the group's own metadata, by which it is known, are written last.

    Raises
    ------
    StorageError
        If the storage refuses.
    RunDirectoryError
        If a group has come into being there meanwhile.
    """
    built: dict[str, Buffer] = {}
    yield MemoryStore(built)
    with ThreadPoolExecutor() as threads:
        others = [key for key in built if key != _GROUP]
        list(threads.map(lambda key: (location / key).write_bytes(built[key].to_bytes()), others))
    try:
        (location / _GROUP).create(built[_GROUP].to_bytes())
    except ChangedMeanwhileError:
        raise RunDirectoryError(f"'{location}' has come into being meanwhile, and is left as it is") from None
