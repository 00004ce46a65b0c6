"""Tables of random rows, as the writer writes them, and what must come out of queries on them, in plain Python."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feldman.estimates.selection import PairSelection, Targets
from feldman.results.table_writer import TableWriter
from feldman.results.tables import MEMORIZATION_SCHEMA, TableFacts, influence_schema

__all__ = [
    "Row",
    "defined",
    "large_pairs",
    "pair_facts",
    "write_memorization",
    "write_memorization_columns",
    "write_pairs",
]

Row = dict[str, Any]


def pair_facts(targets: Targets = "test", **known: Any) -> TableFacts:
    """Facts of a table that keeps every pair."""
    selection = PairSelection(min_influence=-1.0, min_memorization=-1.0, targets=targets)
    return TableFacts(num_trials=40, selection=selection, **known)


def write_pairs(path: Path, rows: list[Row] | pa.Table, facts: TableFacts) -> Path:
    """Write a table of pairs into the file of this path, in a folder that is made."""
    schema = influence_schema(facts.selection.targets)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TableWriter(path, schema, facts, cut_by=schema.names[1]) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=schema) if isinstance(rows, list) else rows)
    return path


def write_memorization(path: Path, rows: list[Row], facts: TableFacts) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with TableWriter(path, MEMORIZATION_SCHEMA, facts) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=MEMORIZATION_SCHEMA))
    return path


def write_memorization_columns(
    path: Path, memorization: NDArray[np.float64], num_classes: int, facts: TableFacts
) -> Path:
    """Write a table of these values, with intervals and counts that fit a run of 4,000 trials; classes take turns."""
    num = len(memorization)
    index = np.arange(num)
    right = np.rint(1_200 * (1 - memorization)).astype(np.int64)
    bounds = [np.full(num, 0.01), memorization - 0.02, memorization + 0.02]
    counts = [np.full(num, 2_800), np.full(num, 1_200), np.full(num, 2_800), right]
    columns = [index, index % num_classes, memorization, *bounds, *counts]
    table = pa.table(dict(zip(MEMORIZATION_SCHEMA.names, columns, strict=True)), schema=MEMORIZATION_SCHEMA)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TableWriter(path, MEMORIZATION_SCHEMA, facts) as writer:
        writer.write(table)
    return path


def defined(row: Row) -> Row:
    """A row as queries give it: what is not finite is None."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def large_pairs(num_train: int, num_test: int, num_pairs: int, seed: int = 0) -> pa.Table:
    """Pairs that lie all over the grid, in the order in which estimates come."""
    rng = np.random.default_rng(seed)
    chosen = np.unique(rng.integers(0, num_train * num_test, num_pairs))
    train, test = chosen // num_test, chosen % num_test
    influence, stderr = rng.exponential(0.05, len(chosen)).clip(0, 0.8), 0.005 + 0.02 * rng.random(len(chosen))
    memorization = rng.random(num_train)[train]
    p_value = rng.random(len(chosen)) ** 8
    low, high = influence - 1.96 * stderr, influence + 1.96 * stderr
    columns = [train, test, influence, stderr, low, high, memorization, train % 100, test % 100]
    columns += [p_value, np.minimum(50 * p_value, 1)]
    schema = influence_schema()
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)
