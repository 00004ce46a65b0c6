"""Count all pairs: for the whole matrix of influences, and for counts that the next estimate adds to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float64, Integer
from numpy.typing import NDArray

from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits
from feldman.estimates.counting import Counting
from feldman.estimates.dense import influence_of_counts, select_from_counts
from feldman.estimates.influence import PairCollector, run_tiles
from feldman.estimates.memorization import MemorizationCounts, count_memorization, memorization_from_counts
from feldman.estimates.packing import count_bits
from feldman.estimates.reading import BitReader
from feldman.estimates.tiles import TileInputs, target_lanes
from feldman.results.matrix import CHUNK_ROWS, KeptCounts, MatrixPrecision, new_counts, new_matrix
from feldman.results.table_sink import Counter, TableSink
from feldman.trials.locations import local_path
from feldman.trials.rundir import RunPaths
from feldman.trials.store import TrialStore

__all__ = ["Extras", "count_all_pairs"]


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What an estimate leaves besides the tables. Either makes it count all pairs, not only those that may be selected.

    Attributes
    ----------
    matrix
        Write all influences as ``influence.zarr``, in this precision.
    keep_counts
        Add to the counts of the last estimate, ``counts.zarr``, so that only new blocks are read, and keep those of this one.
    """

    matrix: MatrixPrecision | None = None
    keep_counts: bool = False

    def __post_init__(self) -> None:
        """Refuse another precision."""
        if self.matrix not in (None, "float16", "float32"):
            raise QueryError(f"the matrix is written in float16 or float32; found {self.matrix!r}")

    @property
    def any(self) -> bool:
        """Whether anything is asked for."""
        return self.matrix is not None or self.keep_counts


def count_all_pairs(
    paths: RunPaths,
    store: TrialStore,
    reader: BitReader,
    sink: TableSink,
    *,
    counting: Counting,
    extras: Extras,
    kept: KeptCounts | None,
    looking: Counter,
) -> None:
    """Write the tables, and what is asked for besides.

    Parameters
    ----------
    paths, store
        The run.
    reader
        Reads the blocks that ``kept`` does not count.
    sink
        Takes the estimates.
    counting, extras
        Where to count, and what to write.
    kept
        Counts of an earlier estimate, or None.
    looking
        Told how many training examples are done.
    """
    num_trials, shape = sink.facts.num_trials or 0, (store.num_train, store.num_test)
    test_correct = reader.read_test()
    totals = count_bits(test_correct, test_correct) + (kept.totals if kept else np.zeros(store.num_test))
    targets = target_lanes(test_correct)
    collector = PairCollector(sink.facts.selection, num_trials, totals, sink.take_pairs)
    blocks = sorted({*reader.blocks, *(kept.blocks if kept else ())})
    with ExitStack() as outputs:
        fresh, matrix = None, None
        if extras.keep_counts and not (kept and not reader.blocks):  # else those that are there are still the ones
            fresh = outputs.enter_context(
                new_counts(local_path(paths.counts, "counts are kept"), store, blocks, num_trials)
            )
            fresh.write_totals(totals)
        if extras.matrix:
            matrix = outputs.enter_context(
                new_matrix(local_path(paths.matrix, "the matrix is written"), sink.facts, shape, extras.matrix)
            )
        for panel in reader.panels(whole=counting.address is not None):
            mask, train_correct = reader.read_train(panel)
            bits = TrialBits(
                num_trials=reader.num_trials, subset_mask=mask, train_correct=train_correct, test_correct=test_correct
            )
            counts = _with_kept(count_memorization(bits), kept, panel)
            if fresh:
                fresh.write_memorization_counts(panel, counts)
            candidates = sink.take_memorization(panel, memorization_from_counts(counts, num_trials))
            inputs = TileInputs(
                num_trials=num_trials,
                selection=sink.facts.selection,
                targets=targets,
                train_index=np.array(panel, np.int64),
                masks=mask,
                num_in=counts.num_in,
                row_label=sink.train_label[panel.start : panel.stop],
                own_lane=np.full(len(panel), -1),
                asked=np.full(len(targets.target), -np.inf),
                tile_rows=CHUNK_ROWS,
            )
            work = _Panel(
                inputs=inputs,
                totals=totals,
                eligible=_eligible(sink, panel, candidates),
                kept=kept,
                fresh=fresh,
                matrix=matrix,
            )
            with counting.counting(inputs) as executor:
                run_tiles(inputs, executor, partial(_take_tile, work, collector), looking.add)
        collector.finish()
        reader.finish()


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """What the counts of a panel's tiles are put together with, and where they go.

    Attributes
    ----------
    inputs
        The rows: training examples that follow one another.
    totals
        float64 [test]: trials that got each test example right.
    eligible
        From a slice of rows to which of their pairs may be selected.
    kept, fresh, matrix
        Counts to add to, counts to write, the matrix to write; any may be None.
    """

    inputs: TileInputs
    totals: Float64[np.ndarray, " test"]
    eligible: Callable[[slice], NDArray[np.bool_]]
    kept: KeptCounts | None
    fresh: KeptCounts | None
    matrix: zarr.Array[Any] | None


def _take_tile(panel: _Panel, collector: PairCollector, tile: int, counts: Integer[np.ndarray, "row test"]) -> None:
    """Add the counts of a tile to those that were kept; write the sum, and select from it."""
    inputs, rows = panel.inputs, panel.inputs.rows_of(tile)
    part, first = slice(rows.start, rows.stop), int(inputs.train_index[0])
    whole = slice(first + rows.start, first + rows.stop)
    if panel.kept:
        counts = counts + panel.kept.joint(whole)
    influence = influence_of_counts(counts, inputs.num_in[part], panel.totals, inputs.num_trials)
    if panel.fresh:
        panel.fresh.write_joint(whole, counts)
    if panel.matrix is not None:
        panel.matrix[whole] = influence
    collector.add(select_from_counts(inputs, tile, counts, influence, panel.eligible(part)))


def _eligible(sink: TableSink, panel: range, candidates: NDArray[np.int64]) -> Callable[[slice], NDArray[np.bool_]]:
    """Return which pairs of some of a panel's rows may be selected: [row, test], or [row, 1] where classes do not matter."""
    memorized = np.zeros((len(panel), 1), bool)
    memorized[candidates - panel.start] = True
    if not sink.facts.selection.same_class:
        return lambda rows: memorized[rows]
    labels = sink.train_label[panel.start : panel.stop, None]
    return lambda rows: memorized[rows] & (labels[rows] == sink.target_label)


def _with_kept(counts: MemorizationCounts, kept: KeptCounts | None, panel: range) -> MemorizationCounts:
    if kept is None:
        return counts
    before = kept.memorization_counts(panel)
    return MemorizationCounts(
        num_in=before.num_in + counts.num_in,
        correct_in=before.correct_in + counts.correct_in,
        correct=before.correct + counts.correct,
    )
