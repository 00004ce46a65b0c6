from __future__ import annotations

import shutil
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from feldman.errors import FeldmanError
from feldman.trials.integrity import find_damage
from feldman.trials.layout import BLOCK_ARRAYS
from feldman.trials.store import TrialStore
from tests.conftest import small_dataset
from tests.trials.stores import CrashError, crash_at_write, experiment_of, result_of, stored_files, work

WRITES_OF_A_COMMIT = [*BLOCK_ARRAYS, "committed"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trials.zarr"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, bytes]]:
    """The files of runs that had their size from the start and were never interrupted."""
    folder = tmp_path_factory.mktemp("finished")
    return {size: stored_files(work(folder / str(size), size).path) for size in (20, 35, 40)}


def _readable(path: Path) -> list[int]:
    """Open a store as anybody would, with all that is in it; return the committed blocks."""
    with xarray.open_zarr(path, consolidated=False) as opened:
        opened.load()
        markers = np.flatnonzero(opened["committed"].values == 1)
    store = TrialStore.open(path)
    assert find_damage(store) == []
    blocks: list[int] = markers.tolist()
    assert store.committed_blocks() == blocks
    return blocks


def test_the_order_of_commits_changes_no_byte(tmp_path: Path, finished: dict[int, dict[str, bytes]]) -> None:
    for number, order in enumerate(permutations(range(3))):
        store = TrialStore.create(tmp_path / f"{number}.zarr", experiment_of(20), small_dataset())
        for block in order:
            store.commit_block(result_of(20, block))
        assert stored_files(store.path) == finished[20], order


def test_a_committed_block_cannot_be_committed_again(path: Path) -> None:
    store = TrialStore.create(path, experiment_of(20), small_dataset())
    store.commit_block(result_of(20, 1))
    before = stored_files(path)
    for again in (store, TrialStore.open(path)):
        with pytest.raises(FeldmanError, match=r"block 1 is committed already"):
            again.commit_block(result_of(20, 1))
    assert stored_files(path) == before
    store.withdraw_block(1)
    store.commit_block(result_of(20, 1))
    assert stored_files(path) == before


def test_a_commit_writes_every_chunk_once_and_its_marker_last(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TrialStore.create(path, experiment_of(20), small_dataset())
    with crash_at_write(monkeypatch, 10**6) as written:
        store.commit_block(result_of(20, 2))
    assert [key.split("/c/")[0] for key in written] == WRITES_OF_A_COMMIT
    assert written[-1] == "committed/c/2"


@pytest.mark.parametrize("number", range(len(WRITES_OF_A_COMMIT)))
@pytest.mark.parametrize("block", [1, 2])
def test_a_crash_between_any_two_writes_leaves_the_block_pending(
    path: Path, number: int, block: int, monkeypatch: pytest.MonkeyPatch, finished: dict[int, dict[str, bytes]]
) -> None:
    store = TrialStore.create(path, experiment_of(20), small_dataset())
    store.commit_block(result_of(20, 0))
    with crash_at_write(monkeypatch, number), pytest.raises(CrashError):
        store.commit_block(result_of(20, block))
    assert _readable(path) == [0]
    resumed = TrialStore.open(path)
    for pending in (1, 2):
        resumed.commit_block(result_of(20, pending))
    assert _readable(path) == [0, 1, 2]
    assert stored_files(path) == finished[20]


def test_an_all_false_block_is_committed_and_read_as_such(path: Path) -> None:
    store = TrialStore.create(path, experiment_of(16), small_dataset())
    result = result_of(16, 0)
    blank = np.zeros_like(result.test_correct)
    silent = type(result)(**{**result.__dict__, "test_correct": blank, "test_accuracy": np.zeros(8, np.float32)})
    store.commit_block(silent)
    assert not store.read("test_correct", 0).any()
    assert find_damage(store) == []
    assert (path / "test_correct/c/0/0").exists(), "a chunk that is gone can be told from one that is all False"


def test_a_store_is_created_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with crash_at_write(monkeypatch, 10**6) as written:
        TrialStore.create(path, experiment_of(20), small_dataset())
    number_of_writes = len(written)
    shutil.rmtree(path)
    for number in range(number_of_writes):
        with crash_at_write(monkeypatch, number), pytest.raises(CrashError):
            TrialStore.create(path, experiment_of(20), small_dataset())
        assert list(path.parent.iterdir()) == []


def test_what_a_kill_in_mid_creation_leaves_is_cleared_away_by_the_next_creation(path: Path) -> None:
    (path.parent / f"{path.name}.0badcafe.partial" / "subset_mask").mkdir(parents=True)
    TrialStore.create(path, experiment_of(20), small_dataset())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("before", "after"), [(20, 35), (20, 20), (16, 20), (35, 40), (8, 40)])
def test_a_grown_run_equals_one_of_that_size_from_the_start(
    tmp_path: Path, before: int, after: int, finished: dict[int, dict[str, bytes]]
) -> None:
    small = work(tmp_path / "run", before)
    kept = {name: np.asarray(small.array(name)[:before]) for name in BLOCK_ARRAYS if name != "train_seconds"}
    grown = work(tmp_path / "run", after)
    assert _readable(grown.path) == list(range(-(-after // 8)))
    for name, values in kept.items():
        array = grown.array(name)
        assert array.shape[0] == after
        assert np.array_equal(np.asarray(array[:before]), values), f"old trials keep their bits in {name}"
    assert stored_files(grown.path) == finished[after]
    assert TrialStore.open(grown.path).experiment.subsets.num_trials == after


def test_growing_writes_no_block_that_was_whole(tmp_path: Path) -> None:
    store = work(tmp_path / "run", 20)
    whole = {
        name: (store.path / name).stat().st_ino for name in stored_files(store.path) if name.endswith(("c/0", "c/1/0"))
    }
    work(tmp_path / "run", 35)
    assert {name: (store.path / name).stat().st_ino for name in whole} == whole


@pytest.mark.parametrize(("before", "after"), [(20, 35), (35, 40)])
def test_a_crash_at_any_write_of_a_growth_loses_no_committed_trial(
    tmp_path: Path, before: int, after: int, monkeypatch: pytest.MonkeyPatch, finished: dict[int, dict[str, bytes]]
) -> None:
    base = tmp_path / "base"
    kept = {name: np.asarray(values[:16]) for name, values in _bits(work(base, before)).items()}
    with crash_at_write(monkeypatch, 10**6) as written:
        shutil.copytree(base, tmp_path / "counted")
        work(tmp_path / "counted", after)
    assert len(written) > 9
    for number in range(len(written)):
        run = tmp_path / str(number)
        shutil.copytree(base, run)
        with crash_at_write(monkeypatch, number), pytest.raises(CrashError):
            work(run, after)
        store = TrialStore.open(run / "trials.zarr")
        assert find_damage(store) == []
        assert set(range(before // 8)) <= set(store.committed_blocks()), "only the short last block may be pending"
        assert {name: values[:16].tolist() for name, values in _bits(store).items()} == {
            name: values.tolist() for name, values in kept.items()
        }
        # Whoever goes on, with the old size or the new, ends with the run it asked for.
        size = store.experiment.subsets.num_trials
        if size == before:
            going_on = shutil.copytree(run, tmp_path / f"{number} without growth")
            assert stored_files(work(going_on, before).path) == finished[before]
        assert stored_files(work(run, after).path) == finished[after], (
            f"after a crash at write {number}: {written[number]}"
        )


def _bits(store: TrialStore) -> dict[str, np.ndarray]:
    return {name: np.asarray(store.array(name)[:]) for name in ("subset_mask", "train_correct", "test_correct")}


@pytest.mark.parametrize("name", ["train_label", "test_label"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "other labels"])
def test_damaged_labels_are_restored_from_the_data_set(
    tmp_path: Path, name: str, damage: str, finished: dict[int, dict[str, bytes]]
) -> None:
    store = work(tmp_path / "run", 20)
    chunk = store.path / name / "c" / "0"
    content = bytearray(chunk.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
        chunk.write_bytes(content)
    elif damage == "cut":
        chunk.write_bytes(content[:7])
    elif damage == "delete":
        chunk.unlink()
    else:
        zarr.open_array(store.path / name, mode="r+")[0] = 2
    assert stored_files(work(tmp_path / "run", 20).path) == finished[20]
