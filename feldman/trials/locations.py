"""Where a run lies: a folder, or a prefix of an object store. An `ObjectPath` does what trials and results need of a `Path`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias
from urllib.parse import unquote, urlsplit

from feldman.errors import RunDirectoryError, StorageError, listed

if TYPE_CHECKING:  # 40 ms that a local run need not pay for
    from obstore.store import ObjectStore

__all__ = [
    "WRITE_SECONDS",
    "ChangedMeanwhileError",
    "Location",
    "ObjectInfo",
    "ObjectPath",
    "ObjectTag",
    "local_path",
    "location_of",
    "object_errors",
]

RETRY_SECONDS = 60.0
"""How long time-outs, broken connections and errors of the server (5xx) are tried again, with growing pauses."""

_REQUEST_SECONDS = 30.0

WRITE_SECONDS = RETRY_SECONDS + _REQUEST_SECONDS
"""No write that was begun can arrive later: the last attempt begins within the one, and ends within the other."""

_NO_CREDENTIALS = "no credentials were found"
_SCHEMES = ("s3", "gs", "az", "file")
_PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9_.,=+@()!' -]+")


class ChangedMeanwhileError(Exception):
    """A conditional write was refused: the object is there already, is gone, or is no longer the one that was read."""


ObjectTag: TypeAlias = tuple[tuple[str, str], ...]
"""Names one content of an object, for conditional writes: ``e_tag``, and ``version`` where the store has it."""


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """What the server says of an object.

    Attributes
    ----------
    tag
        Which content it has.
    modified
        When it was written, by the server's clock.
    num_bytes
        Its size.
    """

    tag: ObjectTag
    modified: datetime
    num_bytes: int


def _unguarded() -> None:
    """Let every write pass."""


@dataclass(frozen=True, kw_only=True)
class ObjectPath:
    """A key of an object store, with those methods of `pathlib.Path` that a run needs. A "folder" is what its names begin with.

    Every write is whole or not at all, and calls `guard` first, which raises where this process may not write any more.

    Attributes
    ----------
    store
        The bucket. It holds the credentials: nothing here prints or stores them.
    bucket
        Its URL, as in ``s3://bucket``.
    key
        Names joined by slashes.
    guard
        Called before every write.
    """

    store: ObjectStore
    bucket: str
    key: str
    guard: Callable[[], None] = _unguarded

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}".rstrip("/")

    def __repr__(self) -> str:
        return f"ObjectPath('{self}')"

    def __truediv__(self, name: str) -> ObjectPath:
        return replace(self, key=f"{self.key}/{name}".lstrip("/"))

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part of the key, without its suffix."""
        return Path(self.name).stem

    @property
    def parent(self) -> ObjectPath:
        """The folder that it is in."""
        return replace(self, key=self.key.rpartition("/")[0])

    def guarded(self, guard: Callable[[], None]) -> ObjectPath:
        """Return the same place, whose writes, and those below it, call ``guard`` too."""

        def both() -> None:
            self.guard()
            guard()

        return replace(self, guard=both)

    # Reading. All raise StorageError where the storage does not answer for `RETRY_SECONDS`, or refuses.

    def info(self) -> ObjectInfo | None:
        """Ask what is there; None if nothing is."""
        import obstore

        try:
            with object_errors(self):
                return _info(obstore.head(self.store, self.key))
        except FileNotFoundError:
            return None

    def exists(self) -> bool:
        """Tell whether there is an object of this key."""
        return self.info() is not None

    is_file = exists

    def read_bytes(self) -> bytes:
        """Read the whole object; raises `FileNotFoundError` if there is none."""
        return self.read_with_info()[0]

    def read_with_info(self) -> tuple[bytes, ObjectInfo]:
        """Read the whole object, and what the server says of this very content."""
        import obstore

        with object_errors(self):
            found = obstore.get(self.store, self.key)
            return found.bytes().to_bytes(), _info(found.meta)

    def download(self, file: BinaryIO) -> ObjectInfo:
        """Write the object to a file, a part at a time."""
        import obstore

        with object_errors(self):
            found = obstore.get(self.store, self.key)
            for part in found.stream():
                file.write(part)
            return _info(found.meta)

    def names(self) -> list[str]:
        """Return the names directly below this one, of objects and of folders, ascending."""
        import obstore

        with object_errors(self):
            found = obstore.list_with_delimiter(self.store, f"{self.key}/" if self.key else None)
        keys = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return sorted(key.rstrip("/").rpartition("/")[2] for key in keys)

    # Writing

    def write_bytes(self, content: bytes) -> None:
        """Write the object, whether or not it is there."""
        self._put(content)

    def upload(self, file: Path) -> None:
        """Write the object from a file; a large one in parts, which appear together."""
        self._put(file)

    def create(self, content: bytes) -> ObjectTag:
        """Write the object if there is none.

        Raises
        ------
        ChangedMeanwhileError
            If there is one.
        """
        return self._put_if(content, "create")

    def replace_if(self, content: bytes, before: ObjectTag) -> ObjectTag:
        """Write the object if its content is still this one.

        Raises
        ------
        ChangedMeanwhileError
            If it is not.
        """
        return self._put_if(content, dict(before))

    def unlink(self) -> None:
        """Delete the object, if it is there."""
        import obstore

        self.guard()
        try:
            with object_errors(self):
                obstore.delete(self.store, self.key)
        except FileNotFoundError:
            return

    def _put_if(self, content: bytes, mode: Any) -> ObjectTag:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            return self._put(content, mode)
        except (AlreadyExistsError, PreconditionError):
            raise ChangedMeanwhileError(str(self)) from None

    def _put(self, content: bytes | Path, mode: Any = "overwrite") -> ObjectTag:
        import obstore

        self.guard()
        with object_errors(self, writing=True):
            # In one request, unless it is a file: only that can be conditional.
            multipart = None if isinstance(content, Path) else False
            return _tag(obstore.put(self.store, self.key, content, mode=mode, use_multipart=multipart))


