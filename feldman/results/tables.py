"""The tables of a run: made from bits, written whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feldman.errors import QueryError, RunDirectoryError
from feldman.estimates.bits import TrialBits, labels_of, read_bits
from feldman.estimates.influence import Pairs, select_pairs
from feldman.estimates.memorization import Memorization, estimate_memorization
from feldman.trials.rundir import RunPaths
from feldman.trials.store import TrialStore, storage_errors

__all__ = [
    "DEFAULT_MIN_INFLUENCE",
    "DEFAULT_MIN_MEMORIZATION",
    "TableFacts",
    "influence_table",
    "memorization_table",
    "read_table",
    "write_estimates",
]

DEFAULT_MIN_INFLUENCE = 0.15
DEFAULT_MIN_MEMORIZATION = 0.25
_METADATA_KEY = b"feldman"


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """What a table was made from; kept in its Parquet metadata."""

    num_trials: int
    fingerprint: str
    min_influence: float
    min_memorization: float


def memorization_table(memorization: Memorization, labels: NDArray[np.integer]) -> pa.Table:
    """Return one row a training example, in their order."""
    return pa.table(
        {
            "train_index": pa.array(np.arange(len(labels)), pa.int64()),
            "label": pa.array(labels, pa.int64()),
            "memorization": memorization.memorization,
            "stderr": memorization.stderr,
            "ci_low": memorization.ci_low,
            "ci_high": memorization.ci_high,
            "num_in": memorization.num_in,
            "num_out": memorization.num_out,
            "correct_in": memorization.correct_in,
            "correct_out": memorization.correct_out,
        }
    )


def influence_table(
    pairs: Pairs,
    memorization: NDArray[np.float64],
    train_labels: NDArray[np.integer],
    test_labels: NDArray[np.integer],
) -> pa.Table:
    """Return one row a pair."""
    return pa.table(
        {
            "train_index": pairs.train_index,
            "test_index": pairs.test_index,
            "influence": pairs.influence,
            "stderr": pairs.stderr,
            "ci_low": pairs.ci_low,
            "ci_high": pairs.ci_high,
            "memorization": memorization[pairs.train_index],
            "train_label": pa.array(train_labels[pairs.train_index], pa.int64()),
            "test_label": pa.array(test_labels[pairs.test_index], pa.int64()),
        }
    )


def write_estimates(
    paths: RunPaths,
    store: TrialStore,
    *,
    min_influence: float = DEFAULT_MIN_INFLUENCE,
    min_memorization: float = DEFAULT_MIN_MEMORIZATION,
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> TableFacts:
    """Estimate from the trials that are committed now, and write both tables.

    The tables of one run are one to the last byte however it was interrupted: nothing in them tells when they were made.

    Parameters
    ----------
    paths, store
        The run.
    min_influence, min_memorization
        Which pairs are kept.
    on_progress
        Told the stage, how much of it is done, and how much there is.

    Raises
    ------
    CorruptStoreError
        If a committed block is damaged.
    StorageError
        If the storage refuses.
    """
    blocks_done = 0

    def count_block(block: int) -> None:  # noqa: ARG001
        nonlocal blocks_done
        blocks_done += 1
        on_progress("reading trials", blocks_done, num_committed)

    num_committed = len(store.committed_blocks())
    train_labels, test_labels = labels_of(store)
    bits: TrialBits = read_bits(store, count_block)
    memorization = estimate_memorization(bits)
    num_candidates = int((memorization.memorization >= min_memorization).sum())
    examples_done = 0

    def count_examples(count: int) -> None:
        nonlocal examples_done
        examples_done += count
        on_progress("estimating influence", examples_done, num_candidates)

    pairs = select_pairs(
        bits,
        memorization.memorization,
        min_influence=min_influence,
        min_memorization=min_memorization,
        on_examples=count_examples,
    )
    facts = TableFacts(
        num_trials=bits.num_trials,
        fingerprint=store.experiment.fingerprint,
        min_influence=min_influence,
        min_memorization=min_memorization,
    )
    with storage_errors(paths.root):
        _write_table(memorization_table(memorization, train_labels), facts, paths.memorization)
        _write_table(
            influence_table(pairs, memorization.memorization, train_labels, test_labels), facts, paths.influence
        )
    return facts


def read_table(path: Path, run: Path) -> tuple[pa.Table, TableFacts]:
    """Read a table and what it was made from.

    Raises
    ------
    RunDirectoryError
        If it is not there yet, or is not a table of feldman's.
    """
    if not path.exists():
        raise RunDirectoryError(
            f"'{run}' has no {path.name} yet; `feldman estimate {run}` makes it from the trials so far"
        )
    try:
        table = pq.read_table(path)
        facts = TableFacts(**json.loads(table.schema.metadata[_METADATA_KEY]))
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise QueryError(f"{path} cannot be read ({error}); `feldman estimate {run}` makes it anew") from None
    return table, facts


def _write_table(table: pa.Table, facts: TableFacts, path: Path) -> None:
    document: dict[str, Any] = facts.__dict__
    table = table.replace_schema_metadata({_METADATA_KEY: json.dumps(document, sort_keys=True)})
    building = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        pq.write_table(table, building, compression="zstd")
        with building.open("rb") as written:
            os.fsync(written.fileno())
        building.replace(path)
    finally:
        building.unlink(missing_ok=True)
