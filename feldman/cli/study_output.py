"""What the studies have in common: a run's bits, read with a display of progress, and rows written where they were asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from feldman.cli.output import Output, output_stream, print_json, print_rows
from feldman.cli.progress import ProgressDisplay
from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits
from feldman.estimates.reading import read_bits
from feldman.results.formats import write_table
from feldman.trials.locations import Location
from feldman.trials.rundir import run_paths
from feldman.trials.session import Progress
from feldman.trials.store import TrialStore

__all__ = ["OpenStudy", "numbers", "open_study", "show_study", "trial_counts"]


@dataclass(frozen=True, kw_only=True)
class OpenStudy:
    """A run whose trials are studied: its store, the bits of all committed trials, labels of training and test examples."""

    root: Location
    store: TrialStore
    bits: TrialBits
    labels: tuple[NDArray[Any], NDArray[Any]]


def open_study(path: str, display: ProgressDisplay) -> OpenStudy:
    """Read all committed trials of a run."""
    paths = run_paths(path)
    store = TrialStore.open(paths.store)
    bits = read_bits(store, lambda done, total: display(Progress(stage="reading trials", done=done, total=total)))
    return OpenStudy(root=paths.root, store=store, bits=bits, labels=(store.labels("train"), store.labels("test")))


def show_study(
    table: pa.Table,
    document: dict[str, Any],
    output: Output,
    *,
    shown: list[dict[str, str]],
    title: str,
    before: Sequence[tuple[list[dict[str, str]], str]] = (),
) -> None:
    """Print or write what a study found.

    Parameters
    ----------
    table
        Its rows: what CSV and Parquet, and a JSON file, hold.
    document
        What standard output gets as JSON besides these rows.
    output
        How, and where to.
    shown, title
        The table for people.
    before
        Tables for people that come before it, with their titles.
    """
    if output.file is None and output.format == "json":
        print_json({**document, "rows": table.to_pylist()})
        return
    if output.format != "table":
        with output_stream(output) as stream:
            write_table(table, output.format, stream)
        if output.file is None:
            return
    for rows, of_rows in (*before, (shown, title)):
        print_rows(rows, of_rows, sys.stdout)
    if output.file is not None:
        print(f"{output.file}: {table.num_rows:,} rows", file=sys.stderr)


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Return the numbers that an option lists, ascending.

    Raises
    ------
    QueryError
        If they are no such list.
    """
    try:
        return tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        raise QueryError(f"{option} lists numbers, as in 0.1,0.5; found '{text}'") from None


def trial_counts(text: str) -> tuple[int, ...]:
    """Return the numbers of trials that ``--sizes`` lists, ascending.

    Raises
    ------
    QueryError
        If they are no such list.
    """
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise QueryError(f"--sizes lists numbers of trials, as in 50,100,200; found '{text}'") from None
