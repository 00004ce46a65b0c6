"""`feldman memorized` and `feldman pairs`: they import neither Zarr nor the kernel, which would take most of their time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import StringIO
from typing import Any

from duckdb import DuckDBPyRelation

from feldman.cli.output import Output, class_name, interval, number, output_stream, print_rows, small_number
from feldman.errors import QueryError, RunDirectoryError, command, listed
from feldman.estimates.selection import Targets
from feldman.results.formats import write_rows
from feldman.results.queries import MemorizedQuery, PairQuery, most_memorized, target_name, top_pairs
from feldman.results.sandbox import TableView
from feldman.results.tables import TableFacts, read_facts
from feldman.trials.locations import Location
from feldman.trials.markers import TrialCount, count_trials
from feldman.trials.rundir import RunPaths, run_paths

__all__ = ["list_memorized", "list_pairs"]

Row = dict[str, Any]


def list_memorized(path: str, query: MemorizedQuery, output: Output) -> None:
    """Print or write the most memorized examples."""
    paths = run_paths(path)
    facts = _facts(paths.memorization, paths)
    _check_number("--label", "the number of a class", query.label, len(facts.class_names) or None)
    with TableView(paths.memorization, "memorized") as view:
        found, total = most_memorized(view, query), len(view)
        trials = _trials(facts, paths)
        _answer(
            view,
            found,
            output,
            row=lambda row: _memorized_row(row, facts.class_names),
            title=lambda _: f"most memorized of {total:,} training examples, {trials}",
        )


def list_pairs(path: str, targets: Targets, query: PairQuery, output: Output) -> None:
    """Print or write the most influential pairs."""
    paths = run_paths(path)
    table = paths.influence if targets == "test" else paths.influence_on_train
    facts = _facts(table, paths)
    num_targets = facts.num_test if facts.selection.targets == "test" else facts.num_train
    _check_number("--train", "an example's index", query.train, facts.num_train)
    _check_number("--test", "an example's index", query.target, num_targets)
    with TableView(table, "pairs") as view:
        found, total = top_pairs(view, facts, query), len(view)
        trials = _trials(facts, paths)
        _answer(
            view,
            found,
            output,
            row=lambda row: _pair_row(row, facts),
            title=lambda count: f"{count:,} of {total:,} pairs ({facts.selection.in_words()}), {trials}",
        )


def _facts(table: Location, paths: RunPaths) -> TableFacts:
    if not table.exists():
        others = [
            other.name for other in (paths.memorization, paths.influence, paths.influence_on_train) if other.exists()
        ]
        if others and not paths.has_store:
            raise RunDirectoryError(
                f"'{paths.root}' has no {table.name}, and no trials to make it from; it holds {listed(others)}"
            )
        from feldman.trials.store import TrialStore  # says what is wrong with the run, if anything is

        TrialStore.open(paths.store)
    return read_facts(table, paths.root)


def _check_number(option: str, meaning: str, number: int | None, size: int | None) -> None:
    if number is not None and not 0 <= number < (2**127 if size is None else size):
        numbers = "0 or more" if size is None else f"0 .. {size - 1}"
        raise QueryError(f"{option} is {meaning}, {numbers}; found {number}")


def _trials(facts: TableFacts, paths: RunPaths) -> str:
    """Say what a table was made from; tell on standard error if there is more by now."""
    if facts.num_trials is None:
        return f"from {facts.source}"
    count = count_trials(paths.store)
    if count is None:
        return f"from {facts.num_trials:,} trials"
    _tell_age(facts.num_trials, count, paths)
    return f"from {facts.num_trials:,} of {count.num_trials:,} trials"


def _tell_age(num_trials: int, count: TrialCount, paths: RunPaths) -> None:
    newer = count.num_committed - num_trials
    if newer > 0:
        print(
            f"{newer:,} trials are newer than the table; `{command('estimate', paths.root)}` counts them",
            file=sys.stderr,
        )


def _answer(
    view: TableView,
    found: DuckDBPyRelation,
    output: Output,
    *,
    row: Callable[[Row], dict[str, str]],
    title: Callable[[int], str],
) -> None:
    with output_stream(output) as stream:
        if output.format == "table":
            shown = [row(values) for batch in view.batches(found) for values in batch.to_pylist()]
            count = len(shown)
            if output.file is None:
                print_rows(shown, title(count), sys.stdout)
            else:
                text = StringIO()
                print_rows(shown, title(count), text)
                stream.write(text.getvalue().encode())
        else:
            count = write_rows(view, found, output.format, stream)
    if output.file is not None:
        print(f"{output.file}: {title(count)}", file=sys.stderr)


def _memorized_row(row: Row, names: tuple[str, ...]) -> dict[str, str]:
    return {
        "train": str(row["train_index"]),
        "class": _class_learned(row, names),
        "memorization": number(row["memorization"]),
        "95% interval": interval(row),
        "right with it": _share(row["correct_in"], row["num_in"]),
        "right without": _share(row["correct_out"], row["num_out"]),
    }


def _class_learned(row: Row, names: tuple[str, ...]) -> str:
    label, original = row["label"], row.get("original_label", row["label"])
    was = "" if original == label else f" (random, was {class_name(original, names)})"
    return class_name(label, names) + was


def _pair_row(row: Row, facts: TableFacts) -> dict[str, str]:
    target = target_name(facts.selection.targets)
    return {
        "train": str(row["train_index"]),
        target: str(row[f"{target}_index"]),
        "influence": number(row["influence"]),
        "95% interval": interval(row),
        "q-value": small_number(row.get("q_value")),  # tables of earlier versions have none
        "memorization": number(row["memorization"]),
        "train class": class_name(row["train_label"], facts.class_names),
        f"{target} class": class_name(row[f"{target}_label"], facts.class_names),
    }


def _share(correct: int | None, trials: int | None) -> str:
    return "-" if trials is None else f"{'-' if correct is None else correct}/{trials}"
