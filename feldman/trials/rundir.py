"""The run directory: where things lie in it, whether a place may become one, and who is writing to it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feldman.errors import RunDirectoryError, StoreBusyError
from feldman.trials.lease import held_lease, lease_holder
from feldman.trials.locations import Location, ObjectPath, local_path, location_of
from feldman.trials.storage import storage_errors

__all__ = [
    "RunPaths",
    "check_can_be_made",
    "new_run_lock",
    "remove",
    "run_paths",
    "table_lock",
    "writer_lock",
    "writer_of",
]


@dataclass(frozen=True, kw_only=True)
class RunPaths:
    """What a run directory holds."""

    root: Location

    @property
    def store(self) -> Location:
        """The Zarr group of trials."""
        return self.root / "trials.zarr"

    @property
    def memorization(self) -> Location:
        """One row a training example."""
        return self.root / "memorization.parquet"

    @property
    def influence(self) -> Location:
        """One row a selected pair."""
        return self.root / "influence.parquet"

    @property
    def influence_on_train(self) -> Location:
        """One row a selected pair of two training examples."""
        return self.root / "influence_train.parquet"

    @property
    def matrix(self) -> Location:
        """The influence of every training on every test example, where it was asked for: a Zarr array."""
        return self.root / "influence.zarr"

    @property
    def counts(self) -> Location:
        """Counts kept for the next estimate, where that was asked for: a Zarr group."""
        return self.root / "counts.zarr"

    @property
    def events(self) -> Location:
        """What happened, one JSON object a line; on an object store, what the names of its segments begin with."""
        return self.root / ("events.jsonl" if isinstance(self.root, Path) else "events")

    @property
    def report(self) -> Location:
        """The page of the run, where it was asked for."""
        return self.root / "report.html"

    @property
    def lock(self) -> Location:
        """Held by the process that writes."""
        return self.root / (".writer.lock" if isinstance(self.root, Path) else ".writer.lease")

    @property
    def has_store(self) -> bool:
        """Whether there are trials. On an object store, metadata come last: without them nothing is there."""
        return (self.store if isinstance(self.store, Path) else self.store / "zarr.json").exists()

    def check_new(self) -> None:
        """Refuse a path that cannot become a run, before anything is written.

        Raises
        ------
        RunDirectoryError
            If it is a file, a folder with other things in it, or lies where nothing can be written.
        """
        if isinstance(self.root, ObjectPath):
            _check_new_objects(self, self.root)
            return
        if self.root.exists() and not self.root.is_dir():
            raise RunDirectoryError(f"'{self.root}' is a file; a run is a folder: choose another path")
        ours = {self.lock.name, self.events.name}
        try:
            entries = {entry.name for entry in self.root.iterdir()} if self.root.exists() else set()
        except OSError as error:
            raise RunDirectoryError(f"cannot look into '{self.root}': {error.strerror}") from None
        _refuse_others(self.root, sorted(name for name in entries - ours if not name.startswith(f"{self.store.name}.")))
        check_can_be_made(self.root)


def _check_new_objects(paths: RunPaths, root: ObjectPath) -> None:
    ours = {paths.lock.name, _tables_lease(root).name, paths.events.name, paths.store.name}
    _refuse_others(root, [name for name in root.names() if name not in ours and not name.endswith(".time")])
    if (root / paths.store.name / "committed" / "c").names():
        raise RunDirectoryError(
            f"'{paths.store}' has committed blocks and no zarr.json, without which they cannot be read: put that back, or choose "
            "another run directory"
        )


def _refuse_others(root: Location, others: list[str]) -> None:
    if others:
        raise RunDirectoryError(
            f"'{root}' holds other things ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}) and no run; "
            "choose a new or empty folder"
        )


def check_can_be_made(folder: Path) -> None:
    """Refuse a folder that lies where nothing can be written, or below something that is no folder.

    Raises
    ------
    RunDirectoryError
        Naming what is in the way.
    """
    parent = folder.absolute()
    while not os.path.lexists(parent):  # a link that leads nowhere is there, too
        parent = parent.parent
    if not parent.is_dir():
        raise RunDirectoryError(f"'{folder}' cannot be made: '{parent}' is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise RunDirectoryError(f"'{folder}' cannot be made: no permission to write in '{parent}'")


def run_paths(path: str | Path) -> RunPaths:
    """Return the paths of a run directory: of a path, or of a URL as `location_of` takes it.

    Raises
    ------
    RunDirectoryError
        If it is a URL of another kind, or a path that cannot be looked into.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise RunDirectoryError(f"the run directory {str(path)!r} is not a text in UTF-8; give another path") from None
    if not str(path):
        raise RunDirectoryError("the run directory is an empty text; give a path")
    try:
        paths = RunPaths(root=location_of(str(path)))
        if isinstance(paths.store, Path):
            (paths.store / "zarr.json").exists()  # raises for a name too long, a folder that may not be entered, ...
    except (OSError, RuntimeError) as error:
        raise RunDirectoryError(f"cannot look into '{path}': {getattr(error, 'strerror', None) or error}") from None
    return paths


