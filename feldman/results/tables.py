"""The tables of a run: their columns, written whole or not at all, and read."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feldman.errors import CorruptStoreError, RunDirectoryError, command

if TYPE_CHECKING:  # queries read tables without paying for the kernel
    from feldman.estimates.influence import Pairs
    from feldman.estimates.memorization import Memorization

__all__ = [
    "DEFAULT_MIN_INFLUENCE",
    "DEFAULT_MIN_MEMORIZATION",
    "INFLUENCE_SCHEMA",
    "MEMORIZATION_SCHEMA",
    "TableFacts",
    "influence_table",
    "memorization_table",
    "read_table",
    "write_table",
]

DEFAULT_MIN_INFLUENCE = 0.15
DEFAULT_MIN_MEMORIZATION = 0.25
_METADATA_KEY = b"feldman"
_ROW_GROUP = 131_072

MEMORIZATION_SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in ("train_index", "label")),
        *((name, pa.float64()) for name in ("memorization", "stderr", "ci_low", "ci_high")),
        *((name, pa.int64()) for name in ("num_in", "num_out", "correct_in", "correct_out")),
    ]
)
INFLUENCE_SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in ("train_index", "test_index")),
        *((name, pa.float64()) for name in ("influence", "stderr", "ci_low", "ci_high", "memorization")),
        *((name, pa.int64()) for name in ("train_label", "test_label")),
    ]
)


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """What a table was made from; kept in its Parquet metadata. ``digest`` is that of the committed trials."""

    num_trials: int
    fingerprint: str
    digest: str
    min_influence: float
    min_memorization: float


def memorization_table(memorization: Memorization, labels: NDArray[np.integer]) -> pa.Table:
    """Return one row a training example, in their order."""
    columns = {"train_index": np.arange(len(labels)), "label": labels, **memorization.__dict__}
    return pa.table(columns, schema=MEMORIZATION_SCHEMA)


def influence_table(
    pairs: Pairs,
    memorization: NDArray[np.float64],
    train_labels: NDArray[np.integer],
    test_labels: NDArray[np.integer],
) -> pa.Table:
    """Return one row a pair."""
    columns = {
        **pairs.__dict__,
        "memorization": memorization[pairs.train_index],
        "train_label": train_labels[pairs.train_index],
        "test_label": test_labels[pairs.test_index],
    }
    return pa.table(columns, schema=INFLUENCE_SCHEMA)


def read_table(path: Path, run: Path) -> tuple[pa.Table, TableFacts]:
    """Read a table and what it was made from.

    Raises
    ------
    RunDirectoryError
        If it is not there yet.
    CorruptStoreError
        If it cannot be read.
    """
    if not path.exists():
        raise RunDirectoryError(
            f"'{run}' has no {path.name} yet; `{command('estimate', run)}` makes it from the trials so far"
        )
    try:
        table = pq.ParquetFile(path).read()  # pq.read_table would import pandas: a third of a query's time
        facts = TableFacts(**json.loads(table.schema.metadata[_METADATA_KEY]))
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise CorruptStoreError(
            f"{path} cannot be read ({error}); `{command('estimate', run)}` makes it anew"
        ) from None
    return table, facts


def write_table(parts: Iterable[pa.Table], schema: pa.Schema, facts: TableFacts, path: Path) -> None:
    """Write a table as its parts come, in row groups of one size; it appears under its name when it is whole.

    Parameters
    ----------
    parts
        Tables of this schema.
    schema, facts
        Its columns, and what it was made from.
    path
        Replaced if it is there.
    """
    schema = schema.with_metadata({_METADATA_KEY: json.dumps(facts.__dict__, sort_keys=True)})
    building = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    waiting = schema.empty_table()
    try:
        with pq.ParquetWriter(building, schema, compression="zstd") as writer:
            for part in parts:
                waiting = pa.concat_tables([waiting, part.replace_schema_metadata(schema.metadata)])
                while waiting.num_rows >= _ROW_GROUP:
                    writer.write_table(waiting.slice(0, _ROW_GROUP), row_group_size=_ROW_GROUP)
                    waiting = waiting.slice(_ROW_GROUP)
            writer.write_table(waiting, row_group_size=_ROW_GROUP)
        with building.open("rb") as written:
            os.fsync(written.fileno())
        building.replace(path)
    finally:
        building.unlink(missing_ok=True)
