"""Rows as JSON, CSV or Parquet, written as they are found: an answer may be larger than memory."""

from __future__ import annotations

import json
from typing import Any, Literal, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from duckdb import DuckDBPyRelation

from feldman.results.sandbox import TableView

__all__ = ["ByteStream", "FileFormat", "write_rows", "write_table"]

FileFormat = Literal["json", "csv", "parquet"]


@runtime_checkable
class ByteStream(Protocol):
    """What rows are written to: a file, standard output, a buffer."""

    def write(self, data: bytes, /) -> Any:
        """Take bytes."""


def write_rows(view: TableView, rows: DuckDBPyRelation, file_format: FileFormat, stream: ByteStream) -> int:
    """Write rows of a table; return how many there were.

    Undefined is null in JSON and in Parquet, and empty in CSV, which begins with a line of the columns. JSON is one document: a
    list with one object, on a line of its own, for each row.

    Parameters
    ----------
    view, rows
        A table, and some rows of it.
    file_format
        How.
    stream
        To here; it stays open.
    """
    if file_format == "json":
        return _write_json(view, rows, stream)
    if file_format == "csv":
        return _write_csv(view, rows, stream)
    return _write_parquet(view, rows, stream)


def write_table(table: pa.Table, file_format: FileFormat, stream: ByteStream) -> None:
    """Write a table that is in memory, in the formats of `write_rows`.

    Parameters
    ----------
    table
        A study's rows.
    file_format
        How.
    stream
        To here; it stays open.
    """
    for place, (name, values) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if pa.types.is_floating(values.type):
            defined = pc.if_else(pc.is_finite(values), values, None)
            table = table.set_column(place, name, defined)
    if file_format == "json":
        rows = ",\n".join(json.dumps(row) for row in table.to_pylist())
        stream.write(f"[\n{rows}\n]\n".encode() if rows else b"[]\n")
    elif file_format == "csv":
        stream.write(",".join(table.column_names).encode() + b"\n")
        lines = pa.BufferOutputStream()
        pa_csv.write_csv(table, lines, pa_csv.WriteOptions(include_header=False))
        stream.write(lines.getvalue())
    else:
        with pq.ParquetWriter(stream, table.schema, compression="zstd") as writer:
            writer.write_table(table)


def _write_json(view: TableView, rows: DuckDBPyRelation, stream: ByteStream) -> int:
    # DuckDB makes the texts: a tenth of the time that Python's own json takes for objects of ten million rows.
    pairs = ", ".join(f"'{name}', {name}" for name in rows.columns)
    num_rows = 0
    for batch in view.batches(rows.project(f"json_object({pairs})")):
        stream.write(b",\n" if num_rows else b"[\n")
        stream.write(",\n".join(batch.column(0).to_pylist()).encode())
        num_rows += batch.num_rows
    stream.write(b"\n]\n" if num_rows else b"[]\n")
    return num_rows


def _write_csv(view: TableView, rows: DuckDBPyRelation, stream: ByteStream) -> int:
    num_rows = 0
    stream.write(",".join(rows.columns).encode() + b"\n")
    for batch in view.batches(rows):
        lines = pa.BufferOutputStream()
        pa_csv.write_csv(batch, lines, pa_csv.WriteOptions(include_header=False))
        stream.write(lines.getvalue())
        num_rows += batch.num_rows
    return num_rows


def _write_parquet(view: TableView, rows: DuckDBPyRelation, stream: ByteStream) -> int:
    num_rows = 0
    with pq.ParquetWriter(stream, rows.limit(0).to_arrow_table().schema, compression="zstd") as writer:
        for batch in view.batches(rows):
            writer.write_batch(batch)
            num_rows += batch.num_rows
    return num_rows
