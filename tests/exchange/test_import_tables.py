"""Files of pairs and matrix files become runs of tables; what a file does not tell is null."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feldman.errors import ExchangeError
from feldman.estimates.selection import PairSelection
from feldman.exchange.importing import ImportOptions, import_run
from feldman.results.tables import read_facts
from feldman.trials.events import read_events
from tests.commands import Commands
from tests.exchange.released import write_pairs

PUBLISHED = (
    Path(os.environ.get("FELDMAN_REFERENCE", "/work/shared/reference"))
    / "cifar100_high_infl_pairs_infl0.15_mem0.25.npz"
)
UNKNOWN = {
    "memorization": ["label", "stderr", "ci_low", "ci_high", "num_in", "num_out", "correct_in", "correct_out"],
    "influence": ["stderr", "ci_low", "ci_high", "train_label", "test_label", "p_value", "q_value"],
}

needs_published = pytest.mark.skipif(
    not PUBLISHED.exists(), reason=f"the authors' file is not at {PUBLISHED}; FELDMAN_REFERENCE names its folder"
)


def write_matrix(path: Path, **changes: Any) -> Path:
    """Write a matrix file of 4 training and 3 test examples of 2 classes; an array that is None is left out."""
    arrays = {
        "tr_labels": np.array([0, 1, 0, 1]),
        "tt_labels": np.array([1, 0, 0]),
        "tr_mem": np.array([0.5, 0.25, np.nan, 0.125]),
        "tr_classidx_0": np.array([2, 0]),
        "tt_classidx_0": np.array([1, 2]),
        "infl_matrix_class0": np.array([[np.nan, np.nan], [0.375, 0.0]], np.float32),
        "tr_classidx_1": np.array([1, 3]),
        "tt_classidx_1": np.array([0]),
        "infl_matrix_class1": np.array([[0.5], [0.25]]),
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@needs_published
def test_the_published_pairs_are_what_their_authors_say(tmp_path: Path) -> None:
    summary = import_run(PUBLISHED, tmp_path / "run")
    assert (summary.num_train, summary.num_pairs, summary.num_trials) == (964, 1015, None)
    assert (summary.min_influence, summary.min_memorization) == (0.15, 0.25)
    table = pq.read_table(tmp_path / "run" / "influence.parquet")
    assert len(pc.unique(table["train_index"])) == 964
    tests, counts = np.unique(table["test_index"].to_numpy(), return_counts=True)
    assert (len(tests), (counts == 1).sum()) == (888, 774)
    influence = table["influence"].to_numpy()
    assert [int((influence >= level).sum()) for level in (0.2, 0.25, 0.3, 0.5)] == [506, 310, 209, 96]
    with np.load(PUBLISHED) as published:
        order = np.lexsort((published["tt_idx"], published["tr_idx"]))
        for name, column in (
            ("tr_idx", "train_index"),
            ("tt_idx", "test_index"),
            ("infl", "influence"),
            ("mem", "memorization"),
        ):
            np.testing.assert_array_equal(table[column].to_numpy(), published[name][order])


@needs_published
def test_the_published_pairs_agree_with_themselves(feldman: Commands, tmp_path: Path) -> None:
    assert feldman("import", str(PUBLISHED), "-o", "run").code == 0
    found = json.loads(feldman("compare", "run", "--with", str(PUBLISHED), "--json").out)
    assert found["pairs"]["jaccard"] == 1
    assert found["pairs"]["num_both"] == 1015
    assert found["memorization"]["num_compared"] == 964


def test_a_file_of_pairs_becomes_distinct_examples_and_ordered_pairs_and_the_rest_is_null(tmp_path: Path) -> None:
    import_run(write_pairs(tmp_path / "mine.npz"), tmp_path / "run")
    memorization = pq.read_table(tmp_path / "run" / "memorization.parquet")
    influence = pq.read_table(tmp_path / "run" / "influence.parquet")
    assert memorization["train_index"].to_pylist() == [3, 7]
    assert memorization["memorization"].to_pylist() == [0.5, 0.75]
    assert influence["train_index"].to_pylist() == [3, 7, 7]
    assert influence["test_index"].to_pylist() == [9, 1, 4]
    assert influence["influence"].to_pylist() == [0.25, 0.2, 0.5]
    for name, table in (("memorization", memorization), ("influence", influence)):
        assert all(table[column].null_count == len(table) for column in UNKNOWN[name])
    facts = read_facts(tmp_path / "run" / "influence.parquet", tmp_path)
    assert (facts.source, facts.num_trials, facts.fingerprint, facts.digest) == ("mine.npz", None, None, None)
    assert (facts.num_train, facts.num_test, facts.class_names) == (None, None, ())
    assert facts.selection == PairSelection(min_influence=0.2, min_memorization=0.5)
    assert [event["event"] for event in read_events(tmp_path / "run" / "events.jsonl")] == ["tables_imported"]


def test_labels_and_class_names_from_files_of_their_own_fill_the_columns(tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", tr_labels=np.arange(10) % 2, tt_labels=np.arange(12) % 2)
    (tmp_path / "names.txt").write_text("cat\nsea lion\n\n")
    options = ImportOptions(labels=tmp_path / "labels.npz", class_names=tmp_path / "names.txt")
    import_run(write_pairs(tmp_path / "mine.npz"), tmp_path / "run", options)
    influence = pq.read_table(tmp_path / "run" / "influence.parquet")
    assert influence["train_label"].to_pylist() == [1, 1, 1]
    assert influence["test_label"].to_pylist() == [1, 1, 0]
    facts = read_facts(tmp_path / "run" / "memorization.parquet", tmp_path)
    assert (facts.num_train, facts.num_test, facts.class_names) == (10, 12, ("cat", "sea lion"))


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("high_infl_pairs_infl0.15_mem0.25.npz", (0.15, 0.25)),
        ("cifar100_high_infl_pairs_infl-1_mem-1.npz", (-1.0, -1.0)),
        ("high_infl_pairs_infl0.3_mem0.25.npz", (0.2, 0.5)),  # belied by a pair of 0.2
        ("high_infl_pairs_inflx_mem0.25.npz", (0.2, 0.5)),
        ("pairs.npz", (0.2, 0.5)),
    ],
)
def test_the_thresholds_are_those_of_the_name_or_else_the_smallest_values(
    tmp_path: Path, name: str, kept: tuple[float, float]
) -> None:
    summary = import_run(write_pairs(tmp_path / name), tmp_path / "run")
    assert (summary.min_influence, summary.min_memorization) == kept


def test_higher_thresholds_keep_fewer_pairs_and_all_examples(tmp_path: Path) -> None:
    options = ImportOptions(min_influence=0.25, min_memorization=0.6)
    summary = import_run(write_pairs(tmp_path / "mine.npz"), tmp_path / "run", options)
    assert (summary.num_train, summary.num_pairs) == (2, 1)


def test_a_matrix_file_becomes_all_examples_and_the_pairs_of_one_class(tmp_path: Path) -> None:
    import_run(write_matrix(tmp_path / "infl_matrix.npz"), tmp_path / "run")
    memorization = pq.read_table(tmp_path / "run" / "memorization.parquet")
    assert memorization["label"].to_pylist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(memorization["memorization"].to_numpy(), [0.5, 0.25, np.nan, 0.125])
    assert memorization["memorization"].null_count == 0, "undefined is NaN; null is not known"
    influence = pq.read_table(tmp_path / "run" / "influence.parquet")
    rows = [tuple(row[name] for name in ("train_index", "test_index", "influence")) for row in influence.to_pylist()]
    assert rows == [(0, 1, 0.375), (1, 0, 0.5)]
    assert influence["train_label"].to_pylist() == influence["test_label"].to_pylist() == [0, 1]
    facts = read_facts(tmp_path / "run" / "influence.parquet", tmp_path)
    assert facts.selection == PairSelection(same_class=True)
    assert (facts.num_train, facts.num_test, facts.class_names) == (4, 3, ("0", "1"))


def test_a_matrix_file_is_read_one_matrix_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    from feldman.exchange.authors_files import MatrixFile, open_authors_file

    with open_authors_file(write_matrix(tmp_path / "m.npz")) as file:
        assert isinstance(file, MatrixFile)
        alive: list[weakref.ref[Any]] = []
        for matrix in file.classes():
            alive.append(weakref.ref(matrix.influence))
            del matrix
            assert len([reference for reference in alive if reference() is not None]) <= 1
        assert len(alive) == file.num_classes == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tr_idx": np.array([7.0, 3, 7])}, r"tr_idx must be a vector of integers; found float64 \(3,\)"),
        ({"infl": np.array([1, 0, 0])}, r"infl must be a vector of numbers; found int64"),
        ({"tt_idx": np.array([4, 9])}, "must be of one length; found 2, 3"),
        ({"tt_idx": np.array([4, -9, 1])}, "tt_idx must hold indices of examples, from 0; found -9"),
        ({"tr_idx": np.array([2**40, 3, 7])}, "tr_idx must hold indices of examples, from 0; found 1099511627776"),
        ({"infl": np.array([0.5, np.nan, 0.2])}, r"infl must be differences of two rates, -1 \.\. 1; found nan"),
        ({"mem": np.array([0.75, 1.5, 0.75])}, r"mem must be differences of two rates, -1 \.\. 1; found 1.5"),
        ({"mem": np.array([0.75, 0.5, 0.7])}, "gives training example 7 two values of mem: 0.7 and 0.75"),
        ({"tt_idx": np.array([4, 9, 4])}, "holds the pair of training example 7 and test example 4 twice"),
        (
            {"mem": None},
            r"is no file of the authors: expected tr_idx, tt_idx, infl, mem \(pairs\), or .*; found infl, tr_idx, tt",
        ),
    ],
)
def test_pairs_that_no_estimate_can_be_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ExchangeError, match=told):
        import_run(write_pairs(tmp_path / "bad.npz", **changes), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tr_labels": None}, "lacks tr_labels; it holds"),
        ({"tr_labels": np.array([0, 1, 0, 9])}, "tr_labels must hold labels from 0, fewer classes than training examples"),
        ({"tt_labels": np.array([-1, 0, 0])}, r"tt_labels must hold labels from 0, .*; found -1 \.\. 0"),
        ({"tr_mem": np.zeros(3)}, "tr_mem has 3 values for the 4 examples of tr_labels"),
        ({"tr_mem": np.array([0.5, 0, np.inf, 0])}, "tr_mem must be differences of two rates"),
        ({"tr_classidx_0": np.array([2])}, "must hold each of the 2 examples of class 0 once; found 1, 1 of them distinct"),
        ({"infl_matrix_class1": None}, "lacks the matrices of 1 classes, infl_matrix_class1 first"),
        ({"tt_classidx_1": None}, "lacks tt_classidx_1, and holds infl_matrix_class1"),
        ({"infl_matrix_classx": np.zeros((1, 1))}, "infl_matrix_classx should end in the number of a class"),
        ({"tr_classidx_0": np.array([2, 4])}, r"tr_classidx_0 must hold indices 0 \.\. 3; found 4"),
        ({"tr_classidx_0": np.array([2, 1])}, "tr_classidx_0 must hold examples of class 0; found 1, which is of class 1"),
        ({"tr_classidx_0": np.array([2, 2])}, "must hold each of the 2 examples of class 0 once; found 2, 1 of them distinct"),
        ({"infl_matrix_class0": np.zeros((2, 3))}, r"must be floats \[2, 2\], as long as .*; found float64 \(2, 3\)"),
        ({"infl_matrix_class0": np.full((2, 2), 2.0)}, "infl_matrix_class0 must be differences of two rates"),
    ],
)  # fmt: skip
def test_matrices_that_no_estimate_can_be_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ExchangeError, match=told):
        import_run(write_matrix(tmp_path / "bad.npz", **changes), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]


def test_status_of_a_run_of_tables_says_where_they_came_from(feldman: Commands, tmp_path: Path) -> None:
    write_pairs(tmp_path / "mine.npz")
    assert feldman("import", "mine.npz", "-o", "run").code == 0
    assert "run: imported from mine.npz, tables only" in feldman("status", "run").out
    status = json.loads(feldman("status", "run", "--json").out)
    assert (status["imported_from"], status["num_memorization"], status["num_pairs"]) == ("mine.npz", 2, 3)


@pytest.mark.parametrize(
    "arguments",
    [["verify"], ["estimate"], ["resume"], ["export", "--format", "datamodels"]],
    ids=lambda words: words[0],
)
def test_what_needs_trials_says_that_a_run_of_tables_has_none(
    feldman: Commands, tmp_path: Path, arguments: list[str]
) -> None:
    write_pairs(tmp_path / "mine.npz")
    assert feldman("import", "mine.npz", "-o", "run").code == 0
    command, *options = arguments
    answer = feldman(command, "run", *options)
    assert (answer.code, answer.out) == (2, "")
    assert "'run' holds tables and no trials (it has no trials.zarr)" in answer.err


@pytest.mark.parametrize("command", ["memorized", "pairs"])
@pytest.mark.parametrize("write", [write_pairs, write_matrix])
def test_imported_tables_answer_queries(feldman: Commands, tmp_path: Path, command: str, write: Any) -> None:
    write(tmp_path / "mine.npz")
    assert feldman("import", "mine.npz", "-o", "run").code == 0
    assert feldman(command, "run").code == 0
    rows = json.loads(feldman(command, "run", "--json").out)
    assert len(rows) > 1
    assert rows[0]["stderr"] is None


def test_a_run_of_tables_exports_its_pairs_and_says_what_it_lacks(feldman: Commands, tmp_path: Path) -> None:
    write_pairs(tmp_path / "high_infl_pairs_infl0.2_mem0.5.npz")
    assert feldman("import", "high_infl_pairs_infl0.2_mem0.5.npz", "-o", "run").code == 0
    answer = feldman("export", "run", "--format", "authors")
    assert answer.code == 0
    assert "left out  infl_matrix.npz: the run holds tables and no trials" in answer.out
    with np.load(tmp_path / "run" / "export-authors" / "high_infl_pairs_infl0.2_mem0.5.npz") as pairs:
        assert pairs["tr_idx"].tolist() == [3, 7, 7]
