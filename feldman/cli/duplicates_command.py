"""`feldman duplicates`: which pairs are one image, or nearly so, and what is left without them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from feldman.cli.output import Output, class_name, number, output_stream, print_rows, small_number
from feldman.cli.progress import ProgressDisplay
from feldman.cli.study_output import show_study
from feldman.data.load import load_dataset
from feldman.errors import DatasetError, QueryError
from feldman.importing import see_current_folder
from feldman.results.formats import write_table
from feldman.results.tables import check_same_trials, read_table
from feldman.studies.duplicates import Headline, Inputs, find_duplicates, flag_pairs, headlines
from feldman.trials.rundir import run_paths
from feldman.trials.session import Progress
from feldman.trials.store import TrialStore

__all__ = ["DuplicateOptions", "show_duplicates"]


@dataclass(frozen=True, kw_only=True)
class DuplicateOptions:
    """What `feldman duplicates` was asked for; ``found`` is where the list of all near-duplicates goes."""

    min_correlation: float
    top: int | None
    found: Output | None


def show_duplicates(path: str, options: DuplicateOptions, output: Output) -> None:
    """Find near-duplicates in a run's data set; print or write its pairs with their flags, and the figures without them."""
    see_current_folder()
    paths = run_paths(path)
    store = TrialStore.open(paths.store)
    pairs, facts = read_table(paths.influence, paths.root)
    memorized, other_facts = read_table(paths.memorization, paths.root)
    check_same_trials(paths.root, {facts.digest, other_facts.digest})
    if facts.num_pairs_tested is None:
        raise QueryError(f"the tables of '{paths.root}' are of an earlier version; `feldman estimate {paths.root}`")
    dataset = load_dataset(store.experiment.dataset)
    trained_on = store.attributes["dataset"]["fingerprint"]
    if dataset.fingerprint != trained_on:
        raise DatasetError(
            f"the data set '{dataset.name}' is not what '{paths.root}' was trained on: its content is {dataset.fingerprint[:12]} "
            f"now, {trained_on[:12]} then; put the old data in its place"
        )
    train, test = Inputs.of(dataset.x_train, dataset.y_train), Inputs.of(dataset.x_test, dataset.y_test)
    with ProgressDisplay() as display:
        found = find_duplicates(
            train,
            test,
            options.min_correlation,
            lambda done, total: display(Progress(stage="looking for duplicates", done=done, total=total)),
        )
    flagged = flag_pairs(pairs, train, test, options.min_correlation)
    memorization = memorized["memorization"].to_numpy()
    figures = headlines(flagged, found, memorization, facts.selection.min_memorization)
    order = [("influence", "descending"), ("train_index", "ascending"), ("test_index", "ascending")]
    chosen = flagged.sort_by(order).replace_schema_metadata(None).slice(0, options.top)
    counts = _counts(found)
    if output.format == "table":
        said = f"{counts['test']:,} train/test and {counts['train']:,} train/train pairs"
        print_rows(
            [_headline_row(figure) for figure in figures],
            f"{said} correlate by {options.min_correlation:g} or more; {counts['identical']:,} are identical",
            sys.stdout,
        )
        print()
    document = {
        "run": str(paths.root),
        "min_correlation": options.min_correlation,
        "num_train_test": counts["test"],
        "num_train_train": counts["train"],
        "num_identical": counts["identical"],
        "headlines": [figure.as_json() for figure in figures],
    }
    num = int(np.sum(flagged["duplicate"].to_numpy()))
    title = (
        f"{chosen.num_rows:,} of {pairs.num_rows:,} pairs ({facts.selection.in_words()}); {num:,} are near-duplicates"
    )
    shown = [_pair_row(row, facts.class_names) for row in chosen.to_pylist()] if output.format == "table" else []
    show_study(chosen, document, output, shown=shown, title=title)
    if options.found is not None and options.found.file is not None and options.found.format != "table":
        with output_stream(options.found) as stream:
            write_table(found, options.found.format, stream)
        print(f"{Path(options.found.file)}: {found.num_rows:,} near-duplicates", file=sys.stderr)


def _counts(found: pa.Table) -> dict[str, int]:
    other = found["other"].to_pylist()
    return {
        "test": other.count("test"),
        "train": other.count("train"),
        "identical": sum(found["identical"].to_pylist()),
    }


def _headline_row(figure: Headline) -> dict[str, str]:
    return {
        "figures": figure.which,
        "memorized": f"{figure.num_memorized:,}",
        "pairs": f"{figure.num_pairs:,}",
        "q <= 0.05": f"{figure.num_significant:,}",
        "test examples": f"{figure.num_tests:,}",
        "mean influence": number(figure.mean_influence),
        "largest": number(figure.largest_influence),
    }


def _pair_row(row: dict[str, float], names: tuple[str, ...]) -> dict[str, str]:
    return {
        "train": str(row["train_index"]),
        "test": str(row["test_index"]),
        "influence": number(row["influence"]),
        "q-value": small_number(row["q_value"]),
        "correlation": number(row["correlation"]),
        "duplicate": "identical" if row["identical"] else "near" if row["duplicate"] else "",
        "train class": class_name(row["train_label"], names),
        "test class": class_name(row["test_label"], names),
    }
