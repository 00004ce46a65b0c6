"""Disks that fill up when a test wants it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["Disk"]


class Disk:
    """A small disk of its own where this process may mount one.

    Elsewhere, a folder in which the run's event log is the device that is always full: the same refusal by the system,
    at another moment.
    """

    def __init__(self, folder: Path, size: str = "8m") -> None:
        self.folder = folder
        folder.mkdir()
        mount = shutil.which("mount")
        command = [mount or "", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        self.mounted = mount is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0

    def fill(self, run: Path, leave_bytes: int) -> None:
        """Leave so many bytes free, or fewer if somebody is writing."""
        if not self.mounted:
            (run / "events.jsonl").unlink(missing_ok=True)
            (run / "events.jsonl").symlink_to("/dev/full")
            return
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            while (free := shutil.disk_usage(self.folder).free) > 0:
                with contextlib.suppress(OSError):  # what was free has been written by somebody else
                    os.posix_fallocate(filler.fileno(), os.fstat(filler.fileno()).st_size, free)
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                os.posix_fallocate(filler.fileno(), os.fstat(filler.fileno()).st_size, 4096)
            filler.truncate(os.fstat(filler.fileno()).st_size - leave_bytes)

    def make_room(self, run: Path) -> None:
        if self.mounted:
            (self.folder / "filler").unlink()
        else:
            (run / "events.jsonl").unlink()

    def remove(self) -> None:
        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True)