Location: TypeAlias = Path | ObjectPath
"""Where something of a run lies."""


def location_of(text: str) -> Location:
    """Return the place that a path or URL names. Nothing is asked of a server yet.

    Raises
    ------
    RunDirectoryError
        If it is a URL of another kind, has a password or other things in it that are no name, or the environment lacks what its
        storage needs.
    """
    if "://" not in text:
        return Path(text).expanduser()
    scheme, rest = text.split("://", 1)
    parts = urlsplit(text)
    if scheme not in _SCHEMES:
        raise RunDirectoryError(
            f"'{scheme}://' is no storage that feldman knows: give a path, or a URL that begins with "
            f"{listed(f'{known}://' for known in _SCHEMES)}"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:  # not shown: it may be a secret
        raise RunDirectoryError(
            f"a URL of {scheme}:// names a place and nothing else; found a user, a password or a query in it: credentials "
            "come from the environment"
        )
    if scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise RunDirectoryError(f"'{text}' names no folder of this machine; expected file:///folder")
        return Path(unquote(parts.path))
    bucket, _, key = rest.partition("/")
    key = key.rstrip("/")
    segments = key.split("/") if key else []
    odd = [part for part in segments if not _PLAIN_SEGMENT.fullmatch(part) or part in (".", "..")]
    if not bucket or odd:
        raise RunDirectoryError(
            f"'{text}' is no place for a run: expected {scheme}://BUCKET/NAME/..., with names of letters, digits, spaces and "
            "_.,=+@()!'-"
        )
    return ObjectPath(store=_bucket(f"{scheme}://{bucket}"), bucket=f"{scheme}://{bucket}", key=key)


def local_path(location: Location, what: str) -> Path:
    """Return a place that has to be on a file system.

    Raises
    ------
    RunDirectoryError
        If it is not; ``what`` says what cannot be done there, as in ``"merge makes runs"``.
    """
    if isinstance(location, Path):
        return location
    raise RunDirectoryError(f"'{location}' is a URL, and {what} in local folders only: give a path")


def _bucket(url: str) -> ObjectStore:
    """Open a bucket; the credentials are what the environment, or the machine's own service, has."""
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    endpoints = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL")
    plain = any(os.environ.get(name, "").startswith("http://") for name in endpoints)  # asked for by whoever set it
    seconds = timedelta(seconds=1)
    try:
        return from_url(
            url,
            client_options={
                "allow_http": plain or os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1"),
                "connect_timeout": 5 * seconds,
                "timeout": _REQUEST_SECONDS * seconds,
            },
            retry_config={
                "max_retries": 10_000,
                "retry_timeout": RETRY_SECONDS * seconds,
                "backoff": {"init_backoff": 0.1 * seconds, "max_backoff": 5 * seconds, "base": 2},
            },
        )
    except (BaseError, ValueError) as error:
        raise RunDirectoryError(
            f"'{url}' cannot be opened: {_reason(error)}; look at the environment's variables"
        ) from None


@contextmanager
def object_errors(location: ObjectPath, *, writing: bool = False) -> Iterator[None]:
    """Turn what an object store answers into errors that a user can act on, without what may be in an answer's text.

    Raises
    ------
    FileNotFoundError
        If the object is not there, and is read.
    StorageError
        If the storage could not be reached, or refused.
    RunDirectoryError
        If there is no such bucket.
    """
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except (BaseError, FileNotFoundError) as error:
        if any(code in str(error) for code in ("NoSuchBucket", "ContainerNotFound")):
            raise RunDirectoryError(f"there is no bucket '{location.bucket}'; make it, or choose another one") from None
        if isinstance(error, FileNotFoundError) and not writing:
            raise
        reason = _reason(error)
        if reason == _NO_CREDENTIALS or reason.startswith("4"):
            raise StorageError(
                f"the storage refuses {location}: {reason}; look at the credentials in the environment and at what they "
                "allow, then run the same command again: what is committed is safe"
            ) from None
        raise StorageError(
            f"{location} was not to be had, tried for up to {RETRY_SECONDS:g} s: {reason}; what is committed is safe: "
            "when the storage answers, run the same command again"
        ) from None


def _reason(error: Exception) -> str:
    """Say in a few words what went wrong. The text of an answer is left out: servers put signatures and key names there."""
    text = str(error).split("\n\nDebug source")[0]
    if "169.254.169.254" in text or "metadata.google.internal" in text:
        return _NO_CREDENTIALS
    status = re.search(r"status code: (\d{3} [A-Za-z ]+)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    if status or code:
        return " ".join(found for found in (status and status[1].strip(), code and f"({code[1]})") if found)
    return re.sub(r"\?\S*", "", text.splitlines()[0] if text else type(error).__name__).rpartition(" - ")[2]


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(tag=_tag(meta), modified=meta["last_modified"], num_bytes=meta["size"])


def _tag(meta: Any) -> ObjectTag:
    return tuple((name, meta[name]) for name in ("e_tag", "version") if meta[name] is not None)
