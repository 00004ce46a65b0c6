"""The pairs that a page of a run can show: the strongest of all, and those of the examples that it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from duckdb import ColumnExpression, ConstantExpression, DuckDBPyRelation
from jaxtyping import Int64

from feldman.results.sandbox import TableView

__all__ = ["PairTotals", "num_pairs_of", "pair_totals", "strongest_pairs"]

SIGNIFICANT = 0.05
"""The q-value up to which a pair counts as more than chance."""

_COLUMNS = ("train_index", "test_index", "influence", "ci_low", "ci_high", "train_label", "test_label")
_OTHER = {"train_index": "test_index", "test_index": "train_index"}


@dataclass(frozen=True, kw_only=True)
class PairTotals:
    """What a table of pairs tells as a whole.

    Attributes
    ----------
    num_pairs
        Its rows.
    num_significant
        Of these with a q-value of at most 0.05; None of a table that has no q-values.
    median_half_width, largest_half_width
        Of the 95% intervals of influence, from the middle to either end; None where not known.
    largest_test_label
        None where no label is known.
    """

    num_pairs: int
    num_significant: int | None
    median_half_width: float | None
    largest_half_width: float | None
    largest_test_label: int | None


def pair_totals(view: TableView) -> PairTotals:
    """Count and measure all pairs of a table."""
    q_value = "q_value" if "q_value" in view.rows.columns else "CAST(NULL AS DOUBLE)"
    asked = (
        f"count(*) AS pairs, count({q_value}) AS known, count(*) FILTER ({q_value} <= {SIGNIFICANT}) AS significant, "
        "median((ci_high - ci_low) / 2) AS middle, max((ci_high - ci_low) / 2) AS largest, "
        "max(test_label) AS label"
    )
    row = _table(view, view.rows.aggregate(asked)).to_pylist()[0]
    return PairTotals(
        num_pairs=row["pairs"],
        num_significant=row["significant"] if row["known"] else None,
        median_half_width=row["middle"],
        largest_half_width=row["largest"],
        largest_test_label=row["label"],
    )


def strongest_pairs(
    view: TableView, *, top: int, per_example: int, train_index: Int64[np.ndarray, " chosen"]
) -> pa.Table:
    """Return the pairs of largest influence, those of some training examples, and those of the test examples that these bring.

    Memory depends on what is returned, not on the table.

    Parameters
    ----------
    view
        A table of pairs with test examples.
    top
        So many of all pairs.
    per_example
        So many of each training example that is named, and of each test example that stands in a pair.
    train_index
        The training examples.

    Returns
    -------
    pyarrow.Table
        ``train_index, test_index, influence, ci_low, ci_high, train_label, test_label, q_value``, each pair once, the
        strongest first, then by training and by test example. Undefined is null.
    """
    q_value = "q_value" if "q_value" in view.rows.columns else "CAST(NULL AS DOUBLE) AS q_value"
    rows = view.rows.project(", ".join((*_COLUMNS, q_value))).filter(ColumnExpression("influence").isnotnull())
    first = _table(view, rows.order("influence DESC, train_index, test_index").limit(top))
    brought = _table(view, _best_of_each(rows, "train_index", train_index, per_example))
    found = pa.concat_tables([first, brought])
    tests = np.unique(found["test_index"].to_numpy())
    found = pa.concat_tables([found, _table(view, _best_of_each(rows, "test_index", tests, per_example))])
    keys = np.stack([found["train_index"].to_numpy(), found["test_index"].to_numpy()])
    _, once = np.unique(keys, axis=1, return_index=True)
    order = [("influence", "descending"), ("train_index", "ascending"), ("test_index", "ascending")]
    return found.take(once).sort_by(order)


def num_pairs_of(view: TableView, column: str, index: Int64[np.ndarray, " chosen"]) -> Int64[np.ndarray, " chosen"]:
    """Count the pairs of some examples.

    Parameters
    ----------
    view
        A table of pairs.
    column
        Whose: ``"train_index"`` or ``"test_index"``.
    index
        The examples.
    """
    counts = _table(view, _of_examples(view.rows, column, index).aggregate(f"{column}, count(*) AS pairs"))
    found = dict(zip(counts[column].to_pylist(), counts["pairs"].to_pylist(), strict=True))
    return np.array([found.get(int(each), 0) for each in index], np.int64)


def _best_of_each(
    rows: DuckDBPyRelation, column: str, index: Int64[np.ndarray, " chosen"], most: int
) -> DuckDBPyRelation:
    place = f"row_number() OVER (PARTITION BY {column} ORDER BY influence DESC, {_OTHER[column]})"
    ranked = _of_examples(rows, column, index).project(f"*, {place} AS place")
    return ranked.filter(f"place <= {most}").project(", ".join(rows.columns))


def _of_examples(rows: DuckDBPyRelation, column: str, index: Int64[np.ndarray, " chosen"]) -> DuckDBPyRelation:
    if not len(index):
        return rows.limit(0)
    return rows.filter(ColumnExpression(column).isin(*(ConstantExpression(int(each)) for each in index)))


def _table(view: TableView, rows: DuckDBPyRelation) -> pa.Table:
    found = list(view.batches(rows))
    return pa.Table.from_batches(found) if found else rows.limit(0).to_arrow_table()
