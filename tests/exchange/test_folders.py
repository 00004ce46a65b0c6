"""What is exported or imported is there whole or not at all, and replaces nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from pathlib import Path

import pytest

from feldman.errors import ExchangeError, StorageError
from feldman.estimates.selection import PairSelection
from feldman.exchange.folders import built_folder, check_vacant
from feldman.exchange.importing import import_run
from feldman.results.estimation import Estimated, write_estimates
from feldman.trials.rundir import RunPaths, run_paths, writer_of
from feldman.trials.session import ProgressCallback
from tests.commands import Commands, snapshot
from tests.exchange.released import random_bits, write_pairs, write_released
from tests.runs import FeldmanProcess, wait_until


def test_a_folder_appears_only_when_it_is_full(tmp_path: Path) -> None:
    with built_folder(tmp_path / "a" / "b") as building:
        (building / "x").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert snapshot(tmp_path) == {"a": None, "a/b": None, "a/b/x": b"x"}


def fill_in_vain(target: Path, error: type[BaseException]) -> None:
    with built_folder(target) as building:
        (building / "x").write_text("x")
        raise error


def test_after_an_error_nothing_stays_not_even_the_folders_above(tmp_path: Path) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            fill_in_vain(tmp_path / "a" / "b", error)
    assert snapshot(tmp_path) == {}


def test_an_empty_folder_is_filled_and_a_full_one_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with built_folder(tmp_path / "empty") as building:
        (building / "x").write_text("x")
    with pytest.raises(ExchangeError, match=r"empty' is not empty \(it holds x\) and nothing is overwritten"):
        check_vacant(tmp_path / "empty")
    assert snapshot(tmp_path) == {"empty": None, "empty/x": b"x"}


def test_a_link_to_an_empty_folder_leads_to_it(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far")
    with built_folder(tmp_path / "link") as building:
        (building / "x").write_text("x")
    assert snapshot(tmp_path) == {"far": None, "far/x": b"x", "link": "far"}


def test_a_folder_that_somebody_else_filled_meanwhile_is_left_alone(tmp_path: Path) -> None:
    def meanwhile() -> None:
        with built_folder(tmp_path / "target"):
            (tmp_path / "target").mkdir()
            (tmp_path / "target" / "theirs").write_text("x")

    with pytest.raises(StorageError, match=r"cannot write to .*target"):
        meanwhile()
    assert snapshot(tmp_path) == {"target": None, "target/theirs": b"x"}


def test_what_a_kill_left_is_removed_and_what_somebody_works_on_is_not(tmp_path: Path) -> None:
    dead, alive = (tmp_path / f".target.{name}.partial" for name in ("dead", "alive"))
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "x").write_text("x")
    descriptor = os.open(alive, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with built_folder(tmp_path / "target"):
        pass
    os.close(descriptor)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".target.alive.partial", "target"]


def test_a_run_is_held_for_writing_while_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_released(tmp_path / "0.7", random_bits(0, num_trials=2))
    holders = []

    def watched(paths: RunPaths, *, selection: PairSelection, tell: ProgressCallback) -> Estimated:
        holders.append(writer_of(paths))
        return write_estimates(paths, selection=selection, tell=tell)

    monkeypatch.setattr("feldman.exchange.trial_import.write_estimates", watched)
    import_run(tmp_path / "0.7", tmp_path / "run")
    assert [holder["pid"] for holder in holders if holder] == [os.getpid()]
    assert writer_of(run_paths(tmp_path / "run")) is None


def test_a_killed_import_leaves_no_run_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    write_released(tmp_path / "0.7", random_bits(0, num_trials=3000))
    with FeldmanProcess(tmp_path / "outputs", "import", tmp_path / "0.7", "-o", tmp_path / "run") as process:
        wait_until(lambda: list(tmp_path.glob(".run.*.partial/trials.zarr")), "the store is being built")
        process.kill_tree()
    assert not (tmp_path / "run").exists()
    assert len(list(tmp_path.glob(".run.*.partial"))) == 1
    shutil.rmtree(tmp_path / "0.7")
    import_run(write_released(tmp_path / "0.7", random_bits(0)), tmp_path / "run")
    assert not list(tmp_path.glob(".run.*.partial"))


def test_an_interrupted_import_is_interrupted_and_leaves_nothing(tmp_path: Path) -> None:
    write_released(tmp_path / "0.7", random_bits(0, num_trials=3000))
    with FeldmanProcess(tmp_path / "outputs", "import", tmp_path / "0.7", "-o", tmp_path / "run") as process:
        wait_until(lambda: list(tmp_path.glob(".run.*.partial/trials.zarr")), "the store is being built")
        process.send(signal.SIGINT)
        ended = process.ended()
    assert (ended.code, ended.stdout, ended.stderr) == (130, "", "feldman: interrupted\n")
    assert not list(tmp_path.glob("*run*"))


def test_a_full_disk_is_told_before_anything_is_mapped(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feldman: Commands
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    answer = feldman("export", "done", "--format", "datamodels", "-o", "out")
    assert answer.code == 1
    assert "No space left on device" in answer.err
    assert not list(tmp_path.glob("*out*"))


def test_importing_a_file_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    write_pairs(tmp_path / "mine.npz")
    for name in ("one", "two"):
        import_run(tmp_path / "mine.npz", tmp_path / name)
    for table in ("memorization.parquet", "influence.parquet"):
        assert (tmp_path / "one" / table).read_bytes() == (tmp_path / "two" / table).read_bytes()
