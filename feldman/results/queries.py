"""Questions to the tables: the most memorized examples, the most influential pairs."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from feldman.errors import QueryError
from feldman.results.tables import TableFacts

__all__ = ["most_memorized", "sorted_pairs", "top_pairs", "with_one_class"]


def most_memorized(table: pa.Table, *, top: int, label: int | None = None) -> pa.Table:
    """Return the most memorized training examples, most memorized first; undefined values are left out.

    Parameters
    ----------
    table
        A memorization table.
    top
        How many rows at the most.
    label
        Only examples of this class.
    """
    table = table.filter(pc.is_finite(table["memorization"]))
    if label is not None:
        table = table.filter(pc.equal(table["label"], label))
    return table.sort_by([("memorization", "descending"), ("train_index", "ascending")]).slice(0, top)


def top_pairs(
    table: pa.Table,
    facts: TableFacts,
    *,
    top: int,
    train: int | None = None,
    test: int | None = None,
    min_influence: float | None = None,
    min_memorization: float | None = None,
    same_class: bool = False,
) -> pa.Table:
    """Return the most influential pairs, most influential first.

    Parameters
    ----------
    table, facts
        An influence table and what it was made from.
    top
        How many rows at the most.
    train, test
        Only pairs with this training, or test, example.
    min_influence, min_memorization
        Thresholds, inclusive; by default those that the table was made with.
    same_class
        Only pairs whose two examples have one label.

    Raises
    ------
    QueryError
        If a threshold is below that of the table, which lacks such pairs.
    """
    for name, asked, kept in (
        ("influence", min_influence, facts.selection.min_influence),
        ("memorization", min_memorization, facts.selection.min_memorization),
    ):
        if asked is not None and asked < kept:
            raise QueryError(
                f"the table holds pairs with {name} >= {kept:g}; for {asked:g} make it anew: "
                f"feldman estimate RUN --min-{name} {asked:g}"
            )
        if asked is not None:
            table = table.filter(pc.greater_equal(table[name], asked))
    for column, value in (("train_index", train), ("test_index", test)):
        if value is not None:
            table = table.filter(pc.equal(table[column], value))
    if same_class:
        table = with_one_class(table)
    return sorted_pairs(table).slice(0, top)


def with_one_class(table: pa.Table) -> pa.Table:
    """Keep the pairs whose two examples have one label."""
    return table.filter(pc.equal(table["train_label"], table["test_label"]))


def sorted_pairs(table: pa.Table) -> pa.Table:
    """Sort pairs, most influential first."""
    return table.sort_by([("influence", "descending"), ("train_index", "ascending"), ("test_index", "ascending")])
