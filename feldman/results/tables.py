"""The tables of a run: their columns, what they were made from, and how they are read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from dataclasses import field as record_field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feldman.errors import CorruptStoreError, QueryError, RunDirectoryError, command
from feldman.estimates.selection import PairSelection, Targets
from feldman.results.local_copies import local_copy
from feldman.trials.locations import Location

if TYPE_CHECKING:  # queries read tables without paying for the kernel
    from feldman.estimates.influence import Pairs
    from feldman.estimates.memorization import Memorization

__all__ = [
    "MEMORIZATION_SCHEMA",
    "ORIGINAL_LABEL",
    "TableFacts",
    "check_same_trials",
    "column",
    "count_rows",
    "influence_schema",
    "influence_table",
    "memorization_table",
    "num_rows",
    "read_facts",
    "read_table",
]

METADATA_KEY = b"feldman"

MEMORIZATION_SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in ("train_index", "label")),
        *((name, pa.float64()) for name in ("memorization", "stderr", "ci_low", "ci_high")),
        *((name, pa.int64()) for name in ("num_in", "num_out", "correct_in", "correct_out")),
    ]
)


ORIGINAL_LABEL = pa.field("original_label", pa.int64())
"""The last column where some labels were replaced by random ones: what they were, and of all others the label."""


def influence_schema(targets: Targets = "test") -> pa.Schema:
    """Return the columns of a table of pairs: ``test_index`` and ``test_label``, or ``target_...`` for training examples."""
    target = "test" if targets == "test" else "target"
    return pa.schema(
        [
            *((name, pa.int64()) for name in ("train_index", f"{target}_index")),
            *((name, pa.float64()) for name in ("influence", "stderr", "ci_low", "ci_high", "memorization")),
            *((name, pa.int64()) for name in ("train_label", f"{target}_label")),
            *((name, pa.float64()) for name in ("p_value", "q_value")),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """What a table was made from; kept in its Parquet metadata, so that a table explains itself.

    Attributes
    ----------
    source
        ``"trials"``, or the name of the file that was imported.
    num_trials, fingerprint, digest
        Of the committed trials it was made from; None where imported.
    num_train, num_test
        Size of the data set; None where an imported file does not tell.
    class_names
        By label; empty where not known.
    selection
        Which pairs were kept.
    num_pairs_tested
        Of how many that were looked at: q-values are over these. None of a table of examples, of an imported one, and of one
        from before there were q-values.
    """

    source: str = "trials"
    num_trials: int | None = None
    fingerprint: str | None = None
    digest: str | None = None
    num_train: int | None = None
    num_test: int | None = None
    class_names: tuple[str, ...] = ()
    selection: PairSelection = record_field(default_factory=PairSelection)
    num_pairs_tested: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json`` and for the metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TableFacts:
        """Undo `as_json`.

        Raises
        ------
        TypeError, KeyError, QueryError
            If it is no such object.
        """
        known = {**document, "class_names": tuple(document["class_names"])}
        return cls(**{**known, "selection": PairSelection(**document["selection"])})


def memorization_table(
    memorization: Memorization,
    labels: NDArray[np.integer],
    first: int = 0,
    original: NDArray[np.integer] | None = None,
) -> pa.Table:
    """Return one row a training example, in their order, numbered from ``first``; with original labels if some are random."""
    index = np.arange(first, first + len(labels))
    columns = [index, labels, *memorization.__dict__.values()]
    if original is None:
        return _table(columns, MEMORIZATION_SCHEMA)
    return _table([*columns, original], MEMORIZATION_SCHEMA.append(ORIGINAL_LABEL))


def influence_table(
    pairs: Pairs,
    memorization: NDArray[np.float64],
    train_labels: NDArray[np.integer],
    target_labels: NDArray[np.integer],
    *,
    targets: Targets = "test",
    q_value: NDArray[np.float64] | None = None,
) -> pa.Table:
    """Return one row a pair; ``memorization`` and labels are those of all examples. Without q-values these are NaN."""
    schema = influence_schema(targets)
    values = [
        pairs.train_index,
        pairs.target_index,
        pairs.influence,
        pairs.stderr,
        pairs.ci_low,
        pairs.ci_high,
        memorization[pairs.train_index],
        train_labels[pairs.train_index],
        target_labels[pairs.target_index],
        pairs.p_value,
        np.full(len(pairs.p_value), np.nan) if q_value is None else q_value,
    ]
    return _table(values, schema)


def read_facts(path: Location, run: Location) -> TableFacts:
    """Read what a table was made from, and nothing else of it.

    Raises
    ------
    RunDirectoryError
        If it is not there yet.
    CorruptStoreError
        If it cannot be read.
    """
    return _facts_of(_opened(path, run), path, run)


def read_table(path: Location, run: Location) -> tuple[pa.Table, TableFacts]:
    """Read a whole table and what it was made from.

    Raises
    ------
    RunDirectoryError
        If it is not there yet.
    CorruptStoreError
        If it cannot be read.
    """
    opened = _opened(path, run)
    facts = _facts_of(opened, path, run)
    try:
        return opened.read(), facts  # pq.read_table would import pandas: a third of a query's time
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, run, error) from None


def column(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Return an array as Arrow has it, without a copy. pa.array would import pandas, to find out that it is NumPy's: 0.4 s."""
    values = np.ascontiguousarray(values, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _table(columns: list[NDArray[Any]], schema: pa.Schema) -> pa.Table:
    arrays = [column(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def count_rows(path: Location, run: Location) -> int:
    """Count the rows of a table that can be read; a row group at a time, so that it may be of any size.

    Raises
    ------
    RunDirectoryError
        If it is not there yet.
    CorruptStoreError
        If any of it cannot be read.
    """
    opened = _opened(path, run)
    try:
        return sum(opened.read_row_group(group).num_rows for group in range(opened.num_row_groups))
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, run, error) from None


def num_rows(path: Location, run: Location) -> int:
    """Return how many rows a table says that it has; see `count_rows`."""
    rows: int = _opened(path, run).metadata.num_rows
    return rows


def check_same_trials(run: Location, digests: set[str | None]) -> None:
    """Refuse to put side by side what was estimated from different trials.

    Raises
    ------
    QueryError
        If tables, or tables and committed trials, have different digests.
    """
    if len(digests) > 1:
        raise QueryError(
            f"the tables of '{run}' are of other trials than those that are committed; make them anew: "
            f"{command('estimate', run)}"
        )


def _opened(path: Location, run: Location) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(local_copy(path))
    except FileNotFoundError:
        raise RunDirectoryError(
            f"'{run}' has no {path.name} yet; `{_making(path, run)}` makes it from the trials so far"
        ) from None
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, run, error) from None


def _facts_of(opened: pq.ParquetFile, path: Location, run: Location) -> TableFacts:
    try:
        return TableFacts.from_json(json.loads(opened.schema_arrow.metadata[METADATA_KEY]))
    except (KeyError, TypeError, ValueError, QueryError) as error:
        raise _unreadable(path, run, error) from None


def _unreadable(path: Location, run: Location, error: Exception) -> CorruptStoreError:
    return CorruptStoreError(f"{path} cannot be read ({error}); `{_making(path, run)}` makes it anew")


def _making(path: Location, run: Location) -> str:
    options = ("--targets", "train") if path.stem == "influence_train" else ()
    return command("estimate", run, *options)
