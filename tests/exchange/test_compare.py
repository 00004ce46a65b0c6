"""A run beside a file of the authors: the figures, and what is refused to be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy import stats

from feldman.errors import ComparisonError, QueryError
from feldman.estimates.selection import PairSelection
from feldman.exchange.authors_export import export_authors
from feldman.exchange.conformance import compare_with_file
from feldman.exchange.importing import ImportOptions, import_run
from feldman.results.table_writer import TableWriter
from feldman.results.tables import read_table
from feldman.trials.rundir import run_paths
from tests.commands import Commands
from tests.estimates import oracle
from tests.exchange.released import Bits, random_bits, write_labels, write_released

LEVELS = ImportOptions(min_influence=0.1, min_memorization=0.05)


def run_of(folder: Path, bits: Bits, options: ImportOptions = LEVELS) -> Path:
    labels = write_labels(folder.with_suffix(".npz"), bits)
    given = ImportOptions(labels=labels, min_influence=options.min_influence, min_memorization=options.min_memorization)
    import_run(write_released(folder.with_suffix(".released"), bits), folder, given)
    return folder


@pytest.fixture
def two(tmp_path: Path) -> tuple[Bits, Bits]:
    """Two sets of trials on the same examples."""
    first, second = random_bits(0, num_trials=40), random_bits(1, num_trials=40)
    mixed = np.where(
        np.random.default_rng(0).random(first.test_correct.shape) < 0.7, first.test_correct, second.test_correct
    )
    other = Bits(
        masks=first.masks,
        train_correct=first.train_correct | (np.random.default_rng(1).random(first.masks.shape) < 0.2),
        test_correct=mixed,
        train_labels=first.train_labels,
        test_labels=first.test_labels,
    )
    return first, other


def selected(
    influence: NDArray[np.float64],
    memorization: NDArray[np.float64],
    levels: tuple[float, float],
    same: NDArray[np.bool_],
) -> dict[tuple[int, int], float]:
    kept = (influence >= levels[0]) & (memorization >= levels[1])[:, None] & same
    return {(int(i), int(j)): float(influence[i, j]) for i, j in zip(*np.nonzero(kept), strict=True)}


@pytest.mark.parametrize("form", ["pairs", "matrix"])
@pytest.mark.parametrize("levels", [(0.1, 0.05), (0.2, 0.3)])
def test_every_figure_is_that_of_the_textbook(
    tmp_path: Path, two: tuple[Bits, Bits], form: str, levels: tuple[float, float]
) -> None:
    run = run_of(tmp_path / "run", two[0])
    other = run_of(tmp_path / "other", two[1], ImportOptions(min_influence=levels[0], min_memorization=levels[1]))
    files = export_authors(run_paths(other), tmp_path / "out").files
    found = compare_with_file(run_paths(run), tmp_path / "out" / files[form == "matrix"])

    memorization = [oracle.memorization(bits.masks, bits.train_correct) for bits in two]
    influence = [oracle.influence(bits.masks, bits.test_correct) for bits in two]
    same = two[0].train_labels[:, None] == two[0].test_labels
    # A matrix holds all pairs of a class; a file of pairs those at its thresholds, and the run's table those at its own.
    common = (0.1, 0.05) if form == "matrix" else (max(0.1, levels[0]), max(0.05, levels[1]))
    of_class = same if form == "matrix" else np.ones_like(same)
    ours, theirs = (selected(*each, common, of_class) for each in zip(influence, memorization, strict=True))
    both = sorted(ours.keys() & theirs.keys())
    assert len(both) > 3
    assert (found.pairs.num_both, found.pairs.num_only_run, found.pairs.num_only_file) == (
        len(both),
        len(ours) - len(both),
        len(theirs) - len(both),
    )
    assert found.pairs.jaccard == pytest.approx(len(both) / len(ours.keys() | theirs.keys()))
    first, second = (np.array([side[pair] for pair in both]) for side in (ours, theirs))
    assert found.pairs.influence.pearson == pytest.approx(stats.pearsonr(first, second).statistic, abs=1e-9)
    assert found.pairs.influence.mean_absolute_difference == pytest.approx(np.abs(first - second).mean())

    file_pairs = selected(influence[1], memorization[1], levels, np.ones_like(same))
    examples = sorted({pair[0] for pair in file_pairs}) if form == "pairs" else list(range(20))
    assert found.memorization.num_compared == len(examples)
    first, second = memorization[0][examples], memorization[1][examples]
    assert found.memorization.pearson == pytest.approx(stats.pearsonr(first, second).statistic, abs=1e-9)
    assert found.memorization.spearman == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-9)
    assert found.memorization.mean_absolute_difference == pytest.approx(np.abs(first - second).mean())

    assert found.labels_checked == (form == "matrix")
    if form == "matrix":
        assert found.same_class_influence is not None
        assert found.same_class_influence.num_compared == same.sum()
        first, second = (values[same] for values in influence)
        assert found.same_class_influence.pearson == pytest.approx(stats.pearsonr(first, second).statistic, abs=1e-9)
    else:
        assert found.same_class_influence is None


def shuffled(path: Path, out: Path, part: str) -> Path:
    """Give a matrix file's examples of one part another order, consistently."""
    with np.load(path) as matrix:
        arrays = {name: matrix[name] for name in matrix.files}
    prefix = "tr" if part == "training" else "tt"
    order = np.random.default_rng(0).permutation(len(arrays[f"{prefix}_labels"]))
    place = np.argsort(order)
    for name in (f"{prefix}_labels", *(["tr_mem"] if prefix == "tr" else [])):
        arrays[name] = arrays[name][order]
    for name in arrays:
        if name.startswith(f"{prefix}_classidx_"):
            arrays[name] = place[arrays[name]]
    np.savez(out, allow_pickle=False, **arrays)
    return out


