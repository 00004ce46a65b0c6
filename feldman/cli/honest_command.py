"""`feldman pairs --honest`: selected on one half of the trials, reported from the other."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feldman.cli.output import Output, class_name, interval, number, print_rows, small_number
from feldman.cli.progress import ProgressDisplay
from feldman.cli.study_output import open_study, show_study
from feldman.errors import QueryError
from feldman.estimates.selection import Targets, chosen_pairs
from feldman.results.queries import PairQuery, filtered_pairs
from feldman.results.sandbox import TableView
from feldman.studies.honest import HONEST_SCHEMA, Shrinkage, honest_pairs, measure_shrinkage

__all__ = ["list_honest_pairs"]

_ORDER = "selected_influence DESC, train_index, test_index, selected_on"


def list_honest_pairs(path: str, targets: Targets, query: PairQuery, seed: int, output: Output) -> None:
    """Print or write the strongest pairs of each half, and what is left of them."""
    if targets != "test":
        raise QueryError("pairs are selected honestly for test examples alone; leave out --targets train")
    selection = chosen_pairs(
        min_influence=query.min_influence, min_memorization=query.min_memorization, same_class=query.same_class
    )
    with ProgressDisplay() as display:
        study = open_study(path, display)
    table = honest_pairs(study.bits, study.labels, selection, seed=seed)
    shrinkage, found = measure_shrinkage(table), _queried(table, query)
    document = {
        "run": str(study.root),
        "num_trials": study.bits.num_trials,
        "seed": seed,
        "selection": selection.in_words(),
        "shrinkage": [row.as_json() for row in shrinkage],
    }
    if output.format == "table":
        print_rows([_shrinkage_row(row) for row in shrinkage], "the strongest pairs of each half", sys.stdout)
        print()
    names = tuple(study.store.attributes["dataset"]["class_names"])
    shown = [_row(row, names) for row in found.to_pylist()] if output.format == "table" else []
    half = study.bits.num_trials // 2
    title = f"{found.num_rows:,} of {table.num_rows:,} pairs selected on one half ({selection.in_words()}), {half:,} trials each"
    show_study(found, document, output, shown=shown, title=title)


def _queried(table: pa.Table, query: PairQuery) -> pa.Table:
    """Filter and cut rows with the questions that tables of pairs are asked; thresholds have been applied."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "honest.parquet"
        pq.write_table(table, path)
        with TableView(path, "pairs") as view:
            rows = filtered_pairs(view, query, "test").order(_ORDER)
            batches = list(view.batches(rows if query.top is None else rows.limit(query.top)))
    return pa.Table.from_batches(batches, schema=HONEST_SCHEMA) if batches else HONEST_SCHEMA.empty_table()


def _shrinkage_row(row: Shrinkage) -> dict[str, str]:
    return {
        "strongest": "all" if row.num_pairs is None else f"{row.num_pairs:,}",
        "influence where selected": number(row.selected_influence),
        "in the other half": number(row.influence),
        "left": number(row.ratio),
    }


def _row(row: dict[str, float | None], names: tuple[str, ...]) -> dict[str, str]:
    return {
        "train": str(row["train_index"]),
        "test": str(row["test_index"]),
        "selected on": str(row["selected_on"]),
        "influence there": number(row["selected_influence"]),
        "in the other half": number(row["influence"]),
        "95% interval": interval(row),
        "q-value": small_number(row["q_value"]),
        "train class": class_name(row["train_label"], names),
        "test class": class_name(row["test_label"], names),
    }