@contextmanager
def writer_lock(paths: RunPaths, on_waiting: Callable[[str], None] = lambda note: None) -> Iterator[RunPaths]:
    """Hold a run for writing; yields its paths, to be written through.

    On a file system the system lets go of it when the process ends, however it ends. On an object store it is held by a lease
    (`feldman.trials.lease`), and the paths that are yielded refuse to write when that is lost.

    Parameters
    ----------
    paths
        The run.
    on_waiting
        Told, in a sentence, that a lease is looked at for a while, as its holder may be gone.

    Raises
    ------
    StoreBusyError
        If another process holds it.
    """
    if isinstance(paths.root, ObjectPath):
        with held_lease(paths.root / paths.lock.name, on_waiting=on_waiting) as lease:
            yield RunPaths(root=paths.root.guarded(lease.check))
        return
    lock = paths.root / paths.lock.name
    with storage_errors(paths.root):
        paths.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _locked(descriptor) or not _is_still(lock, descriptor):
            holder = _holder(paths) or {}
            raise StoreBusyError(
                f"'{paths.root}' is being written by process {holder.get('pid', '?')} on {holder.get('host', '?')} "
                f"(since {holder.get('since', '?')}); wait for it, stop it, or choose another run directory"
            )
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with storage_errors(paths.root):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(record).encode(), 0)
        yield paths
    finally:
        os.close(descriptor)


@contextmanager
def new_run_lock(paths: RunPaths) -> Iterator[None]:
    """Hold a local run that is to be made; if it does not come to be, what was made to hold it is removed.

    Raises
    ------
    StoreBusyError
        If another process holds it.
    """
    root = local_path(paths.root, "a run is made of others")
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    with writer_lock(paths):
        try:
            yield
        except BaseException:
            if not paths.has_store:
                (root / paths.lock.name).unlink(missing_ok=True)
                with suppress(OSError):  # something else is in there by now
                    for folder in made:
                        folder.rmdir()
            raise


def remove(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link, but not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def table_lock(paths: RunPaths, on_waiting: Callable[[], None] = lambda: None) -> Iterator[RunPaths]:
    """Wait for the turn to write the tables of a run; yields its paths, to be written through.

    Removes what a kill left of tables half written.

    Parameters
    ----------
    paths
        The run.
    on_waiting
        Called if another process has its turn.

    Raises
    ------
    StorageError
        If the storage refuses.
    """
    if isinstance(paths.root, ObjectPath):
        with held_lease(_tables_lease(paths.root), wait=True, on_waiting=lambda note: on_waiting()) as lease:
            yield RunPaths(root=paths.root.guarded(lease.check))
        return
    with storage_errors(paths.root):
        # Locked on the file of events, which every run has and nothing ever replaces.
        descriptor = os.open(paths.root / paths.events.name, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Only what is written under this lock: exports and answers of queries are built in this folder, too.
        for ours in (paths.memorization, paths.influence, paths.influence_on_train, paths.matrix, paths.counts):
            for left_behind in paths.root.glob(f".{ours.name}.*.partial"):
                remove(left_behind)
        yield paths
    finally:
        os.close(descriptor)


def writer_of(paths: RunPaths) -> dict[str, Any] | None:
    """Return who is writing to a run (pid, host, since), or None."""
    if isinstance(paths.lock, ObjectPath):
        return lease_holder(paths.lock)
    try:
        descriptor = os.open(paths.lock, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(paths) or {}
    finally:
        os.close(descriptor)
    return None


def _locked(descriptor: int) -> bool:
    # Tried for a second: `writer_of` holds a shared lock for the moment of its question.
    for _ in range(20):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def _is_still(lock: Path, descriptor: int) -> bool:
    """Tell whether what was locked is still the run's lock: a run that did not come to be takes its lock along."""
    return lock.exists() and os.path.samestat(lock.stat(), os.fstat(descriptor))


def _holder(paths: RunPaths) -> dict[str, Any] | None:
    try:
        found = json.loads(paths.lock.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _tables_lease(root: ObjectPath) -> ObjectPath:
    return root / ".tables.lease"
