"""Stores for tests: results to commit, and writes that stop as a killed process does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from zarr.storage import LocalStore

from feldman.experiment import Experiment
from feldman.trials import chunk_writing
from feldman.trials.events import EventLog
from feldman.trials.rundir import RunPaths, run_paths
from feldman.trials.session import pending_blocks, prepared_store
from feldman.trials.store import TrialStore
from feldman.trials.task import BlockResult, prepare_block_task
from tests.conftest import small_dataset, small_experiment

__all__ = ["CrashError", "crash_at_write", "experiment_of", "result_of", "stored_files", "work"]

DATA = Path("data.npz")  # named in the experiment, never opened: tests here hand the data set over


class CrashError(Exception):
    """The process is gone: neither this write nor any later one happens."""


@cache
def experiment_of(num_trials: int, block_size: int = 8) -> Experiment:
    return small_experiment(DATA, num_trials=num_trials, block_size=block_size)


@cache
def result_of(num_trials: int, block: int, block_size: int = 8) -> BlockResult:
    """A block trained for real; the same at every call, ``train_seconds`` included."""
    return prepare_block_task(experiment_of(num_trials, block_size), (), small_dataset())(block)


def stored_files(store_path: Path) -> dict[str, bytes]:
    """Every file of a store, but for what is measured and what tells of the machine."""
    return {
        name: path.read_bytes()
        for path in sorted(store_path.rglob("*"))
        if path.is_file()
        for name in [path.relative_to(store_path).as_posix()]
        if name != "zarr.json" and "train_seconds/c/" not in name
    }


def work(run: Path, num_trials: int) -> TrialStore:
    """What a `feldman run` does to a store: make or mend it, let it grow, commit what is pending."""
    paths: RunPaths = run_paths(run)
    run.mkdir(exist_ok=True)
    events = EventLog(paths.events)
    try:
        store = prepared_store(paths, experiment_of(num_trials), small_dataset(), events, lambda progress: None)
    finally:
        events.close()
    for block in pending_blocks(store):
        store.commit_block(result_of(store.experiment.subsets.num_trials, block))
    return store


@contextmanager
def crash_at_write(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[list[str]]:
    """Let ``number`` writes to a store happen, Zarr's and our own, and none after; yields the keys written."""
    written: list[str] = []
    zarr_write, own_write = LocalStore._set, chunk_writing._write_file

    async def limited(self: LocalStore, key: str, value: Any, exclusive: bool = False) -> None:
        if len(written) >= number:
            raise CrashError(key)
        await zarr_write(self, key, value, exclusive)
        written.append(key)

    def own_limited(path: Path, content: bytes) -> None:
        key = "/".join(path.parts[-path.parts[::-1].index("c") - 2 :])  # from the name of the array on
        if len(written) >= number:
            raise CrashError(key)
        own_write(path, content)
        written.append(key)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "_set", limited)
        patch.setattr(chunk_writing, "_write_file", own_limited)
        yield written
