"""Does a run say what the authors' file says? Memorization, pairs, and influences inside classes, side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feldman.errors import QueryError, command
from feldman.estimates.reading import read_bits
from feldman.estimates.selection import PairSelection
from feldman.exchange.agreement import (
    NUM_BINS,
    Agreement,
    RunningAgreement,
    agreement,
    histogram_distances,
    spearman,
)
from feldman.exchange.authors_export import class_slabs
from feldman.exchange.authors_files import MatrixFile, PairsFile, SelectedPairs, join_pairs, open_authors_file
from feldman.exchange.same_examples import KnownLabels, check_labels, check_sizes, known_labels
from feldman.results.tables import TableFacts, check_same_trials, read_table
from feldman.trials.rundir import RunPaths
from feldman.trials.session import Progress, ProgressCallback
from feldman.trials.store import TrialStore

__all__ = ["Conformance", "MemorizationAgreement", "PairsAgreement", "compare_with_file"]

_BothLabels = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class MemorizationAgreement(Agreement):
    """Memorization on both sides.

    Attributes
    ----------
    spearman
        Rank correlation.
    num_bins, total_variation, earth_movers_distance
        Of the two histograms, on 0 .. 1; see `histogram_distances`.
    """

    spearman: float
    num_bins: int
    total_variation: float
    earth_movers_distance: float


@dataclass(frozen=True, kw_only=True)
class PairsAgreement:
    """Pairs that each side selects by its own estimates, and the influence of those in both.

    Attributes
    ----------
    min_influence, min_memorization, same_class
        How they are selected: the thresholds of the side that holds fewer.
    num_both, num_only_run, num_only_file
        How many pairs.
    jaccard
        Share of those in either that are in both; NaN if there are none.
    influence
        Of the pairs in both.
    """

    min_influence: float
    min_memorization: float
    same_class: bool
    num_both: int
    num_only_run: int
    num_only_file: int
    jaccard: float
    influence: Agreement


@dataclass(frozen=True, kw_only=True)
class Conformance:
    """What the comparison of a run with a file of the authors found.

    Attributes
    ----------
    num_trials
        That the run's tables are from; None if they were imported too.
    labels_checked
        Whether both sides know the labels, which were then equal.
    same_class_influence
        Of all pairs of one class; None unless the file holds them and the run has trials.
    """

    run: str
    file: str
    num_trials: int | None
    labels_checked: bool
    memorization: MemorizationAgreement
    pairs: PairsAgreement
    same_class_influence: Agreement | None

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def compare_with_file(paths: RunPaths, path: Path, tell: ProgressCallback = lambda progress: None) -> Conformance:
    """Compare a run with a file of pairs or a matrix file.

    Parameters
    ----------
    paths
        The run: its tables and, if it has any, its trials.
    path
        The file.
    tell
        Told how far it is.

    Raises
    ------
    ComparisonError
        If they are not of the same examples in the same order.
    ExchangeError
        If the file cannot be read.
    QueryError
        If the run's table of pairs is cut in a way that the file is not.
    """
    memorization, other_facts = read_table(paths.memorization, paths.root)
    pairs, facts = read_table(paths.influence, paths.root)
    store = TrialStore.open(paths.store) if paths.has_store else None
    check_same_trials(paths.root, {facts.digest, other_facts.digest, *([store.digest()] if store else [])})
    train_labels, test_labels = known_labels(store, memorization, pairs)
    if facts.selection.has_tops:
        raise QueryError(
            f"{paths.influence} holds tops, and no file of the authors is cut so; make it anew: "
            f"{command('estimate', paths.root)}"
        )
    with open_authors_file(path) as file:
        if isinstance(file, MatrixFile):
            check_sizes(facts, (len(file.labels.train), len(file.labels.test)), path, exactly=True)
            check_labels(train_labels, file.labels.train, "training", path)
            check_labels(test_labels, file.labels.test, "test", path)
            train, values = np.arange(len(file.memorization)), file.memorization
            selection = replace(facts.selection, same_class=True)
            theirs, same_class_influence = _scan_matrices(file, selection, store, tell)
            ours = _pairs_of_run(pairs, selection, (file.labels.train, file.labels.test))
        else:
            check_sizes(facts, _sizes_needed(file), path, exactly=False)
            train, first = np.unique(file.train_index, return_index=True)
            values, same_class_influence = file.memorization[first], None
            selection = _common_selection(facts.selection, file)
            labels = _all_labels(facts, train_labels, test_labels, path)
            theirs = _pairs_of_file(file, selection, labels)
            ours = _pairs_of_run(pairs, selection, labels)
        return Conformance(
            run=str(paths.root),
            file=str(path),
            num_trials=facts.num_trials,
            labels_checked=isinstance(file, MatrixFile) and len(train_labels.index) > 0 and len(test_labels.index) > 0,
            memorization=_compare_memorization(memorization, train, values),
            pairs=_compare_pairs(ours, theirs, selection),
            same_class_influence=same_class_influence,
        )


def _sizes_needed(file: PairsFile) -> tuple[int, int]:
    return int(file.train_index.max(initial=-1)) + 1, int(file.test_index.max(initial=-1)) + 1


def _common_selection(kept: PairSelection, file: PairsFile) -> PairSelection:
    """Return thresholds at which both sides hold all their pairs."""
    min_influence, min_memorization = file.thresholds()
    return replace(
        kept,
        min_influence=max(kept.min_influence, min_influence),
        min_memorization=max(kept.min_memorization, min_memorization),
    )


def _all_labels(facts: TableFacts, train: KnownLabels, test: KnownLabels, path: Path) -> _BothLabels | None:
    """Return the labels of all examples, if pairs have to be told apart by them."""
    if not facts.selection.same_class:
        return None
    if (len(train.index), len(test.index)) != (facts.num_train, facts.num_test):
        raise QueryError(
            f"the run's table holds pairs of one class only, and the run has not the labels that would choose those of {path}; "
            "compare it with a matrix file"
        )
    return train.label, test.label


def _pairs_of_file(file: PairsFile, selection: PairSelection, labels: _BothLabels | None) -> SelectedPairs:
    kept = (file.influence >= selection.min_influence) & (file.memorization >= selection.min_memorization)
    if labels is not None:
        kept &= labels[0][file.train_index] == labels[1][file.test_index]
    return SelectedPairs(
        train_index=file.train_index[kept], test_index=file.test_index[kept], influence=file.influence[kept]
    )


def _pairs_of_run(table: pa.Table, selection: PairSelection, labels: _BothLabels | None) -> SelectedPairs:
    train, test, influence, memorization = (
        table[name].to_numpy() for name in ("train_index", "test_index", "influence", "memorization")
    )
    kept = (influence >= selection.min_influence) & (memorization >= selection.min_memorization)
    if labels is not None:
        kept &= labels[0][train] == labels[1][test]
    return SelectedPairs(train_index=train[kept], test_index=test[kept], influence=influence[kept])


def _scan_matrices(
    file: MatrixFile, selection: PairSelection, store: TrialStore | None, tell: ProgressCallback
) -> tuple[SelectedPairs, Agreement | None]:
    """Select the file's pairs, and compare all of its influences with those of the run's trials, a class at a time."""
    bits = None
    if store is not None:
        bits = read_bits(store, lambda done, total: tell(Progress(stage="reading trials", done=done, total=total)))
    running, parts = RunningAgreement(), []
    for done, matrix in enumerate(file.classes(), 1):
        parts.append(matrix.selected(file.memorization, selection))
        if bits is not None:
            first = 0
            for slab in class_slabs(bits, matrix.train_index, matrix.test_index):
                running.add(slab, matrix.influence[first : first + len(slab)])
                first += len(slab)
        tell(Progress(stage="comparing matrices", done=done, total=file.num_classes))
    return join_pairs(parts), None if bits is None else running.result()


def _compare_pairs(ours: SelectedPairs, theirs: SelectedPairs, selection: PairSelection) -> PairsAgreement:
    """Compare two selections as sets, and the influence of what is in both."""
    scale = 1 + max(int(side.test_index.max(initial=0)) for side in (ours, theirs))
    in_ours, in_theirs = (side.train_index * scale + side.test_index for side in (ours, theirs))
    both, in_run, in_file = np.intersect1d(in_ours, in_theirs, assume_unique=True, return_indices=True)
    either = len(in_ours) + len(in_theirs) - len(both)
    return PairsAgreement(
        min_influence=selection.min_influence,
        min_memorization=selection.min_memorization,
        same_class=selection.same_class,
        num_both=len(both),
        num_only_run=len(in_ours) - len(both),
        num_only_file=len(in_theirs) - len(both),
        jaccard=len(both) / either if either else float("nan"),
        influence=agreement(ours.influence[in_run], theirs.influence[in_file]),
    )


def _compare_memorization(
    table: pa.Table, train: NDArray[np.int64], values: NDArray[np.float64]
) -> MemorizationAgreement:
    """Compare the memorization of the examples that both sides have a value for."""
    _, ours, theirs = np.intersect1d(table["train_index"].to_numpy(), train, return_indices=True)
    first, second = table["memorization"].to_numpy()[ours], values[theirs]
    defined = ~(np.isnan(first) | np.isnan(second))
    first, second = first[defined], second[defined]
    total_variation, earth_movers_distance = histogram_distances(first, second)
    return MemorizationAgreement(
        **asdict(agreement(first, second)),
        spearman=spearman(first, second),
        num_bins=NUM_BINS,
        total_variation=total_variation,
        earth_movers_distance=earth_movers_distance,
    )
