"""Digests of large files, taken once a machine: whoever asks first reads the file, the others wait and read a line."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path

__all__ = ["file_digest"]

_BYTES_AT_ONCE = 1 << 24


def file_digest(path: Path, notes: Path | None = None) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    The digest is noted in the machine's temporary folder, under the file's path, size, inode and times of change; a file of
    which these are the same is not read again. Processes that ask at the same time wait for the first.

    Parameters
    ----------
    path
        The file.
    notes
        Where digests are noted; by default a folder of this user's alone.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    folder = notes or Path(tempfile.gettempdir()) / f"feldman-digests-{os.getuid()}"
    state = path.stat()
    identity = repr(
        (str(path.resolve()), state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    )
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if (
            folder.lstat().st_uid != os.getuid()
        ):  # anybody may write to a temporary folder: others' notes are not believed
            return _read_digest(path)
        descriptor = os.open(folder / hashlib.sha256(identity.encode()).hexdigest(), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:  # no room for notes: it takes longer
        return _read_digest(path)
    with os.fdopen(descriptor, "r+b") as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        found = note.read().decode()
        if len(found) != 64:
            found = _read_digest(path)
            note.seek(0)
            note.write(found.encode())
            note.truncate()
    return found


def _read_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_BYTES_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()
