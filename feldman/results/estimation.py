"""From a store to tables: read bits, estimate, write."""

from __future__ import annotations

from feldman.estimates.bits import read_bits
from feldman.estimates.influence import select_pairs
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.selection import PairSelection
from feldman.results.table_writer import TableWriter
from feldman.results.tables import (
    MEMORIZATION_SCHEMA,
    TableFacts,
    influence_schema,
    influence_table,
    memorization_table,
)
from feldman.trials.rundir import RunPaths, table_lock
from feldman.trials.session import Progress, ProgressCallback
from feldman.trials.storage import storage_errors
from feldman.trials.store import TrialStore

__all__ = ["write_estimates"]


def write_estimates(
    paths: RunPaths,
    *,
    selection: PairSelection,
    tell: ProgressCallback = lambda progress: None,
) -> TableFacts:
    """Estimate from the trials that are committed now, and write both tables.

    One process at a time does so, and looks at the store when its turn comes: tables only ever get newer. They are equal to the
    last byte however the run was interrupted: nothing in them tells when they were made.

    Parameters
    ----------
    paths
        The run.
    selection
        Which pairs are kept.
    tell
        Told how far it is.

    Raises
    ------
    CorruptStoreError
        If a committed block is damaged.
    StorageError
        If the storage refuses.
    """
    with table_lock(paths):
        store = TrialStore.open(paths.store)
        reading = _Counter("reading trials", len(store.committed_blocks()), tell)
        bits = read_bits(store, lambda block: reading.add(1))
        memorization = estimate_memorization(bits)
        train_labels, test_labels = store.labels("train"), store.labels("test")
        looking = _Counter(
            "estimating influence", int((memorization.memorization >= selection.min_memorization).sum()), tell
        )
        pairs = select_pairs(
            bits,
            memorization.memorization,
            min_influence=selection.min_influence,
            min_memorization=selection.min_memorization,
            on_examples=looking.add,
        )
        facts = TableFacts(
            num_trials=bits.num_trials,
            fingerprint=store.experiment.fingerprint,
            digest=store.digest(),
            num_train=store.num_train,
            num_test=store.num_test,
            class_names=tuple(store.attributes["dataset"]["class_names"]),
            selection=selection,
        )
        tables = (influence_table(part, memorization.memorization, train_labels, test_labels) for part in pairs)
        with storage_errors(paths.root):
            with TableWriter(paths.memorization, MEMORIZATION_SCHEMA, facts) as writer:
                writer.write(memorization_table(memorization, train_labels))
            with TableWriter(paths.influence, influence_schema(), facts, cut_by="test_index") as writer:
                for table in tables:
                    writer.write(table)
    return facts


class _Counter:
    """Counts up to a total, and tells."""

    def __init__(self, stage: str, total: int, tell: ProgressCallback) -> None:
        self._stage, self._total, self._tell, self._done = stage, total, tell, 0

    def add(self, count: int) -> None:
        self._done += count
        self._tell(Progress(stage=self._stage, done=self._done, total=self._total))
