"""What comes out of a run: tables and the notebook's door, against arrays read with plain Zarr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

import feldman
from feldman.errors import InputError, QueryError
from feldman.job import resume
from tests.conftest import small_experiment
from tests.estimates import oracle


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import small_arrays

    folder = tmp_path_factory.mktemp("run")
    np.savez(folder / "data.npz", **small_arrays())  # type: ignore[arg-type]
    # So few trials that some example is in all of them: its estimates are undefined.
    feldman.run(small_experiment(folder / "data.npz", num_trials=6, block_size=4), folder / "run")
    return folder / "run"


def bits(run_path: Path) -> dict[str, Any]:
    group = zarr.open_group(run_path / "trials.zarr", mode="r")
    return {name: np.asarray(group[name][:]) for name in ("subset_mask", "train_correct", "test_correct")}  # type: ignore[index]


def test_the_tables_equal_the_textbook_formula_over_plain_zarr_arrays(run_path: Path) -> None:
    arrays = bits(run_path)
    expected = oracle.memorization(arrays["subset_mask"], arrays["train_correct"])
    assert np.isnan(expected).any()
    table = pq.read_table(run_path / "memorization.parquet")
    np.testing.assert_allclose(table["memorization"].to_numpy(), expected, atol=1e-6, equal_nan=True)
    influence = oracle.influence(arrays["subset_mask"], arrays["test_correct"])
    kept = (influence >= 0.15) & (expected >= 0.25)[:, None]
    pairs = pq.read_table(run_path / "influence.parquet")
    found = np.stack([pairs["train_index"].to_numpy(), pairs["test_index"].to_numpy()])
    np.testing.assert_array_equal(found, np.stack(np.nonzero(kept)))
    np.testing.assert_allclose(pairs["influence"].to_numpy(), influence[kept], atol=1e-6)
    np.testing.assert_allclose(pairs["memorization"].to_numpy(), expected[np.nonzero(kept)[0]], atol=1e-6)


def test_an_open_run_says_what_the_tables_say(run_path: Path) -> None:
    run = feldman.open_run(run_path)
    pairs = run.pairs().sort_by([("train_index", "ascending"), ("test_index", "ascending")])
    for found, name in ((run.memorization(), "memorization"), (pairs, "influence")):
        written = pq.read_table(run_path / f"{name}.parquet")
        assert found.schema.equals(written.schema.remove_metadata())
        for column in written.column_names:
            np.testing.assert_array_equal(found[column].to_numpy(), written[column].to_numpy())
    arrays = bits(run_path)
    dense = oracle.influence(arrays["subset_mask"], arrays["test_correct"])
    np.testing.assert_allclose(run.influence([3, 59, 3]), dense[[3, 59, 3]], atol=1e-12, equal_nan=True)
    same = run.pairs(min_influence=0.0, min_memorization=-1.0, same_class=True, top=7)
    assert len(same) == 7
    assert same["train_label"].to_pylist() == same["test_label"].to_pylist()


@pytest.mark.parametrize("index", [-1, 60])
def test_an_index_out_of_range_is_refused(run_path: Path, index: int) -> None:
    with pytest.raises(QueryError, match=r"training examples are 0 \.\. 59; found"):
        feldman.open_run(run_path).influence([index])


def test_xarray_opens_the_store_by_dimension_names(run_path: Path) -> None:
    opened = feldman.open_run(run_path).to_xarray()
    assert dict(opened.sizes) == {"trial": 6, "train": 60, "test": 30, "block": 2}
    np.testing.assert_array_equal(opened["subset_mask"].sum("train"), np.full(6, 42))
    assert opened["test_accuracy"].dims == ("trial",)


def test_a_finished_run_is_not_trained_again(run_path: Path) -> None:
    run = feldman.open_run(run_path)
    before = {path: path.read_bytes() for path in sorted(run_path.rglob("*")) if path.is_file()}
    stages = set()
    feldman.run(run.experiment, run_path, on_progress=lambda progress: stages.add(progress.stage))
    assert stages == {"checking"}
    left_out = {"events.jsonl", ".writer.lock"}
    after = {path: path.read_bytes() for path in sorted(run_path.rglob("*")) if path.is_file()}
    assert {k: v for k, v in before.items() if k.name not in left_out} == {
        k: v for k, v in after.items() if k.name not in left_out
    }


def test_a_run_grown_beyond_its_file_keeps_its_trials(tmp_path: Path, arrays_file: Path) -> None:
    experiment = small_experiment(arrays_file, num_trials=16)
    feldman.run(experiment, tmp_path / "run")
    grown = resume(tmp_path / "run", num_trials=40)
    assert grown.status.num_committed_trials == 40
    again = feldman.run(experiment, tmp_path / "run")
    assert again.status.num_committed_trials == 40
    with pytest.raises(InputError, match=r"has 40 trials and only grows; found --num-trials 8"):
        resume(tmp_path / "run", num_trials=8)
