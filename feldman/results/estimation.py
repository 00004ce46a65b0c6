"""From a store to tables: read bits, a panel of training examples at a time, estimate, write."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits
from feldman.estimates.counting import Counting
from feldman.estimates.influence import PairCollector, run_tiles
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.packing import count_bits
from feldman.estimates.reading import BitReader
from feldman.estimates.selection import PairSelection
from feldman.estimates.tiles import TileInputs, target_lanes
from feldman.results.all_pairs import Extras, count_all_pairs
from feldman.results.matrix import open_counts
from feldman.results.table_sink import Counter, TableSink
from feldman.results.tables import TableFacts
from feldman.trials.integrity import Damage, refuse_damage
from feldman.trials.locations import local_path
from feldman.trials.rundir import RunPaths, table_lock
from feldman.trials.session import Progress, ProgressCallback
from feldman.trials.storage import storage_errors
from feldman.trials.store import TrialStore

__all__ = ["Estimated", "write_estimates"]


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """What was written.

    Attributes
    ----------
    facts
        What the tables were made from.
    num_pairs
        Rows of the table of pairs.
    num_blocks_read
        Blocks whose bits were read.
    """

    facts: TableFacts
    num_pairs: int
    num_blocks_read: int


def write_estimates(
    paths: RunPaths,
    *,
    selection: PairSelection,
    counting: Counting | None = None,
    extras: Extras | None = None,
    tell: ProgressCallback = lambda progress: None,
) -> Estimated:
    """Estimate from the trials that are committed now, and write both tables.

    One process at a time does so, and looks at the store when its turn comes: tables only ever get newer. They are equal to the
    last byte however the run was interrupted and wherever pairs were counted: nothing in them tells when or how they were made.
    On this machine the memory it takes depends on the targets and on the pairs that are kept; of the training set it holds a
    panel, and some 30 bytes an example.

    Parameters
    ----------
    paths
        The run.
    selection
        Which pairs are kept.
    counting
        Where pairs are counted; by default on the cores of this machine.
    extras
        What to write besides; by default nothing.
    tell
        Told how far it is.

    Raises
    ------
    CorruptStoreError
        If a committed block is damaged.
    StorageError
        If the storage refuses.
    QueryError
        If extras are asked for that there are not for these targets.
    """
    counting, extras = counting or Counting(), extras or Extras()
    if selection.targets == "train" and extras.any:
        raise QueryError(
            "the matrix and kept counts are of test examples; leave them out for pairs of training examples"
        )
    waiting = Progress(stage="waiting", note=f"another estimate of {paths.root} is being made; waiting for it")
    if extras.any:
        local_path(paths.root, "--matrix and --keep-counts write")
    with table_lock(paths, lambda: tell(waiting)) as paths, storage_errors(paths.root):
        store = TrialStore.open(paths.store)
        kept = open_counts(local_path(paths.counts, "counts are kept"), store) if extras.keep_counts else None
        reading = Counter("reading trials", tell)
        reader = BitReader(
            store, sorted(set(store.committed_blocks()) - set(kept.blocks)) if kept else None, reading.add
        )
        reading.total = reader.num_chunks(selection.targets)
        blocks = sorted({*reader.blocks, *(kept.blocks if kept else ())})  # others may be committed from now on
        looking = Counter("estimating influence", tell, store.num_train)
        facts = TableFacts(
            num_trials=store.num_trials_in(blocks),
            fingerprint=store.experiment.fingerprint,
            digest=_digest(store, blocks),
            num_train=store.num_train,
            num_test=store.num_test,
            class_names=tuple(store.attributes["dataset"]["class_names"]),
            selection=selection,
        )
        with TableSink(paths, store, facts) as sink:
            if extras.any:
                count_all_pairs(
                    paths, store, reader, sink, counting=counting, extras=extras, kept=kept, looking=looking
                )
            else:
                _select(reader, sink, counting, looking)
    return Estimated(facts=sink.facts, num_pairs=sink.num_pairs, num_blocks_read=len(reader.blocks))


def _digest(store: TrialStore, blocks: list[int]) -> str:
    """Return the digest of blocks; refuse accuracies that cannot be read, as any other damage is refused."""
    try:
        return store.digest(blocks)
    except ValueError:
        damage = []
        for block in blocks:
            try:
                store.digest([block])
            except ValueError as error:
                damage.append(Damage(block=block, array="accuracy", problem=str(error)))
        refuse_damage(store, damage)
        raise


def _select(reader: BitReader, sink: TableSink, counting: Counting, looking: Counter) -> None:
    """Count the pairs of examples that are memorized enough, and keep those that are selected."""
    selection, test_correct = sink.facts.selection, reader.read_test()
    correct = test_correct if selection.targets == "test" else reader.read_train_correct()
    targets = target_lanes(correct, sink.target_label if selection.same_class else None)
    totals = count_bits(correct, correct).astype(np.float64)
    collector = PairCollector(selection, reader.num_trials, totals, sink.take_pairs)
    for panel in reader.panels(whole=counting.address is not None):
        mask, train_correct = reader.read_train(panel)
        bits = TrialBits(
            num_trials=reader.num_trials, subset_mask=mask, train_correct=train_correct, test_correct=test_correct
        )
        candidates = sink.take_memorization(panel, estimate_memorization(bits))
        looking.add(len(panel) - len(candidates))
        if not len(candidates):
            continue
        inputs = TileInputs.balanced(
            num_trials=reader.num_trials,
            selection=selection,
            targets=targets,
            train_index=candidates,
            masks=mask[candidates - panel.start],
            row_label=sink.train_label[candidates],
            num_workers=counting.num_workers,
            asked=collector.asked(),
        )
        with counting.selecting(inputs) as executor:
            run_tiles(inputs, executor, lambda tile, result: collector.add(result), looking.add)
    collector.finish()
    reader.finish()
