"""Folders that appear whole or not at all."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from feldman.errors import ExchangeError
from feldman.trials.rundir import check_can_be_made
from feldman.trials.storage import storage_errors

__all__ = ["built_folder", "check_vacant"]


def check_vacant(target: Path) -> None:
    """Refuse to write where something is already.

    Raises
    ------
    ExchangeError
        If the path is a file or a folder that is not empty.
    RunDirectoryError
        If it lies where nothing can be made.
    """
    try:
        if not os.path.lexists(target):
            check_can_be_made(target)
            return
        if not target.is_dir():
            raise ExchangeError(f"'{target}' is there already and is no folder; choose another path with -o")
        check_can_be_made(target.resolve().parent)  # where the folder is renamed to this place
        found = sorted(entry.name for entry in target.iterdir())
    except OSError as error:
        raise ExchangeError(f"cannot look into '{target}': {error.strerror or error}") from None
    if found:
        raise ExchangeError(
            f"'{target}' is not empty (it holds {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}) and nothing is "
            "overwritten; choose a new or empty folder with -o"
        )


@contextmanager
def built_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to fill; left without an error it is renamed to ``target``, otherwise nothing of it stays.

    It lies beside the target, under a name of its own. What a kill left of an earlier one is removed: nobody holds its lock.

    Raises
    ------
    ExchangeError, RunDirectoryError
        As `check_vacant`.
    StorageError
        If the storage refuses.
    """
    check_vacant(target)
    target = target.resolve()  # a link to an empty folder cannot be renamed to
    building = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    made = [parent for parent in target.parents if not parent.exists()]
    with storage_errors(target):
        building.mkdir(parents=True)
        descriptor = os.open(building, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_left_behind(target, building)
            yield building
            building.rename(target)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            for parent in made:
                with suppress(OSError):  # somebody else has put something there
                    parent.rmdir()
            raise
        finally:
            os.close(descriptor)


def _remove_left_behind(target: Path, building: Path) -> None:
    for other in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        if other == building:
            continue
        descriptor = os.open(other, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(other)
        except BlockingIOError:  # somebody is at work on it
            continue
        finally:
            os.close(descriptor)
