"""What happened to a run, one JSON object a line: ``events.jsonl``, only ever appended to, or on an object store ``events/``."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from feldman.errors import FeldmanError
from feldman.trials.locations import Location, ObjectPath
from feldman.trials.storage import storage_errors

__all__ = ["Detail", "EventLog", "read_events"]

Detail = str | int | float | bool | None | list[Any] | dict[str, Any]

_SECONDS_BETWEEN_WRITES = 5.0
"""On an object store: so much is lost at a kill."""

_SEGMENT_BYTES = 256 * 1024
"""An object that is longer is not written again; the next event begins another one."""


class EventLog:
    """Appends events to a file, or to objects.

    In a file each is one ``write`` call, so a kill can cut only the last line. Objects cannot be appended to: a session writes
    segments of its own, ``events/000001.jsonl`` and so on. A thread writes the last one anew when something happened, every few
    seconds at the most.

    Parameters
    ----------
    location
        The file, made if it is not there; or what the objects' names begin with.

    Raises
    ------
    StorageError
        If the storage refuses, here, in `write` (a file), or in `close` (objects).
    """

    def __init__(self, location: Location) -> None:
        self._lines: _Lines = _FileLines(location) if isinstance(location, Path) else _ObjectLines(location)

    def write(self, event: str, details: dict[str, Detail] | None = None) -> None:
        """Append one event with the time (UTC)."""
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **(details or {})}
        self._lines.append(json.dumps(record).encode() + b"\n")

    def close(self) -> None:
        """Close the file, or write what is left."""
        self._lines.close()


class _Lines(Protocol):
    def append(self, line: bytes) -> None: ...

    def close(self) -> None: ...


class _FileLines:
    def __init__(self, path: Path) -> None:
        self._path = path
        with storage_errors(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            size = os.fstat(self._descriptor).st_size
            if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
                os.write(self._descriptor, b"\n")  # the line that a kill cut short ends here

    def append(self, line: bytes) -> None:
        with storage_errors(self._path):
            os.write(self._descriptor, line)

    def close(self) -> None:
        os.close(self._descriptor)


class _ObjectLines:
    def __init__(self, folder: ObjectPath) -> None:
        self._folder = folder
        self._number = 1 + max(map(_segment_number, folder.names()), default=0)
        self._segment, self._num_written = b"", 0
        self._changing, self._writing = threading.Lock(), threading.Lock()
        self._changed, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="feldman-events", daemon=True)
        self._thread.start()

    def append(self, line: bytes) -> None:
        with self._changing:
            self._segment += line
        self._changed.set()

    def close(self) -> None:
        self._closed.set()
        self._changed.set()
        self._write()

    def _keep_writing(self) -> None:
        while self._changed.wait() and not self._closed.is_set():
            self._changed.clear()
            try:
                self._write()
            except FeldmanError:  # tried again, and told by `close`; commits tell it first
                self._changed.set()
            self._closed.wait(_SECONDS_BETWEEN_WRITES)

    def _write(self) -> None:
        with self._writing:
            with self._changing:
                segment = self._segment
            if len(segment) > self._num_written:
                (self._folder / f"{self._number:06d}.jsonl").write_bytes(segment)
                self._num_written = len(segment)
            if len(segment) > _SEGMENT_BYTES:
                with self._changing:
                    self._segment = self._segment[len(segment) :]
                self._number, self._num_written = self._number + 1, 0


def read_events(location: Location) -> list[dict[str, Any]]:
    """Read the events of a run, of all segments; a line that was cut short is passed over."""
    events = []
    for text in _texts(location):
        for line in text.decode(errors="replace").splitlines():
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return [event for event in events if isinstance(event, dict)]


def _texts(location: Location) -> list[bytes]:
    if isinstance(location, Path):
        return [location.read_bytes()] if location.exists() else []
    segments = [name for name in location.names() if _segment_number(name)]
    return [(location / name).read_bytes() for name in sorted(segments, key=_segment_number)]


def _segment_number(name: str) -> int:
    number = name.removesuffix(".jsonl")
    return int(number) if number.isdecimal() and number != name else 0
