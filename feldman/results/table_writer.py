"""Write a table as its parts come; it is there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feldman.results.local_copies import building_file
from feldman.results.tables import METADATA_KEY, TableFacts, column
from feldman.trials.locations import Location

__all__ = ["ROW_GROUP", "ROW_GROUPS_IN_BAND", "TableWriter"]

ROW_GROUP = 32_768
ROW_GROUPS_IN_BAND = 16


class TableWriter:
    """Writes a Parquet table in row groups of one size. A context manager: left without an error, the table appears.

    Rows of a table of pairs come ordered by training, then by target example. They are written in bands of consecutive rows,
    and a band is cut into row groups by target: of N row groups a question about one training example reads the 16 of its band,
    a question about one target the one in each of N / 16 bands. Inside a row group rows are ordered by training, then by
    target example. Where the groups lie depends on the rows alone, not on the parts they came in.

    Parameters
    ----------
    path
        Replaced if it is there.
    schema, facts
        Its columns, and what it is made from.
    cut_by
        The column of targets; None for a table that is only ever asked by its order.

    Attributes
    ----------
    num_rows
        Rows written so far.
    """

    def __init__(self, path: Location, schema: pa.Schema, facts: TableFacts, *, cut_by: str | None = None) -> None:
        self.num_rows = 0
        self._cut_by = cut_by
        self._schema = _with_facts(schema, facts)
        self._change: Callable[[pa.Table], pa.Table] | None = None
        self._waiting: list[pa.Table] = []
        self._num_waiting = 0
        self._band_rows = ROW_GROUP * (ROW_GROUPS_IN_BAND if cut_by else 1)
        self._file = building_file(path)
        self._building: Path = self._file.__enter__()
        try:
            self._writer = pq.ParquetWriter(self._building, self._schema, compression="zstd")
        except BaseException as failure:  # nothing is left of a file that did not open
            self._file.__exit__(type(failure), failure, failure.__traceback__)
            raise

    def write(self, part: pa.Table) -> None:
        """Add rows of this schema."""
        self._waiting.append(part.replace_schema_metadata(self._schema.metadata))
        self._num_waiting += part.num_rows
        self.num_rows += part.num_rows
        while self._num_waiting >= self._band_rows:
            rows = pa.concat_tables(self._waiting)
            self._write_band(rows.slice(0, self._band_rows))
            self._waiting = [rows.slice(self._band_rows)]
            self._num_waiting -= self._band_rows

    def change_when_done(self, change: Callable[[pa.Table], pa.Table], facts: TableFacts) -> None:
        """Send every row group through ``change`` when all rows are there: for what follows from all of them.

        Parameters
        ----------
        change
            From rows to as many rows of the same schema, in their order.
        facts
            What the table then says of itself.
        """
        self._change, self._schema = change, _with_facts(self._schema, facts)

    def _write_band(self, band: pa.Table) -> None:
        order = self._order_by_target(band) if self._cut_by else None
        for start in range(0, band.num_rows, ROW_GROUP):
            rows = band.slice(start, ROW_GROUP)
            if order is not None:
                rows = band.take(column(np.sort(order[start : start + ROW_GROUP]), pa.int64()))
            self._writer.write_table(rows, row_group_size=ROW_GROUP)

    def _order_by_target(self, band: pa.Table) -> NDArray[np.int64]:
        targets = band[self._cut_by].combine_chunks()
        values = np.frombuffer(targets.buffers()[1], np.int64)[targets.offset :][: len(targets)]
        return np.argsort(values, kind="stable").astype(np.int64)

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None and self._num_waiting:
                self._write_band(pa.concat_tables(self._waiting))
            self._writer.close()
            self._make_changes()
        except BaseException as failure:
            self._file.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._file.__exit__(kind, error, traceback)

    def _make_changes(self) -> None:
        if self._change is None:
            return
        changed = self._building.with_name(f"{self._building.name}.changed.partial")
        try:
            with (
                pq.ParquetFile(self._building) as rows,
                pq.ParquetWriter(changed, self._schema, compression="zstd") as writer,
            ):
                for group in range(rows.num_row_groups):
                    part = self._change(rows.read_row_group(group))
                    writer.write_table(part.replace_schema_metadata(self._schema.metadata), row_group_size=ROW_GROUP)
            changed.replace(self._building)
        finally:
            changed.unlink(missing_ok=True)


def _with_facts(schema: pa.Schema, facts: TableFacts) -> pa.Schema:
    return schema.with_metadata({METADATA_KEY: json.dumps(facts.as_json(), sort_keys=True)})
