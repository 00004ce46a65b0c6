"""Questions to the tables: the most memorized examples, the most influential pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa
from duckdb import ColumnExpression, ConstantExpression, DuckDBPyRelation

from feldman.errors import QueryError
from feldman.estimates.selection import Targets
from feldman.results.sandbox import TableView
from feldman.results.tables import TableFacts

__all__ = [
    "MemorizedQuery",
    "PairQuery",
    "filtered_pairs",
    "most_memorized",
    "sorted_pairs",
    "target_name",
    "top_pairs",
]


@dataclass(frozen=True, kw_only=True)
class MemorizedQuery:
    """Which training examples are asked for.

    Attributes
    ----------
    top
        How many at the most; None for all.
    label
        Only examples of this class.
    where
        Only those for which this SQL expression holds.
    """

    top: int | None = None
    label: int | None = None
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class PairQuery:
    """Which pairs are asked for.

    Attributes
    ----------
    top
        How many at the most; None for all.
    train, target
        Only pairs with this training, or target, example.
    min_influence, min_memorization
        Thresholds, inclusive; by default those that the table was made with.
    same_class
        Only pairs whose two examples have one label.
    where
        Only those for which this SQL expression holds.
    """

    top: int | None = None
    train: int | None = None
    target: int | None = None
    min_influence: float | None = None
    min_memorization: float | None = None
    same_class: bool = False
    where: str | None = None


_MOST_ROWS = 2**63 - 1
"""What DuckDB counts to."""


def most_memorized(view: TableView, query: MemorizedQuery) -> DuckDBPyRelation:
    """Return training examples, most memorized first, then by index; undefined values are left out.

    Raises
    ------
    QueryError
        If the expression of `MemorizedQuery.where` is none.
    """
    rows = view.rows.filter(ColumnExpression("memorization").isnotnull())
    if query.label is not None:
        rows = rows.filter(ColumnExpression("label") == ConstantExpression(query.label))
    if query.where is not None:
        rows = view.where(rows, query.where)
    return _first(rows, "memorization DESC, train_index", query.top)


def top_pairs(view: TableView, facts: TableFacts, query: PairQuery) -> DuckDBPyRelation:
    """Return pairs, most influential first, then by training and by target example.

    Parameters
    ----------
    view, facts
        A table of pairs and what it was made from.
    query
        Which of them.

    Raises
    ------
    QueryError
        If a threshold is below that of the table, which lacks such pairs, or the expression of `PairQuery.where` is none.
    """
    target = target_name(facts.selection.targets)
    thresholds = (
        ("influence", query.min_influence, facts.selection.min_influence),
        ("memorization", query.min_memorization, facts.selection.min_memorization),
    )
    for name, asked, kept in thresholds:
        if asked is not None and asked < kept:
            raise QueryError(
                f"the table holds pairs with {name} >= {kept:g}, not {asked:g}; {_remedy(facts, name, asked)}"
            )
    rows = filtered_pairs(view, query, target)
    for name, asked, _ in thresholds:
        if asked is not None:
            rows = rows.filter(ColumnExpression(name) >= ConstantExpression(asked))
    return _first(rows, f"influence DESC NULLS LAST, train_index, {target}_index", query.top)


def filtered_pairs(view: TableView, query: PairQuery, target: str) -> DuckDBPyRelation:
    """Return the pairs that a query asks for, whatever their influence and memorization, in no order.

    Parameters
    ----------
    view
        A table of pairs.
    query
        Its examples, class and expression.
    target
        How the columns of targets begin.

    Raises
    ------
    QueryError
        If the expression of `PairQuery.where` is none.
    """
    rows = view.rows
    for column, value in (("train_index", query.train), (f"{target}_index", query.target)):
        if value is not None:
            rows = rows.filter(ColumnExpression(column) == ConstantExpression(value))
    if query.same_class:
        rows = rows.filter(ColumnExpression("train_label") == ColumnExpression(f"{target}_label"))
    return rows if query.where is None else view.where(rows, query.where)


def _remedy(facts: TableFacts, name: str, asked: float) -> str:
    if facts.source != "trials":
        return (
            f"it was imported from {facts.source}: import that into a new run with a lower --min-{name}, if it has them"
        )
    is_influence = name == "influence"
    wider = replace(
        facts.selection,
        min_influence=asked if is_influence else facts.selection.min_influence,
        min_memorization=facts.selection.min_memorization if is_influence else asked,
    )
    return f"make it anew: feldman estimate RUN {' '.join(wider.as_options())}"


def target_name(targets: Targets) -> str:
    """Return how the columns of targets begin in a table of pairs."""
    return "test" if targets == "test" else "target"


def sorted_pairs(table: pa.Table) -> pa.Table:
    """Sort pairs that are in memory, most influential first."""
    return table.sort_by([("influence", "descending"), ("train_index", "ascending"), ("test_index", "ascending")])


def _first(rows: DuckDBPyRelation, order: str, top: int | None) -> DuckDBPyRelation:
    ordered = rows.order(order)
    return ordered if top is None else ordered.limit(min(top, _MOST_ROWS))
