"""What is exported and imported again says the same; and a run agrees with its own export."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feldman.estimates.selection import PairSelection
from feldman.exchange.authors_export import export_authors
from feldman.exchange.conformance import compare_with_file
from feldman.exchange.importing import ImportOptions, import_run
from feldman.results.estimation import write_estimates
from feldman.results.tables import read_facts
from feldman.trials.rundir import run_paths
from tests.estimates import oracle
from tests.exchange.released import Bits, random_bits, write_labels, write_released

sizes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "num_trials": st.integers(1, 70),
        "num_train": st.integers(5, 25),
        "num_test": st.integers(1, 12),
        "num_classes": st.integers(1, 4),
    }
)
thresholds = st.sampled_from([(-1.0, -1.0), (0.15, 0.25), (0.1, 0.0), (0.123456789, 1e-7), (1.0, 1.0)])
slow = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def imported(folder: Path, bits: Bits, selection: PairSelection) -> Path:
    """A run with these very bits."""
    options = ImportOptions(
        labels=write_labels(folder / "labels.npz", bits),
        min_influence=selection.min_influence,
        min_memorization=selection.min_memorization,
    )
    import_run(write_released(folder / "0.7", bits), folder / "run", options)
    return folder / "run"


@given(drawn=sizes, levels=thresholds)
@slow
def test_export_then_import_gives_back_the_same_memorization_and_pairs(
    drawn: dict[str, int], levels: tuple[float, float]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bits = random_bits(**drawn)
        run = imported(folder, bits, PairSelection(min_influence=levels[0], min_memorization=levels[1]))
        summary = export_authors(run_paths(run), folder / "out")
        pairs_file, matrix_file = (folder / "out" / file for file in summary.files)
        import_run(pairs_file, folder / "pairs")
        import_run(matrix_file, folder / "matrix", ImportOptions(min_influence=levels[0], min_memorization=levels[1]))
        ours = pq.read_table(run / "memorization.parquet")
        pairs = pq.read_table(run / "influence.parquet")

        selection = read_facts(folder / "pairs" / "influence.parquet", folder).selection
        assert selection == PairSelection(min_influence=levels[0], min_memorization=levels[1])
        back = pq.read_table(folder / "pairs" / "influence.parquet")
        for column in ("train_index", "test_index", "influence", "memorization"):
            np.testing.assert_array_equal(back[column].to_numpy(), pairs[column].to_numpy())
        examples = pq.read_table(folder / "pairs" / "memorization.parquet")
        index = examples["train_index"].to_numpy()
        np.testing.assert_array_equal(index, np.unique(pairs["train_index"].to_numpy()))
        np.testing.assert_array_equal(examples["memorization"].to_numpy(), ours["memorization"].to_numpy()[index])

        whole = pq.read_table(folder / "matrix" / "memorization.parquet")
        for column in ("train_index", "label", "memorization"):
            np.testing.assert_array_equal(whole[column].to_numpy(), ours[column].to_numpy())
        inside = pairs.filter(np.equal(pairs["train_label"].to_numpy(), pairs["test_label"].to_numpy()))
        back = pq.read_table(folder / "matrix" / "influence.parquet")
        for column in ("train_index", "test_index", "influence", "memorization", "train_label", "test_label"):
            np.testing.assert_array_equal(back[column].to_numpy(), inside[column].to_numpy())


@given(drawn=sizes, levels=thresholds)
@slow
def test_a_run_agrees_with_its_own_export_wholly(drawn: dict[str, int], levels: tuple[float, float]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = imported(folder, random_bits(**drawn), PairSelection(min_influence=levels[0], min_memorization=levels[1]))
        summary = export_authors(run_paths(run), folder / "out")
        for file in summary.files:
            found = compare_with_file(run_paths(run), folder / "out" / file)
            assert found.pairs.num_only_run == found.pairs.num_only_file == 0
            assert found.pairs.jaccard == 1 or (math.isnan(found.pairs.jaccard) and found.pairs.num_both == 0)
            agreements = [found.memorization, found.pairs.influence]
            agreements += [found.same_class_influence] if found.same_class_influence is not None else []
            for each in agreements:
                assert math.isnan(each.pearson) or each.pearson == pytest.approx(1, abs=1e-12)
                assert each.mean_absolute_difference == 0 or not each.num_compared
            assert (found.same_class_influence is not None) == file.startswith("infl_matrix")
            if found.memorization.num_compared:
                assert found.memorization.total_variation == found.memorization.earth_movers_distance == 0


def test_the_exported_arrays_are_the_textbook_formula(tmp_path: Path) -> None:
    bits = random_bits(3, num_trials=30, num_train=24, num_test=15)
    run = imported(tmp_path, bits, PairSelection())
    export_authors(run_paths(run), tmp_path / "out")
    memorization = oracle.memorization(bits.masks, bits.train_correct)
    influence = oracle.influence(bits.masks, bits.test_correct)
    with np.load(tmp_path / "out" / "high_infl_pairs_infl0.15_mem0.25.npz") as pairs:
        kept = (influence >= 0.15) & (memorization >= 0.25)[:, None]
        np.testing.assert_array_equal(np.stack([pairs["tr_idx"], pairs["tt_idx"]]), np.stack(np.nonzero(kept)))
        np.testing.assert_allclose(pairs["infl"], influence[kept], atol=1e-12)
        np.testing.assert_allclose(pairs["mem"], memorization[pairs["tr_idx"]], atol=1e-12)
        assert [pairs[name].dtype for name in pairs] == [np.int64, np.int64, np.float64, np.float64]
    with np.load(tmp_path / "out" / "infl_matrix.npz") as matrix:
        assert len(matrix.files) == 3 * 3 + 3
        np.testing.assert_array_equal(matrix["tr_labels"], bits.train_labels)
        np.testing.assert_array_equal(matrix["tt_labels"], bits.test_labels)
        np.testing.assert_allclose(matrix["tr_mem"], memorization, atol=1e-12)
        for label in range(3):
            train, test = matrix[f"tr_classidx_{label}"], matrix[f"tt_classidx_{label}"]
            np.testing.assert_array_equal(train, np.flatnonzero(bits.train_labels == label))
            np.testing.assert_array_equal(test, np.flatnonzero(bits.test_labels == label))
            expected = influence[np.ix_(train, test)]
            np.testing.assert_allclose(matrix[f"infl_matrix_class{label}"], expected, atol=1e-12)


def test_large_classes_are_written_in_slabs_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = imported(tmp_path, random_bits(5), PairSelection())
    export_authors(run_paths(run), tmp_path / "whole")
    monkeypatch.setattr("feldman.exchange.authors_export._SLAB_VALUES", 7)
    export_authors(run_paths(run), tmp_path / "slabs")
    name = "infl_matrix.npz"
    assert (tmp_path / "slabs" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    found = compare_with_file(run_paths(run), tmp_path / "whole" / name)
    assert found.same_class_influence is not None
    assert found.same_class_influence.pearson == pytest.approx(1, abs=1e-12)


def test_undefined_influence_is_nan_in_the_file_and_no_pair_after(tmp_path: Path) -> None:
    bits = random_bits(1, num_trials=2)
    always, never = np.all(bits.masks, axis=0), ~np.any(bits.masks, axis=0)
    assert always.any()
    run = imported(tmp_path, bits, PairSelection(min_influence=-1.0, min_memorization=-1.0))
    export_authors(run_paths(run), tmp_path / "out")
    with np.load(tmp_path / "out" / "infl_matrix.npz") as matrix:
        for label in range(3):
            undefined = np.isnan(matrix[f"infl_matrix_class{label}"])
            expected = np.logical_or(always, never)[matrix[f"tr_classidx_{label}"]]
            np.testing.assert_array_equal(undefined, np.broadcast_to(expected[:, None], undefined.shape))


def test_tables_older_than_the_trials_are_not_exported(done: Path) -> None:
    from feldman.errors import QueryError
    from feldman.trials.store import TrialStore

    store = TrialStore.open(done / "trials.zarr")
    store.withdraw_block(3)
    with pytest.raises(QueryError, match="of other trials than those that are committed; make them anew"):
        export_authors(run_paths(done), done / "out")
    write_estimates(run_paths(done), selection=PairSelection())
    assert export_authors(run_paths(done), done / "out").num_trials == 32
