"""Where estimates go: the two tables of a run, open until all of it was read."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

import numpy as np
import pyarrow as pa
from jaxtyping import Int64
from numpy.typing import NDArray

from feldman.estimates.influence import Pairs
from feldman.estimates.memorization import Memorization
from feldman.estimates.significance import QValues, num_pairs_tested
from feldman.results.table_writer import TableWriter
from feldman.results.tables import (
    MEMORIZATION_SCHEMA,
    ORIGINAL_LABEL,
    TableFacts,
    column,
    influence_schema,
    influence_table,
    memorization_table,
)
from feldman.trials.rundir import RunPaths
from feldman.trials.session import Progress, ProgressCallback
from feldman.trials.store import TrialStore

__all__ = ["Counter", "TableSink"]


class TableSink:
    """Writes both tables as estimates come. A context manager: left without an error, the tables appear.

    Where a p-value ranks among the others is known in the end: then the table of pairs is read once more, and gets its q-values.
    The p-values are held until then, 8 bytes a pair.

    Parameters
    ----------
    paths, store
        The run.
    facts
        What is estimated from what.

    Attributes
    ----------
    facts
        As given, and in the end of how many pairs the selected ones were chosen.
    train_label, target_label
        Labels of the training examples, and of the examples whose predictions are influenced.
    """

    def __init__(self, paths: RunPaths, store: TrialStore, facts: TableFacts) -> None:
        self.facts = facts
        self.train_label = store.labels("train")
        self.target_label = store.labels(facts.selection.targets)
        self._original = store.original_train_labels()
        self._memorization = np.full(store.num_train, np.nan)
        self._p_values: list[NDArray[np.float64]] = []
        schema = influence_schema(facts.selection.targets)
        path = paths.influence if facts.selection.targets == "test" else paths.influence_on_train
        self._open = ExitStack()
        columns = MEMORIZATION_SCHEMA if self._original is None else MEMORIZATION_SCHEMA.append(ORIGINAL_LABEL)
        with self._open:  # should the second not open, the first is closed
            self._memorized = self._open.enter_context(TableWriter(paths.memorization, columns, facts))
            self._pairs = self._open.enter_context(TableWriter(path, schema, facts, cut_by=schema.names[1]))
            self._open = self._open.pop_all()

    @property
    def num_pairs(self) -> int:
        """Pairs written so far."""
        return self._pairs.num_rows

    def take_memorization(self, panel: range, found: Memorization) -> Int64[np.ndarray, " candidate"]:
        """Write the memorization of the next training examples; return those memorized enough to be looked at for pairs."""
        part = slice(panel.start, panel.stop)
        original = None if self._original is None else self._original[part]
        self._memorized.write(memorization_table(found, self.train_label[part], first=panel.start, original=original))
        self._memorization[panel.start : panel.stop] = found.memorization
        chosen: NDArray[np.int64] = np.flatnonzero(found.memorization >= self.facts.selection.min_memorization)
        return chosen + panel.start

    def take_pairs(self, pairs: Pairs) -> None:
        """Write the next pairs."""
        labels, targets = (self.train_label, self.target_label), self.facts.selection.targets
        self._p_values.append(pairs.p_value)
        self._pairs.write(influence_table(pairs, self._memorization, *labels, targets=targets))

    def _rank(self) -> None:
        """Give pairs their q-values, over all that were looked at."""
        selection = self.facts.selection
        candidate_label = self.train_label[self._memorization >= selection.min_memorization]
        num_tested = num_pairs_tested(selection, candidate_label, self.target_label)
        self.facts = replace(self.facts, num_pairs_tested=num_tested)
        ranked = QValues.of(np.concatenate([np.empty(0), *self._p_values]), num_tested)

        def with_q_values(rows: pa.Table) -> pa.Table:
            q_value = column(ranked(rows["p_value"].to_numpy()), pa.float64())
            return rows.set_column(rows.column_names.index("q_value"), "q_value", q_value)

        self._pairs.change_when_done(with_q_values, self.facts)

    def __enter__(self) -> TableSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._rank()
        self._open.__exit__(kind, error, traceback)


class Counter:
    """Counts up to a total, and tells."""

    def __init__(self, stage: str, tell: ProgressCallback, total: int = 0) -> None:
        self.total = total
        self._stage, self._tell, self._done = stage, tell, 0

    def add(self, count: int) -> None:
        """Tell that so many more are done."""
        self._done += count
        self._tell(Progress(stage=self._stage, done=self._done, total=self.total))
