"""From a run to the arrays that the authors publish: pairs of high influence, and influences inside each class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feldman.errors import QueryError, command
from feldman.estimates.bits import TrialBits
from feldman.estimates.influence import estimate_influence
from feldman.estimates.reading import read_bits
from feldman.estimates.selection import PairSelection
from feldman.exchange.authors_files import MATRIX_FILE, pairs_file_name
from feldman.exchange.folders import built_folder
from feldman.exchange.labels import UNKNOWN_CLASS
from feldman.exchange.npz_writer import NpzWriter
from feldman.results.tables import check_same_trials, read_table
from feldman.trials.rundir import RunPaths
from feldman.trials.session import Progress, ProgressCallback
from feldman.trials.store import TrialStore

__all__ = ["ExportSummary", "class_slabs", "export_authors"]

_SLAB_VALUES = 1_000_000
"""Influences computed at once: eight bytes each, and as much again for each of a dozen intermediate arrays."""

_PAIR_COLUMNS = {"tr_idx": "train_index", "tt_idx": "test_index", "infl": "influence", "mem": "memorization"}


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What was written. ``left_out`` says what was not, and why; None if nothing was."""

    run: str
    folder: str
    files: tuple[str, ...]
    num_trials: int | None
    left_out: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def export_authors(paths: RunPaths, folder: Path, tell: ProgressCallback = lambda progress: None) -> ExportSummary:
    """Write ``high_infl_pairs_infl{I}_mem{M}.npz`` and, where trials and labels are known, ``infl_matrix.npz``.

    Parameters
    ----------
    paths
        The run; its tables must be those of its trials.
    folder
        New or empty; it appears whole or not at all.
    tell
        Told how far it is.

    Raises
    ------
    QueryError
        If the table of pairs does not hold all pairs at two thresholds, or is older than the trials.
    CorruptStoreError
        If a block or a table is damaged.
    ExchangeError, StorageError
        If nothing can be written there.
    """
    memorization, memorization_facts = read_table(paths.memorization, paths.root)
    pairs, facts = read_table(paths.influence, paths.root)
    thresholds = facts.selection.min_influence, facts.selection.min_memorization
    if facts.selection != PairSelection(min_influence=thresholds[0], min_memorization=thresholds[1]):
        raise QueryError(
            f"the authors' file holds all pairs at two thresholds, and {paths.influence} leaves some out (tops, or pairs of one "
            f"class only); where there are trials, make it anew: {command('estimate', paths.root)}"
        )
    store = TrialStore.open(paths.store) if paths.has_store else None
    reason = _no_matrix(store)
    name = pairs_file_name(*thresholds)
    with built_folder(folder) as building:
        with NpzWriter(building / name) as npz:
            for array, column in _PAIR_COLUMNS.items():
                npz.write(array, pairs[column].to_numpy())
        if store is not None and reason is None:
            bits = _read_bits_of(store, {facts.digest, memorization_facts.digest}, tell)
            with NpzWriter(building / MATRIX_FILE) as npz:
                _write_matrices(npz, store, bits, memorization["memorization"].to_numpy(), tell)
    return ExportSummary(
        run=str(paths.root),
        folder=str(folder),
        files=(name,) if reason else (name, MATRIX_FILE),
        num_trials=facts.num_trials,
        left_out=f"{MATRIX_FILE}: {reason}" if reason else None,
    )


def class_slabs(
    bits: TrialBits, train_index: NDArray[np.int64], test_index: NDArray[np.int64]
) -> Iterator[NDArray[np.float64]]:
    """Estimate the influences between some examples, as slabs of rows that fit into memory."""
    num_rows = max(1, _SLAB_VALUES // max(len(test_index), 1))
    for start in range(0, len(train_index), num_rows):
        yield estimate_influence(bits, train_index[start : start + num_rows], test_index).value


def _no_matrix(store: TrialStore | None) -> str | None:
    """Say why influences inside classes cannot be told, if they cannot."""
    if store is None:
        return "the run holds tables and no trials"
    if store.attributes["dataset"]["class_names"] == [UNKNOWN_CLASS]:
        return "the labels of the run are not known"
    return None


def _read_bits_of(store: TrialStore, digests: set[str | None], tell: ProgressCallback) -> TrialBits:
    """Read the trials that the tables are of: one file is not to hold estimates from two sets of trials."""
    bits = read_bits(store, lambda done, total: tell(Progress(stage="reading trials", done=done, total=total)))
    check_same_trials(store.path.parent, {*digests, store.digest()})
    return bits


def _write_matrices(
    npz: NpzWriter, store: TrialStore, bits: TrialBits, memorization: NDArray[np.float64], tell: ProgressCallback
) -> None:
    train_labels, test_labels = store.labels("train"), store.labels("test")
    num_classes = len(store.attributes["dataset"]["class_names"])
    float64 = np.dtype(np.float64)
    for label in range(num_classes):
        train, test = np.flatnonzero(train_labels == label), np.flatnonzero(test_labels == label)
        npz.write_slabs(f"infl_matrix_class{label}", float64, (len(train), len(test)), class_slabs(bits, train, test))
        npz.write(f"tr_classidx_{label}", train)
        npz.write(f"tt_classidx_{label}", test)
        tell(Progress(stage="writing matrices", done=label + 1, total=num_classes))
    for name, values in (("tr_labels", train_labels), ("tt_labels", test_labels), ("tr_mem", memorization)):
        npz.write(name, values)
