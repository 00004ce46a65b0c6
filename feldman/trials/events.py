"""``events.jsonl``: what happened to a run, one JSON object a line, only ever appended to."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feldman.trials.storage import storage_errors

__all__ = ["Detail", "EventLog", "read_events"]

Detail = str | int | float | bool | None | list[Any] | dict[str, Any]


class EventLog:
    """Appends events to a file. Each is one ``write`` call, so a kill can cut only the last line.

    Parameters
    ----------
    path
        The file; made if it is not there.

    Raises
    ------
    StorageError
        If the storage refuses, here or in `write`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage_errors(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            size = os.fstat(self._descriptor).st_size
            if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
                os.write(self._descriptor, b"\n")  # the line that a kill cut short ends here

    def write(self, event: str, details: dict[str, Detail] | None = None) -> None:
        """Append one event with the time (UTC)."""
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **(details or {})}
        with storage_errors(self._path):
            os.write(self._descriptor, json.dumps(record).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read the events of a run; a line that was cut short is passed over."""
    events = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return [event for event in events if isinstance(event, dict)]
