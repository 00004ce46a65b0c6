"""Queries against the same questions in plain Python, over random tables; how much of a large table a look-up reads."""

from __future__ import annotations

import json
import math
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.errors import CorruptStoreError, FeldmanError, QueryError, StorageError
from feldman.estimates.selection import Targets
from feldman.results.formats import FileFormat, write_rows
from feldman.results.queries import MemorizedQuery, PairQuery, most_memorized, target_name, top_pairs
from feldman.results.sandbox import TableView
from feldman.results.table_writer import ROW_GROUPS_IN_BAND
from feldman.results.tables import TableFacts
from tests.tables import Row, defined, large_pairs, pair_facts, write_memorization, write_pairs

# Few different values, so that there are ties; undefined as estimates write it and as imported tables do.
values = st.sampled_from([-1.0, -0.25, 0.0, 0.1, 0.15, 0.3, 0.30000000000000004, 1.0, math.nan, math.inf, None])
indices = st.integers(0, 5)
labels = st.one_of(st.none(), st.integers(0, 2))
counts = st.one_of(st.none(), st.integers(0, 40))
wheres: list[tuple[str, Callable[[Row], bool | None]]] = [
    ("influence > 0.1", lambda row: row["influence"] is not None and row["influence"] > 0.1),
    ("stderr IS NULL", lambda row: row["stderr"] is None),
    ("ci_low < 0.1 OR train_index IN (1, 2) -- or", lambda row: _below(row["ci_low"]) or row["train_index"] in (1, 2)),
    ("train_label <> 1", lambda row: row["train_label"] not in (None, 1)),
    ("memorization >= (SELECT max(p.memorization) FROM pairs p)", lambda row: row["largest"]),
]


def _below(value: float | None) -> bool:
    return value is not None and value < 0.1


@st.composite
def pair_rows(draw: st.DrawFn, target: str) -> list[Row]:
    keys = draw(st.lists(st.tuples(indices, indices), unique=True, max_size=30))
    return [
        {
            "train_index": train,
            f"{target}_index": other,
            **{name: draw(values) for name in ("influence", "stderr", "ci_low", "ci_high", "memorization")},
            "train_label": draw(labels),
            f"{target}_label": draw(labels),
            **{name: draw(values) for name in ("p_value", "q_value")},
        }
        for train, other in sorted(keys)
    ]


@st.composite
def memorization_rows(draw: st.DrawFn) -> list[Row]:
    return [
        {
            "train_index": index,
            "label": draw(labels),
            **{name: draw(values) for name in ("memorization", "stderr", "ci_low", "ci_high")},
            **{name: draw(counts) for name in ("num_in", "num_out", "correct_in", "correct_out")},
        }
        for index in range(draw(st.integers(0, 30)))
    ]


def found(view: TableView, rows: duckdb.DuckDBPyRelation) -> list[Row]:
    return [row for batch in view.batches(rows) for row in batch.to_pylist()]


def strongest_first(rows: list[Row], target: str) -> list[Row]:
    def order(row: Row) -> tuple[bool, float, int, int]:
        influence = row["influence"]
        return influence is None, -(influence or 0.0), row["train_index"], row[f"{target}_index"]

    return sorted(rows, key=order)


def at_least(value: float | None, least: float | None) -> bool:
    return least is None or (value is not None and value >= least)