@pytest.mark.parametrize("part", ["training", "test"])
def test_a_file_in_another_order_is_told_from_the_run_by_its_labels(
    feldman: Commands, trained: Path, tmp_path: Path, part: str
) -> None:
    export_authors(run_paths(trained), tmp_path / "out")
    path = shuffled(tmp_path / "out" / "infl_matrix.npz", tmp_path / "shuffled.npz", part)
    answer = feldman("compare", str(trained), "--with", str(path))
    assert (answer.code, answer.out) == (1, "")
    with np.load(path) as matrix:
        theirs = matrix["tr_labels" if part == "training" else "tt_labels"]
    ours = np.arange(len(theirs)) % 3
    wrong = np.flatnonzero(ours != theirs)
    assert f"the labels of {len(wrong)} of {len(ours)} {part} examples differ between the run and {path}" in answer.err
    assert f"(example {wrong[0]}: {ours[wrong[0]]} and {theirs[wrong[0]]}, example {wrong[1]}:" in answer.err
    assert "every class has as many in both: the order differs?" in answer.err


def test_labels_that_no_order_makes_equal_are_of_another_data_set(tmp_path: Path) -> None:
    run, other = run_of(tmp_path / "run", random_bits(0)), run_of(tmp_path / "other", random_bits(4))
    export_authors(run_paths(other), tmp_path / "out")
    with pytest.raises(ComparisonError, match=r"they are of different data sets\?"):
        compare_with_file(run_paths(run), tmp_path / "out" / "infl_matrix.npz")


def test_a_data_set_of_another_size_is_refused(trained: Path, tmp_path: Path) -> None:
    other = run_of(tmp_path / "other", random_bits(0))
    files = export_authors(run_paths(other), tmp_path / "out").files
    with pytest.raises(
        ComparisonError, match=r"the run has 60 training examples and .* 20: they are of different data"
    ):
        compare_with_file(run_paths(trained), tmp_path / "out" / files[1])
    np.savez(
        tmp_path / "far.npz", tr_idx=np.array([3]), tt_idx=np.array([30]), infl=np.array([0.5]), mem=np.array([0.5])
    )
    with pytest.raises(ComparisonError, match=r"the run has 30 test examples and .* at least 31"):
        compare_with_file(run_paths(trained), tmp_path / "far.npz")


