"""From a file of the authors to the tables of a run: what they published of their estimates, without the trials."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feldman.errors import ExchangeError
from feldman.estimates.selection import PairSelection
from feldman.exchange.authors_files import MatrixFile, PairsFile, join_pairs
from feldman.exchange.labels import Labels
from feldman.results.table_writer import TableWriter
from feldman.results.tables import MEMORIZATION_SCHEMA, TableFacts, influence_schema
from feldman.trials.rundir import RunPaths
from feldman.trials.session import Progress, ProgressCallback

__all__ = ["import_matrix", "import_pairs"]

_Columns = dict[str, NDArray[np.int64] | NDArray[np.float64]]


def import_pairs(
    paths: RunPaths,
    file: PairsFile,
    labels: Labels | None,
    *,
    asked: tuple[float | None, float | None],
) -> TableFacts:
    """Write the tables of a file of pairs: the distinct training examples, and the pairs. What it does not tell is null.

    Parameters
    ----------
    paths
        The run that is made.
    file
        The pairs.
    labels
        Of all examples, or None.
    asked
        Thresholds of influence and memorization; None keeps all pairs that the file holds.

    Raises
    ------
    ExchangeError
        If the thresholds are below those of the file, or the labels are fewer than its examples.
    """
    thresholds = [
        _threshold(*each)
        for each in zip(
            ("influence", "memorization"), asked, file.thresholds(), file.named_thresholds or (None, None), strict=True
        )
    ]
    if labels is not None:
        _check_enough(labels, file)
    selection = PairSelection(min_influence=thresholds[0], min_memorization=thresholds[1])
    facts = _facts(file.name, labels, selection)
    train, first = np.unique(file.train_index, return_index=True)
    kept = (file.influence >= selection.min_influence) & (file.memorization >= selection.min_memorization)
    pairs: _Columns = {
        "train_index": file.train_index[kept],
        "test_index": file.test_index[kept],
        "influence": file.influence[kept],
        "memorization": file.memorization[kept],
    }
    _write(paths, facts, {"train_index": train, "memorization": file.memorization[first]}, pairs, labels)
    return facts


def import_matrix(paths: RunPaths, file: MatrixFile, selection: PairSelection, *, tell: ProgressCallback) -> TableFacts:
    """Write the tables of a matrix file: all training examples, and the pairs of one class that are selected.

    One matrix is in memory at a time, and the pairs that are kept: 24 bytes each.

    Raises
    ------
    ExchangeError
        As `MatrixFile.classes`.
    """
    facts = _facts(file.name, file.labels, selection)
    parts = []
    for done, matrix in enumerate(file.classes(), 1):
        parts.append(matrix.selected(file.memorization, selection))
        tell(Progress(stage="reading matrices", done=done, total=file.num_classes))
    selected = join_pairs(parts)
    memorized: _Columns = {"train_index": np.arange(len(file.memorization)), "memorization": file.memorization}
    pairs: _Columns = {**vars(selected), "memorization": file.memorization[selected.train_index]}
    _write(paths, facts, memorized, pairs, file.labels)
    return facts


def _threshold(name: str, asked: float | None, held: float, named: float | None) -> float:
    """Return a threshold that the table can be said to be complete for; only the name of a file tells what it left out."""
    if asked is not None and named is not None and asked < named:
        raise ExchangeError(
            f"the file holds pairs with {name} >= {named:g}, as its name says; found --min-{name} {asked:g}: "
            f"give {named:g} or more, or leave it out"
        )
    return held if asked is None else asked


def _check_enough(labels: Labels, file: PairsFile) -> None:
    for part, known, index in (("training", labels.train, file.train_index), ("test", labels.test, file.test_index)):
        if len(index) and index.max() >= len(known):
            raise ExchangeError(
                f"{file.name} names {part} example {index.max()}, and --labels has {len(known)} {part} labels: "
                "they are of another data set"
            )


def _facts(source: str, labels: Labels | None, selection: PairSelection) -> TableFacts:
    return TableFacts(
        source=source,
        num_train=None if labels is None else len(labels.train),
        num_test=None if labels is None else len(labels.test),
        class_names=() if labels is None else labels.class_names,
        selection=selection,
    )


def _write(paths: RunPaths, facts: TableFacts, memorization: _Columns, pairs: _Columns, labels: Labels | None) -> None:
    if labels is not None:
        memorization["label"] = labels.train[memorization["train_index"]]
        pairs["train_label"] = labels.train[pairs["train_index"]]
        pairs["test_label"] = labels.test[pairs["test_index"]]
    with TableWriter(paths.memorization, MEMORIZATION_SCHEMA, facts) as writer:
        writer.write(_table(memorization, MEMORIZATION_SCHEMA))
    with TableWriter(paths.influence, influence_schema(), facts, cut_by="test_index") as writer:
        writer.write(_table(pairs, influence_schema()))


def _table(known: _Columns, schema: pa.Schema) -> pa.Table:
    """Return a table whose other columns are null."""
    length = len(known["train_index"])
    columns = {field.name: known.get(field.name, pa.nulls(length, field.type)) for field in schema}
    return pa.table(columns, schema=schema)
