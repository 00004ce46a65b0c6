"""Tables written in parts: the same file whatever the parts, and row groups that a question touches few of."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from feldman.results import table_writer
from feldman.results.table_writer import ROW_GROUP, ROW_GROUPS_IN_BAND, TableWriter
from feldman.results.tables import MEMORIZATION_SCHEMA, TableFacts, influence_schema, read_table

PAIRS = influence_schema()
FACTS = TableFacts(num_trials=3)


def random_pairs(num_rows: int, num_train: int, num_test: int, seed: int = 0) -> pa.Table:
    """Pairs as an estimate hands them on: ordered by training, then by test example."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(num_train * num_test, size=min(num_rows, num_train * num_test), replace=False))
    columns = [
        chosen // num_test,
        chosen % num_test,
        *rng.random((5, len(chosen))),
        *rng.integers(0, 9, (2, len(chosen))),
        *rng.random((2, len(chosen))),
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, PAIRS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=PAIRS)


def random_examples(num_rows: int) -> pa.Table:
    rng = np.random.default_rng(1)
    columns = [np.arange(num_rows), *rng.integers(0, 99, (9, num_rows))]
    arrays = [pa.array(values).cast(field.type) for values, field in zip(columns, MEMORIZATION_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=MEMORIZATION_SCHEMA)


def written(path: Path, table: pa.Table, cuts: list[int], cut_by: str | None = "test_index") -> pq.ParquetFile:
    """Write a table in parts that end at some rows."""
    bounds = [0, *sorted(cuts), table.num_rows]
    with TableWriter(path, table.schema, FACTS, cut_by=cut_by) as writer:
        for start, stop in pairwise(bounds):
            writer.write(table.slice(start, stop - start))
        assert writer.num_rows == table.num_rows
    return pq.ParquetFile(path)


def small_groups(patch: pytest.MonkeyPatch, group: int, in_band: int) -> None:
    patch.setattr(table_writer, "ROW_GROUP", group)
    patch.setattr(table_writer, "ROW_GROUPS_IN_BAND", in_band)


def in_order(table: pa.Table) -> pa.Table:
    return table.sort_by([("train_index", "ascending"), ("test_index", "ascending")])


def ranges(opened: pq.ParquetFile, name: str) -> NDArray[np.int64]:
    """Smallest and largest value of each row group, by the statistics."""
    place = opened.schema_arrow.names.index(name)
    found = []
    for group in range(opened.num_row_groups):
        statistics = opened.metadata.row_group(group).column(place).statistics
        assert statistics is not None
        assert statistics.has_min_max
        found.append((statistics.min, statistics.max))
    return np.array(found).reshape(-1, 2)


def touched(opened: pq.ParquetFile, name: str, value: int) -> list[int]:
    low, high = ranges(opened, name).T
    return np.flatnonzero((low <= value) & (value <= high)).tolist()


@given(st.integers(0, 400), st.integers(1, 40), st.integers(1, 6), st.data())
@settings(deadline=None, max_examples=40)
def test_the_file_does_not_depend_on_the_parts_and_all_rows_come_back(
    num_rows: int, group: int, in_band: int, data: st.DataObject
) -> None:
    table = random_pairs(num_rows, 50, 40)
    cuts = data.draw(st.lists(st.integers(0, table.num_rows), max_size=12))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        small_groups(patch, group, in_band)
        whole, parts = Path(folder) / "whole.parquet", Path(folder) / "parts.parquet"
        opened = written(parts, table, cuts)
        written(whole, table, [])
        assert parts.read_bytes() == whole.read_bytes()
        found, facts = read_table(parts, Path(folder))
        assert facts == FACTS
        assert in_order(found).equals(table.replace_schema_metadata(found.schema.metadata))
        for k in range(opened.num_row_groups):
            rows = opened.read_row_group(k)
            assert 1 <= rows.num_rows <= group
            assert rows.equals(in_order(rows))
        assert opened.num_row_groups == -(-table.num_rows // group)


@pytest.mark.parametrize("kind", ["pairs", "examples"])
def test_at_real_sizes_the_file_does_not_depend_on_the_parts_either(tmp_path: Path, kind: str) -> None:
    num_rows = ROW_GROUP * (ROW_GROUPS_IN_BAND + 1) + 77 if kind == "pairs" else 3 * ROW_GROUP + 77
    table = random_pairs(num_rows, 5_000, 1_000) if kind == "pairs" else random_examples(num_rows)
    cut_by = "test_index" if kind == "pairs" else None
    rng = np.random.default_rng(2)
    files = [
        written(tmp_path / f"{k}", table, cuts, cut_by)
        for k, cuts in enumerate(([], rng.integers(0, num_rows, 50).tolist(), list(range(0, num_rows, 1009))))
    ]
    contents = {(tmp_path / f"{k}").read_bytes() for k in range(len(files))}
    assert len(contents) == 1
    sizes = [files[0].metadata.row_group(k).num_rows for k in range(files[0].num_row_groups)]
    assert sizes == [ROW_GROUP] * (num_rows // ROW_GROUP) + [77]
    found = in_order(files[1].read()) if cut_by else files[1].read()
    assert found.equals(table.replace_schema_metadata(files[1].schema_arrow.metadata))


def test_columns_are_compressed_with_zstd_and_both_indices_have_statistics(tmp_path: Path) -> None:
    opened = written(tmp_path / "pairs.parquet", random_pairs(500, 50, 40), [])
    for group in range(opened.num_row_groups):
        columns = [opened.metadata.row_group(group).column(k) for k in range(len(PAIRS))]
        assert {column.compression for column in columns} == {"ZSTD"}
    for name in ("train_index", "test_index"):
        assert len(ranges(opened, name)) == opened.num_row_groups


@given(st.integers(100, 3000), st.integers(5, 60), st.integers(5, 60), st.sampled_from([4, 10, 16]), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_a_question_touches_the_row_groups_of_its_band_or_one_a_band(
    num_rows: int, num_train: int, num_test: int, in_band: int, seed: int
) -> None:
    group = 10
    table = random_pairs(num_rows, num_train, num_test, seed)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        small_groups(patch, group, in_band)
        opened = written(Path(folder) / "pairs.parquet", table, [])
    band = group * in_band
    num_bands = -(-table.num_rows // band)
    train, test = (table[name].to_numpy() for name in ("train_index", "test_index"))
    for value in np.unique(train):
        bands = np.unique(np.flatnonzero(train == value) // band)
        groups = touched(opened, "train_index", int(value))
        assert {k // in_band for k in groups} == set(bands.tolist())
        assert len(groups) <= in_band * len(bands)
    for value in np.unique(test):
        groups = touched(opened, "test_index", int(value))
        # Those that hold its rows, and in each band at most one before and one after where it lies at an edge.
        held = sum(-(-int(np.sum(test[start : start + band] == value)) // group) for start in range(0, len(test), band))
        assert len(groups) <= held + 2 * num_bands


def test_at_real_proportions_a_target_is_in_one_row_group_a_band(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_groups(monkeypatch, 512, 16)
    opened = written(tmp_path / "pairs.parquet", random_pairs(16 * 512 * 6, 2_000, 1_000), [])
    by_test = [len(touched(opened, "test_index", value)) for value in range(1_000)]
    assert opened.num_row_groups == 96
    assert np.mean(by_test) < 1.2 * 6
    by_train = [len(touched(opened, "train_index", value)) for value in range(2_000)]
    assert max(by_train) <= 32
    assert np.mean(by_train) <= 16.5


def test_a_change_when_done_is_made_of_every_row_and_the_table_then_says_other_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_groups(monkeypatch, 10, 3)
    path, table = tmp_path / "pairs.parquet", random_pairs(100, 50, 40)
    written(path, table, [])
    plain = [pq.ParquetFile(path).read_row_group(k).num_rows for k in range(10)]

    def negated(rows: pa.Table) -> pa.Table:
        return rows.set_column(rows.column_names.index("q_value"), "q_value", pc.negate(rows["q_value"]))

    with TableWriter(path, PAIRS, FACTS, cut_by="test_index") as writer:
        writer.write(table)
        writer.change_when_done(negated, replace(FACTS, num_pairs_tested=9))
    found, facts = read_table(path, tmp_path)
    assert facts == replace(FACTS, num_pairs_tested=9)
    assert in_order(found).equals(negated(table).replace_schema_metadata(found.schema.metadata))
    assert [pq.ParquetFile(path).read_row_group(k).num_rows for k in range(10)] == plain
    assert list(tmp_path.iterdir()) == [path]


def test_a_change_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    path.write_bytes(b"an old table")

    def fail(rows: pa.Table) -> pa.Table:
        raise Failure

    with pytest.raises(Failure), TableWriter(path, PAIRS, FACTS) as writer:  # noqa: PT012
        writer.write(random_pairs(30, 50, 40))
        writer.change_when_done(fail, FACTS)
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"an old table"]


class Failure(Exception):
    pass


@pytest.mark.parametrize("old", [None, b"an old table"])
@pytest.mark.parametrize("num_rows", [0, 30, 300])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bytes | None, num_rows: int
) -> None:
    small_groups(monkeypatch, 10, 3)
    path = tmp_path / "pairs.parquet"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(Failure), TableWriter(path, PAIRS, FACTS, cut_by="test_index") as writer:  # noqa: PT012
        writer.write(random_pairs(num_rows, 50, 40))
        raise Failure
    assert [found.read_bytes() for found in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_disk_that_refuses_the_last_rows_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.parquet"
    path.write_bytes(b"an old table")

    def refuse(self: Any, *arguments: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), TableWriter(path, PAIRS, FACTS) as writer:  # noqa: PT012
        writer.write(random_pairs(30, 50, 40))
        monkeypatch.setattr(pq.ParquetWriter, "write_table", refuse)
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"an old table"]


def test_what_two_writers_write_of_one_table_does_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    first, second = random_pairs(50, 50, 40), random_pairs(70, 50, 40)
    with TableWriter(path, PAIRS, FACTS) as one:
        with TableWriter(path, PAIRS, FACTS) as other:
            one.write(first)
            other.write(second)
        assert pq.read_metadata(path).num_rows == 70
    assert pq.read_metadata(path).num_rows == 50


@pytest.mark.parametrize("cut_by", [None, "test_index"])
def test_a_table_without_rows_is_a_table(tmp_path: Path, cut_by: str | None) -> None:
    opened = written(tmp_path / "pairs.parquet", random_pairs(0, 5, 4), [0, 0], cut_by)
    assert opened.metadata.num_rows == 0
    found, facts = read_table(tmp_path / "pairs.parquet", tmp_path)
    assert found.schema.remove_metadata() == PAIRS
    assert (found.num_rows, facts) == (0, FACTS)