@given(data=st.data(), targets=st.sampled_from(["test", "train"]))
@settings(max_examples=60, deadline=None)
def test_a_query_of_pairs_gives_what_plain_python_gives(data: st.DataObject, targets: Targets) -> None:
    target = target_name(targets)
    rows = data.draw(pair_rows(target))
    thresholds = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 0.1, 0.15, 0.3, 0.30000000000000004, 1.0]))
    where = data.draw(st.one_of(st.none(), st.sampled_from(wheres)))
    query = PairQuery(
        top=data.draw(st.one_of(st.none(), st.integers(1, 12))),
        train=data.draw(st.one_of(st.none(), indices)),
        target=data.draw(st.one_of(st.none(), indices)),
        min_influence=data.draw(thresholds),
        min_memorization=data.draw(thresholds),
        same_class=data.draw(st.booleans()),
        where=where and where[0],
    )
    known = [defined(row) for row in rows]
    largest = max((row["memorization"] for row in known if row["memorization"] is not None), default=None)
    expected = [
        row
        for row in strongest_first(known, target)
        if query.train in (None, row["train_index"])
        and query.target in (None, row[f"{target}_index"])
        and at_least(row["influence"], query.min_influence)
        and at_least(row["memorization"], query.min_memorization)
        and (not query.same_class or (row["train_label"] is not None and row["train_label"] == row[f"{target}_label"]))
        and (where is None or where[1](row | {"largest": largest is not None and row["memorization"] == largest}))
    ][: query.top]
    facts = pair_facts(targets)
    with tempfile.TemporaryDirectory() as folder:
        path = write_pairs(Path(folder) / "pairs.parquet", rows, facts)
        with TableView(path, "pairs") as view:
            assert len(view) == len(rows)
            assert found(view, top_pairs(view, facts, query)) == expected


@given(data=st.data(), rows=memorization_rows())
@settings(max_examples=30, deadline=None)
def test_a_query_of_memorization_gives_what_plain_python_gives(data: st.DataObject, rows: list[Row]) -> None:
    query = MemorizedQuery(
        top=data.draw(st.one_of(st.none(), st.integers(1, 12))),
        label=data.draw(st.one_of(st.none(), st.integers(0, 2))),
        where=data.draw(st.sampled_from([None, "num_in > 20"])),
    )
    kept = [
        row
        for row in map(defined, rows)
        if row["memorization"] is not None
        and query.label in (None, row["label"])
        and (query.where is None or (row["num_in"] is not None and row["num_in"] > 20))
    ]
    expected = sorted(kept, key=lambda row: (-row["memorization"], row["train_index"]))[: query.top]
    with tempfile.TemporaryDirectory() as folder:
        path = write_memorization(Path(folder) / "memorization.parquet", rows, TableFacts())
        with TableView(path, "memorized") as view:
            assert found(view, most_memorized(view, query)) == expected