def test_a_run_without_labels_is_compared_without_looking_at_them(tmp_path: Path) -> None:
    bits = random_bits(0, num_trials=30)
    export_authors(run_paths(run_of(tmp_path / "known", bits)), tmp_path / "out")
    import_run(tmp_path / "known.released", tmp_path / "unknown", LEVELS)
    found = compare_with_file(run_paths(tmp_path / "unknown"), tmp_path / "out" / "infl_matrix.npz")
    assert not found.labels_checked
    assert found.pairs.jaccard == 1
    assert found.same_class_influence is not None
    assert found.same_class_influence.mean_absolute_difference == 0


def test_tables_alone_are_compared_as_far_as_they_go(tmp_path: Path) -> None:
    bits = random_bits(0, num_trials=30)
    pairs_file, matrix_file = (
        tmp_path / "out" / name
        for name in export_authors(run_paths(run_of(tmp_path / "run", bits)), tmp_path / "out").files
    )
    import_run(matrix_file, tmp_path / "matrix", ImportOptions(min_influence=0.4))
    found = compare_with_file(run_paths(tmp_path / "matrix"), matrix_file)
    assert found.labels_checked
    assert 0 < found.pairs.num_both < 10
    assert (found.pairs.jaccard, found.same_class_influence) == (1, None)
    import_run(pairs_file, tmp_path / "pairs")
    found = compare_with_file(run_paths(tmp_path / "pairs"), matrix_file)
    assert not found.labels_checked
    assert (found.pairs.jaccard, found.pairs.same_class) == (1, True)
    with pytest.raises(QueryError, match="holds pairs of one class only, and the run has not the labels"):
        compare_with_file(run_paths(tmp_path / "matrix"), pairs_file)


def test_a_table_of_tops_is_not_compared_nor_exported(done: Path, tmp_path: Path) -> None:
    paths = run_paths(done)
    export_authors(paths, tmp_path / "out")
    table, facts = read_table(paths.influence, done)
    from dataclasses import replace

    cut = replace(facts, selection=PairSelection(top_per_target=3))
    with TableWriter(paths.influence, table.schema, cut) as writer:
        writer.write(table)
    with pytest.raises(QueryError, match="holds tops, and no file of the authors is cut so"):
        compare_with_file(paths, tmp_path / "out" / "infl_matrix.npz")
    with pytest.raises(QueryError, match="leaves some out"):
        export_authors(paths, tmp_path / "again")


def test_the_document_has_every_figure_and_undefined_ones_are_null(
    feldman: Commands, trained: Path, tmp_path: Path
) -> None:
    nothing: dict[str, Any] = {
        "tr_idx": np.empty(0, int),
        "tt_idx": np.empty(0, int),
        "infl": np.empty(0),
        "mem": np.empty(0),
    }
    np.savez(tmp_path / "nothing.npz", **nothing)
    answer = feldman("compare", str(trained), "--with", "nothing.npz", "--json")
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    assert document["memorization"] == {
        "num_compared": 0,
        "pearson": None,
        "mean_absolute_difference": None,
        "spearman": None,
        "num_bins": 18,
        "total_variation": None,
        "earth_movers_distance": None,
    }
    table = pq.read_table(trained / "influence.parquet")
    assert document["pairs"]["num_only_run"] == len(table)
    assert document["pairs"]["jaccard"] == 0
    assert document["same_class_influence"] is None


def test_a_table_for_people_says_the_same(feldman: Commands, trained: Path, tmp_path: Path) -> None:
    export_authors(run_paths(trained), tmp_path / "out")
    answer = feldman("compare", str(trained), "--with", "out/infl_matrix.npz")
    assert answer.code == 0
    assert answer.out.splitlines()[0] == f"{trained} (40 trials) and out/infl_matrix.npz; the labels are the same"
    assert "training examples with memorization in both" in answer.out
    assert "of one class: in both" in answer.out
    assert "earth mover's distance" in answer.out
    correlations = [line for line in answer.out.splitlines() if "correlation" in line]
    assert len(correlations) == 4
    assert all(line.endswith("1.0000") for line in correlations)
