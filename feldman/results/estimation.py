"""From a store to tables: read bits, estimate, write."""

from __future__ import annotations

from collections.abc import Callable

from feldman.estimates.bits import labels_of, read_bits
from feldman.estimates.influence import select_pairs
from feldman.estimates.memorization import estimate_memorization
from feldman.results.tables import (
    DEFAULT_MIN_INFLUENCE,
    DEFAULT_MIN_MEMORIZATION,
    INFLUENCE_SCHEMA,
    MEMORIZATION_SCHEMA,
    TableFacts,
    influence_table,
    memorization_table,
    write_table,
)
from feldman.trials.rundir import RunPaths
from feldman.trials.store import TrialStore, storage_errors

__all__ = ["write_estimates"]


def write_estimates(
    paths: RunPaths,
    store: TrialStore,
    *,
    min_influence: float = DEFAULT_MIN_INFLUENCE,
    min_memorization: float = DEFAULT_MIN_MEMORIZATION,
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> TableFacts:
    """Estimate from the trials that are committed now, and write both tables.

    The tables of one run are one to the last byte however it was interrupted: nothing in them tells when they were made.

    Parameters
    ----------
    paths, store
        The run.
    min_influence, min_memorization
        Which pairs are kept.
    on_progress
        Told the stage, how much of it is done, and how much there is.

    Raises
    ------
    CorruptStoreError
        If a committed block is damaged.
    StorageError
        If the storage refuses.
    """
    blocks_done = 0

    def count_block(block: int) -> None:  # noqa: ARG001
        nonlocal blocks_done
        blocks_done += 1
        on_progress("reading trials", blocks_done, num_committed)

    num_committed = len(store.committed_blocks())
    train_labels, test_labels = labels_of(store)
    bits = read_bits(store, count_block)
    memorization = estimate_memorization(bits)
    num_candidates = int((memorization.memorization >= min_memorization).sum())
    examples_done = 0

    def count_examples(count: int) -> None:
        nonlocal examples_done
        examples_done += count
        on_progress("estimating influence", examples_done, num_candidates)

    pairs = select_pairs(
        bits,
        memorization.memorization,
        min_influence=min_influence,
        min_memorization=min_memorization,
        on_examples=count_examples,
    )
    facts = TableFacts(
        num_trials=bits.num_trials,
        fingerprint=store.experiment.fingerprint,
        min_influence=min_influence,
        min_memorization=min_memorization,
    )
    tables = (influence_table(part, memorization.memorization, train_labels, test_labels) for part in pairs)
    with storage_errors(paths.root):
        write_table([memorization_table(memorization, train_labels)], MEMORIZATION_SCHEMA, facts, paths.memorization)
        write_table(tables, INFLUENCE_SCHEMA, facts, paths.influence)
    return facts