# How much is read


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of several bands."""
    table = large_pairs(num_train=4_000, num_test=1_000, num_pairs=2_600_000)
    path = write_pairs(tmp_path_factory.mktemp("large") / "influence.parquet", table, pair_facts())
    assert pq.read_metadata(path).num_row_groups > 3 * ROW_GROUPS_IN_BAND
    return path


def with_other_groups_destroyed(path: Path, copy: Path, column: str, value: int) -> float:
    """Overwrite all row groups that cannot hold a value, by their statistics; return the share that is left whole."""
    shutil.copy(path, copy)
    metadata, column_number = pq.read_metadata(path), pq.read_schema(path).get_field_index(column)
    kept = 0
    with copy.open("r+b") as file:
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            statistics = group.column(column_number).statistics
            if statistics.min <= value <= statistics.max:
                kept += 1
                continue
            start = group.column(0).dictionary_page_offset or group.column(0).data_page_offset
            file.seek(start)
            file.write(b"\xff" * sum(group.column(c).total_compressed_size for c in range(group.num_columns)))
    return kept / int(metadata.num_row_groups)


@pytest.mark.parametrize(("column", "query", "most"), [
    ("train_index", PairQuery(train=1234), 0.5),
    ("test_index", PairQuery(target=321), 0.13),
    ("test_index", PairQuery(where="test_index = 321"), 0.13),
    ("test_index", PairQuery(target=321, where="influence > 0.01", top=5), 0.13),
])  # fmt: skip
def test_a_look_up_by_index_reads_only_the_row_groups_that_may_hold_it(
    large: Path, tmp_path: Path, column: str, query: PairQuery, most: float
) -> None:
    value = query.train if column == "train_index" else 321
    assert value is not None
    share = with_other_groups_destroyed(large, tmp_path / "damaged.parquet", column, value)
    assert 0 < share <= most, (
        "the rows of one band, 16 row groups, for a training example; one group of each for a test example"
    )
    with TableView(large, "pairs") as whole, TableView(tmp_path / "damaged.parquet", "pairs") as damaged:
        expected = found(whole, top_pairs(whole, pair_facts(), query))
        assert len(expected) >= 5
        assert found(damaged, top_pairs(damaged, pair_facts(), query)) == expected
    with (
        TableView(tmp_path / "damaged.parquet", "pairs") as damaged,
        pytest.raises(CorruptStoreError, match="cannot be read"),
    ):
        found(damaged, top_pairs(damaged, pair_facts(), PairQuery()))


# Formats


def read_back(written: bytes, file_format: FileFormat, schema: pa.Schema) -> list[Row]:
    if file_format == "json":
        rows: list[Row] = json.loads(written)
        return rows
    if file_format == "csv":
        options = pa_csv.ConvertOptions(column_types=schema)
        return list(pa_csv.read_csv(BytesIO(written), convert_options=options).to_pylist())
    table = pq.read_table(BytesIO(written))
    assert table.schema.equals(schema)
    return list(table.to_pylist())


@pytest.mark.parametrize("file_format", ["json", "csv", "parquet"])
@given(rows=memorization_rows())
@settings(max_examples=10, deadline=None)
def test_what_is_written_reads_back_as_what_was_found(file_format: FileFormat, rows: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_memorization(Path(folder) / "memorization.parquet", rows, TableFacts())
        schema = pq.read_schema(path).remove_metadata()
        with TableView(path, "memorized") as view:
            chosen, stream = most_memorized(view, MemorizedQuery()), BytesIO()
            expected = found(view, chosen)
            assert write_rows(view, chosen, file_format, stream) == len(expected)
    assert read_back(stream.getvalue(), file_format, schema) == expected
    assert not stream.closed


@pytest.mark.parametrize("file_format", ["json", "csv", "parquet"])
def test_answers_of_many_batches_are_written_whole_and_in_order(large: Path, file_format: FileFormat) -> None:
    stream = BytesIO()
    with TableView(large, "pairs") as view:
        rows = top_pairs(view, pair_facts(), PairQuery(where="train_index < 1000"))
        count = write_rows(view, rows, file_format, stream)
    back = read_back(stream.getvalue(), file_format, pq.read_schema(large).remove_metadata())
    assert len(back) == count > 300_000
    order = [(-row["influence"], row["train_index"], row["test_index"]) for row in back]
    assert order == sorted(order)


# Safety


@pytest.fixture
def view(tmp_path: Path) -> Any:
    rows = large_pairs(20, 10, 150).to_pylist()
    (tmp_path / "other.csv").write_text("a\n1\n")
    with TableView(write_pairs(tmp_path / "influence.parquet", rows, pair_facts()), "pairs") as opened:
        yield opened


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("1=1) TO 'x' --", "syntax error"),
        ("true); DROP VIEW pairs; --", "syntax error"),
        ("true) OR (true", "syntax error"),
        ("true; DROP VIEW pairs", "Parser Error"),
        ("true FROM pairs", "Parser Error"),
        ("true UNION SELECT true", "Parser Error"),
        ("true ORDER BY 1 LIMIT 1", "Parser Error"),
        ("influence > 0.1, true", "Expected a single expression"),
        ("true AS everything", "syntax error"),
        ("SELECT true", "syntax error"),
        ("train_index IN (SELECT 1 FROM read_csv('/etc/passwd'))", "Permission Error"),
        ("(SELECT count(*) FROM read_text('{folder}/other.csv')) > 0", "Permission Error"),
        ("(SELECT count(*) FROM '{folder}/other.csv') > 0", "Permission Error"),
        ("(SELECT count(*) FROM glob('{folder}/*')) > 0", "Permission Error"),
        ("(SELECT count(*) FROM 'https://example.com/x.parquet') > 0", "Permission Error"),
        ("(SELECT count(*) FROM query('COPY pairs TO ''{folder}/x''')) > 0", "Error"),
        ("EXISTS (SELECT * FROM python_variable)", "python_variable does not exist"),
        ("influnce > 0.3", 'column "influnce" not found'),
        ("count(*) > 1", "cannot contain aggregates"),
        ("row_number() OVER () < 3", "cannot contain window functions"),
        ("? > 1", "parameter"),
        ("'yes please'", "Could not convert"),
        ("/* unended", "unterminated"),
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("\udcff > 1", "it is not a text in UTF-8"),
    ],
)
def test_an_expression_can_do_nothing_but_choose_rows_of_the_table(
    view: TableView, tmp_path: Path, expression: str, says: str
) -> None:
    python_variable = pa.table({"a": [1]})  # noqa: F841  (DuckDB would find it, were it allowed to look)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(QueryError) as caught:
        found(view, view.where(view.rows, expression.replace("{folder}", str(tmp_path))))
    message = str(caught.value)
    assert message.startswith("--where takes one SQL expression; found '")
    assert says in message
    assert f"The columns are {', '.join(view.rows.columns)}; an example: --where " in message
    assert "\n" not in message.replace(expression, "")
    assert sorted(tmp_path.iterdir()) == before
    assert len(found(view, view.rows)) == len(view) > 0, "the table is as it was"


@pytest.mark.parametrize("expression", ["CAST('a' || train_index AS INT) > 1", "train_index * 9223372036854775807 > 1"])
def test_an_expression_that_fails_on_a_row_is_the_users_to_mend(view: TableView, expression: str) -> None:
    with pytest.raises(QueryError, match=r"--where takes one SQL expression; .* Error: "):
        found(view, view.where(view.rows, expression))


@pytest.mark.parametrize("statement", [
    "SET lock_configuration = false", "SET enable_external_access = true", "SET allowed_paths = ['/etc/passwd']",
    "INSTALL httpfs", "LOAD httpfs", "ATTACH '{folder}/a.db'", "COPY pairs TO '{folder}/x.csv'",
])  # fmt: skip
def test_not_even_a_statement_could_leave_the_sandbox(view: TableView, tmp_path: Path, statement: str) -> None:
    with pytest.raises(duckdb.Error, match=r"(?i)disabled|locked|permission"):
        view._connection.execute(statement.replace("{folder}", str(tmp_path)))


@pytest.mark.parametrize("name", ["run[1]", "a*b", "it's", "seed=1", "{a,b}", "~", "über uns"])
def test_a_run_may_be_called_as_one_likes(tmp_path: Path, name: str) -> None:
    rows = large_pairs(20, 10, 150).to_pylist()
    with TableView(write_pairs(tmp_path / name / "influence.parquet", rows, pair_facts()), "pairs") as opened:
        assert opened.rows.columns == list(rows[0])
        assert found(opened, opened.rows.order("train_index, test_index")) == rows


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (
            duckdb.OutOfMemoryException("failed to pin block\nmore"),
            StorageError,
            "(failed to pin block); ask for fewer rows",
        ),
        (duckdb.IOException("could not write"), StorageError, "needs more room than there is"),
        (duckdb.ConversionException("no number"), QueryError, "no number. The columns are"),
    ],
)
def test_errors_are_told_as_what_they_are(
    view: TableView, error: Exception, kind: type[FeldmanError], says: str
) -> None:
    view.where(view.rows, "true")
    explained = view._explained(error)
    assert type(explained) is kind
    assert says in str(explained)


def test_an_interrupt_stops_a_search_that_would_take_for_ever(view: TableView) -> None:
    endless = view.where(
        view.rows, "(SELECT count(*) FROM range(10000000000) r WHERE r.range * train_index % 7 = 3) > 0"
    )
    timer = threading.Timer(0.5, signal.pthread_kill, [threading.get_ident(), signal.SIGINT])
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        found(view, endless)
    assert time.monotonic() - started < 30
