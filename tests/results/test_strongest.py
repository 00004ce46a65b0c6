"""The pairs that a page shows, against a search in plain Python over random tables."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.results.sandbox import TableView
from feldman.results.strongest import num_pairs_of, pair_totals, strongest_pairs
from tests.tables import Row, pair_facts, write_pairs

influences = st.one_of(st.sampled_from([0.2, 0.5, math.nan]), st.floats(-1, 1, allow_nan=False))


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    """Rows of few examples, so that many have several pairs; equal influences and undefined ones among them."""
    keys = draw(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=30))
    rows = []
    for train, test in sorted(keys):
        influence = draw(influences)
        q_value = draw(st.sampled_from([0.01, 0.05, 0.5]))
        rows.append(
            {"train_index": train, "test_index": test, "influence": influence, "stderr": 0.1, "ci_low": influence - 0.1,
             "ci_high": influence + 0.3, "memorization": 0.5, "train_label": train % 2, "test_label": test % 3,
             "p_value": 0.01, "q_value": q_value}
        )  # fmt: skip
    return rows


def strongest_first(rows: list[Row]) -> list[Row]:
    known = [row for row in rows if not math.isnan(row["influence"])]
    return sorted(known, key=lambda row: (-row["influence"], row["train_index"], row["test_index"]))


def best_of_each(rows: list[Row], column: str, index: set[int], most: int) -> list[Row]:
    own = {each: [row for row in strongest_first(rows) if row[column] == each] for each in index}
    return [row for found in own.values() for row in found[:most]]


def keys_of(rows: list[Row]) -> list[tuple[int, int]]:
    return [(row["train_index"], row["test_index"]) for row in rows]


@settings(max_examples=8)
@given(tables(), st.integers(1, 6), st.integers(1, 3), st.sets(st.integers(0, 6)))
def test_pairs_are_the_strongest_those_of_the_named_and_those_of_the_test_examples_they_bring(
    rows: list[Row], top: int, per_example: int, named: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_pairs(Path(folder) / "influence.parquet", rows, pair_facts())
        with TableView(path, "pairs") as view:
            found = strongest_pairs(
                view, top=top, per_example=per_example, train_index=np.array(sorted(named), np.int64)
            ).to_pylist()
            counts = num_pairs_of(view, "test_index", np.arange(7))
    first = strongest_first(rows)[:top] + best_of_each(rows, "train_index", named, per_example)
    tests = {row["test_index"] for row in first}
    expected = {*keys_of(first), *keys_of(best_of_each(rows, "test_index", tests, per_example))}
    assert keys_of(found) == [key for key in keys_of(strongest_first(rows)) if key in expected]
    by_key = dict(zip(keys_of(rows), rows, strict=True))
    for row in found:
        whole = by_key[row["train_index"], row["test_index"]]
        assert row == {name: whole[name] for name in row}
    every = Counter(row["test_index"] for row in rows)
    assert counts.tolist() == [every[index] for index in range(7)]


@settings(max_examples=5)
@given(tables())
def test_totals_are_those_of_all_rows(rows: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_pairs(Path(folder) / "influence.parquet", rows, pair_facts())
        with TableView(path, "pairs") as view:
            totals = pair_totals(view)
    assert totals.num_pairs == len(rows)
    assert totals.num_significant == (sum(row["q_value"] <= 0.05 for row in rows) if rows else None)
    defined = strongest_first(rows)
    assert (totals.median_half_width is None) == (not defined)
    if defined:
        assert totals.largest_half_width == pytest.approx(0.2)
    assert totals.largest_test_label == max((row["test_label"] for row in rows), default=None)


def test_what_a_table_does_not_tell_is_not_known(tmp_path: Path) -> None:
    row: dict[str, Any] = {"train_index": 3, "test_index": 1, "influence": 0.4, "memorization": 0.5}
    names = ("stderr", "ci_low", "ci_high", "train_label", "test_label", "p_value", "q_value")
    path = write_pairs(tmp_path / "influence.parquet", [row | dict.fromkeys(names)], pair_facts())
    with TableView(path, "pairs") as view:
        totals = pair_totals(view)
        found = strongest_pairs(view, top=5, per_example=2, train_index=np.array([], np.int64)).to_pylist()
    assert (totals.num_pairs, totals.num_significant, totals.median_half_width, totals.largest_half_width) == (
        1,
        None,
        None,
        None,
    )
    assert totals.largest_test_label is None
    assert found[0]["influence"] == 0.4
    assert found[0]["q_value"] is None
