"""One Parquet table, open for SQL that can see this table and nothing else."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyRelation

from feldman.errors import CorruptStoreError, FeldmanError, QueryError, StorageError, listed
from feldman.results.local_copies import local_copy
from feldman.trials.locations import Location

__all__ = ["TableView"]

_EXAMPLES = {"memorized": "memorization > 0.5 AND num_out >= 100", "pairs": "influence > 0.3 AND stderr < 0.02"}
_LIMITS = (duckdb.OutOfMemoryException, duckdb.IOException)

_Result = TypeVar("_Result")


class TableView:
    """A Parquet table in a DuckDB of its own, in memory. A context manager.

    SQL sees the table as a view, in which numbers that are not finite are NULL: undefined satisfies no comparison, while DuckDB
    holds NaN to be greater than every number. Before any SQL of a user's runs, everything else is shut: files and network but for
    the table, extensions, variables of this process, and the settings themselves. Large answers are sorted outside memory, in a
    folder below the system's own for temporary files, which DuckDB removes.

    Parameters
    ----------
    path
        The table.
    name
        Of the view: ``"memorized"`` or ``"pairs"``.

    Attributes
    ----------
    rows
        All rows, in no order; to be filtered, ordered and cut.
    """

    def __init__(self, path: Location, name: str) -> None:
        self._path, self._name = path, name
        self._file = local_copy(path).absolute()
        self._where: str | None = None
        self._connection = duckdb.connect()
        spill = Path(tempfile.gettempdir()) / f"feldman-{uuid.uuid4().hex[:8]}"
        for setting in (
            f"allowed_paths = [{_quoted(self._file)}]",
            f"temp_directory = {_quoted(spill)}",
            "enable_external_access = false",
            "python_enable_replacements = false",
            "autoload_known_extensions = false",
            "enable_progress_bar = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")
        try:
            # Without its Hive partitioning, in which a folder called "seed=1" is a column of the table.
            table = self._connection.read_parquet(str(self._file), hive_partitioning=False)
        except duckdb.Error as error:
            raise self._explained(error) from None
        columns = zip(table.columns, map(str, table.types), strict=True)
        shown = listed(f"CASE WHEN isfinite({c}) THEN {c} END AS {c}" if kind == "DOUBLE" else c for c, kind in columns)
        self.rows = table.project(shown).create_view(name)

    def __enter__(self) -> TableView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def __len__(self) -> int:
        """Return the number of rows of the table."""
        return len(self.rows)

    def where(self, rows: DuckDBPyRelation, expression: str) -> DuckDBPyRelation:
        """Keep the rows for which a user's SQL expression is true.

        Parameters
        ----------
        rows
            Some rows of this table.
        expression
            One boolean expression over the columns. A subquery sees the table under the name of the view.

        Raises
        ------
        QueryError
            If it is no such expression, or asks for anything but the table.
        """
        self._where = expression
        try:
            expression.encode()
        except UnicodeEncodeError:
            raise self._refused(expression, "it is not a text in UTF-8") from None
        if not expression.strip():
            raise self._refused(expression, "it is empty")
        try:
            return rows.filter(expression)  # parsed by itself: no text can end it and begin something else
        except duckdb.Error as error:
            raise self._refused(expression, _first_line(error)) from None

    def batches(self, rows: DuckDBPyRelation) -> Iterator[pa.RecordBatch]:
        """Yield rows as they are found. An interrupt stops the search, which DuckDB's own reader does not hear.

        Raises
        ------
        QueryError
            If an expression of `where` fails on some row.
        CorruptStoreError
            If the table cannot be read.
        StorageError
            If the answer needs more memory, or room on disk, than there is.
        """
        with ThreadPoolExecutor(max_workers=1) as searching:

            def searched(search: Callable[[], _Result]) -> _Result:
                try:
                    return searching.submit(search).result()
                except (duckdb.Error, pa.ArrowException, OSError) as error:
                    raise self._explained(error) from None
                except BaseException:
                    self._connection.interrupt()
                    raise

            reader = searched(rows.to_arrow_reader)
            while (batch := searched(lambda: next(reader, None))) is not None:
                if batch.num_rows:
                    yield batch

    def _explained(self, error: Exception) -> FeldmanError:
        said, names_table = _first_line(error), str(self._file) in str(error)
        if isinstance(error, _LIMITS) and not names_table:
            return StorageError(f"the answer needs more room than there is ({said}); ask for fewer rows")
        if self._where is not None and not names_table:
            return self._refused(self._where, said)
        return CorruptStoreError(f"{self._path} cannot be read ({said}); make it anew: `feldman estimate RUN`")

    def _refused(self, expression: str, problem: str) -> QueryError:
        return QueryError(
            f"--where takes one SQL expression; found '{expression}': {problem}. The columns are {listed(self.rows.columns)}; "
            f'an example: --where "{_EXAMPLES[self._name]}"'
        )


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
