"""The datamodels arrays memory-map, and are what the store holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from feldman.errors import CorruptStoreError, RunDirectoryError
from feldman.exchange.datamodels_export import export_datamodels
from feldman.job import run
from feldman.trials.rundir import run_paths
from feldman.trials.store import TrialStore
from tests.commands import Commands
from tests.exchange.released import bits_of

FILES = ["README.txt", "_completed.npy", "correctness.npy", "masks.npy", "train_correctness.npy", "trial_index.npy"]


def mapped(folder: Path, name: str) -> np.ndarray:
    """As `datamodels.regression.write_dataset` opens them."""
    return np.lib.format.open_memmap(folder / f"{name}.npy", mode="r")


def test_the_arrays_memory_map_and_equal_the_store(done: Path) -> None:
    summary = export_datamodels(run_paths(done), done / "out")
    assert list(summary.files) == FILES == sorted(path.name for path in (done / "out").iterdir())
    bits = bits_of(done)
    for name, expected in (
        ("masks", bits.masks),
        ("correctness", bits.test_correct),
        ("train_correctness", bits.train_correct),
        ("_completed", np.ones(40, bool)),
        ("trial_index", np.arange(40)),
    ):
        found = mapped(done / "out", name)
        assert isinstance(found, np.memmap)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_only_committed_trials_are_exported_with_their_numbers(done: Path) -> None:
    TrialStore.open(done / "trials.zarr").withdraw_block(1)
    export_datamodels(run_paths(done), done / "out")
    kept = np.concatenate([np.arange(8), np.arange(16, 40)])
    np.testing.assert_array_equal(mapped(done / "out", "trial_index"), kept)
    np.testing.assert_array_equal(mapped(done / "out", "masks"), bits_of(done).masks[kept])


def test_margins_and_predictions_come_along_where_a_run_records_them(done: Path, tmp_path: Path) -> None:
    told = {"name": "tests.learners:telling_centroid"}
    outputs = {"margins": True, "predictions": True}
    experiment = TrialStore.open(done / "trials.zarr").experiment.replace("learner", told).replace("outputs", outputs)
    run(experiment, tmp_path / "run")
    recorded = {"margins": "test_margin", "train_margins": "train_margin", "predictions": "test_prediction"}
    recorded |= {"train_predictions": "train_prediction"}
    summary = export_datamodels(run_paths(tmp_path / "run"), tmp_path / "out")
    assert list(summary.files) == sorted([*FILES, *(f"{name}.npy" for name in recorded)])
    group = zarr.open_group(tmp_path / "run" / "trials.zarr", mode="r")
    for name, stored in recorded.items():
        found, expected = mapped(tmp_path / "out", name), np.asarray(group[stored][:])  # type: ignore[index]
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        assert f"{name}.npy" in (tmp_path / "out" / "README.txt").read_text()
    (tmp_path / "run" / "trials.zarr" / "test_margin" / "c" / "2" / "0").unlink()
    with pytest.raises(CorruptStoreError, match="chunk test_margin/c/2/0 is missing"):
        export_datamodels(run_paths(tmp_path / "run"), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_linear_datamodeling_score_is_computed_as_the_readme_says(done: Path) -> None:
    export_datamodels(run_paths(done), done / "out")
    masks, correctness = mapped(done / "out", "masks"), mapped(done / "out", "correctness")
    assert (masks.astype(float) @ np.zeros((60, 30))).shape == correctness.shape
    text = (done / "out" / "README.txt").read_text()
    assert "40 trials, 60 training and 30 test examples" in text
    assert all(name in text for name in FILES if name.endswith(".npy"))


def test_a_damaged_block_is_never_exported(done: Path) -> None:
    chunk = done / "trials.zarr" / "test_correct" / "c" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(CorruptStoreError, match="1 block: 1"):
        export_datamodels(run_paths(done), done / "out")
    assert not list(done.glob("*out*")), "nothing of it stays"


def test_without_trials_there_is_nothing_to_export(done: Path) -> None:
    store = TrialStore.open(done / "trials.zarr")
    for block in range(store.num_blocks):
        store.withdraw_block(block)
    with pytest.raises(RunDirectoryError, match="has no committed trials yet"):
        export_datamodels(run_paths(done), done / "out")


def test_a_run_exports_into_itself_unless_told_otherwise(feldman: Commands, done: Path) -> None:
    assert feldman("export", "done", "--format", "datamodels").code == 0
    assert feldman("export", "done", "--format", "authors").code == 0
    assert (done / "export-datamodels" / "masks.npy").exists()
    assert (done / "export-authors" / "infl_matrix.npz").exists()
    assert feldman("verify", "done").code == feldman("resume", "done").code == 0
