"""The commands that read a run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldman.cli.output import print_json, print_rows, rows_of
from feldman.errors import ExperimentError, QueryError, command, listed, suggestion
from feldman.experiment_files import preset_names, preset_text
from feldman.results.queries import most_memorized, top_pairs
from feldman.results.run import RunStatus, open_run
from feldman.results.tables import TableFacts, read_table
from feldman.results.tables_status import TablesStatus, tables_status
from feldman.trials.rundir import RunPaths, run_paths
from feldman.trials.store import TrialStore

__all__ = [
    "PairFilter",
    "list_memorized",
    "list_pairs",
    "show_presets",
    "show_status",
]


@dataclass(frozen=True, kw_only=True)
class PairFilter:
    """Which pairs `feldman pairs` shows."""

    train: int | None = None
    test: int | None = None
    min_influence: float | None = None
    min_memorization: float | None = None
    same_class: bool = False


def show_status(path: str, as_json: bool) -> None:
    """Print how far a run is."""
    tables = tables_status(run_paths(path))
    if tables is not None:
        _show_tables(tables, as_json)
        return
    status = open_run(path).status()
    if as_json:
        print_json(status.as_json())
        return
    print(f"{status.run}: {_state(status)}")
    print(f"  trials         {status.num_committed_trials:,} of {status.num_trials:,} committed")
    print(f"  blocks         {status.num_committed_blocks:,} of {status.num_blocks:,}, {status.block_size} trials each")
    print(f"  data set       {status.dataset}, {status.num_train:,} training and {status.num_test:,} test examples")
    if status.imported_from is not None:
        print(f"  imported from  {status.imported_from}, on subsets of {status.subset_size:,}")
    else:
        print(f"  learner        {status.learner}, on subsets of {status.subset_size:,}")
    if status.mean_test_accuracy is not None:
        print(f"  test accuracy  {100 * status.mean_test_accuracy:.2f}%")
    if status.mean_train_seconds is not None:
        print(f"  training       {status.mean_train_seconds:.3g} s a trial")
    print(f"  tables         {_tables(status)}")
    if status.writer is None and not status.complete and status.imported_from is None:
        print(f"  go on with     {command('resume', status.run)}")


def list_memorized(path: str, top: int, label: int | None, as_json: bool) -> None:
    """Print the most memorized examples."""
    paths = run_paths(path)
    store = TrialStore.open(paths.store)
    table, facts = read_table(paths.memorization, paths.root)
    names = store.attributes["dataset"]["class_names"]
    if label is not None and not 0 <= label < len(names):
        raise QueryError(f"--label is the number of a class, 0 .. {len(names) - 1}; found {label}")
    rows = rows_of(most_memorized(table, top=top, label=label))
    _tell_age(facts, store, paths)
    if as_json:
        print_json(rows)
    else:
        shown = [_memorized_row(row, names) for row in rows]
        print_rows(shown, f"most memorized of {table.num_rows:,} training examples, from {_trials(facts, store)}")


def list_pairs(path: str, top: int, chosen: PairFilter, as_json: bool) -> None:
    """Print the most influential pairs."""
    paths = run_paths(path)
    store = TrialStore.open(paths.store)
    table, facts = read_table(paths.influence, paths.root)
    for name, index, size in (("--train", chosen.train, store.num_train), ("--test", chosen.test, store.num_test)):
        if index is not None and not 0 <= index < size:
            raise QueryError(f"{name} is an example's index, 0 .. {size - 1}; found {index}")
    found = top_pairs(
        table,
        facts,
        top=top,
        train=chosen.train,
        test=chosen.test,
        min_influence=chosen.min_influence,
        min_memorization=chosen.min_memorization,
        same_class=chosen.same_class,
    )
    rows = rows_of(found)
    _tell_age(facts, store, paths)
    if as_json:
        print_json(rows)
    else:
        names = store.attributes["dataset"]["class_names"]
        shown = [_pair_row(row, names) for row in rows]
        print_rows(shown, f"{len(rows)} of {table.num_rows:,} pairs, from {_trials(facts, store)}")


def show_presets(name: str | None) -> None:
    """Print the names of the presets, or the text of one."""
    if name is None:
        for preset in preset_names():
            comment = preset_text(preset).split("\n\n")[0].replace("\n#", "").lstrip("# ")
            print(f"{preset}: {comment}")
    elif name in preset_names():
        print(preset_text(name), end="")
    else:
        raise ExperimentError(
            f"there is no preset '{name}'{suggestion(name, preset_names())}; there are {listed(preset_names())}"
        )


def _show_tables(status: TablesStatus, as_json: bool) -> None:
    if as_json:
        print_json(status.as_json())
        return
    source = "made from trials that are no longer here"
    if status.imported_from is not None:
        source = f"imported from {status.imported_from}"
    sizes = [f"{size:,}" if size is not None else "not told" for size in (status.num_train, status.num_test)]
    print(f"{status.run}: {source}, tables only")
    print(f"  data set       {sizes[0]} training and {sizes[1]} test examples")
    print(f"  memorization   {status.num_memorization:,} training examples")
    print(
        f"  pairs          {status.num_pairs:,} (influence >= {status.min_influence:g}, memorization >= "
        f"{status.min_memorization:g}{', of one class' if status.same_class else ''})"
    )


def _state(status: RunStatus) -> str:
    if status.writer is not None:
        return f"being written by process {status.writer.get('pid', '?')} on {status.writer.get('host', '?')}"
    return "complete" if status.complete else "not finished"


def _tables(status: RunStatus) -> str:
    there = [
        name
        for name, present in (("memorization", status.has_memorization), ("influence", status.has_influence))
        if present
    ]
    return " and ".join(there) or f"none yet; `{command('estimate', status.run)}` makes them"


def _trials(facts: TableFacts, store: TrialStore) -> str:
    return f"{facts.num_trials:,} of {store.experiment.subsets.num_trials:,} trials"


def _tell_age(facts: TableFacts, store: TrialStore, paths: RunPaths) -> None:
    newer = store.num_trials_in(store.committed_blocks()) - (facts.num_trials or 0)
    if newer > 0:
        print(
            f"{newer:,} trials are newer than the table; `{command('estimate', Path(paths.root))}` counts them",
            file=sys.stderr,
        )


def _memorized_row(row: dict[str, Any], names: list[str]) -> dict[str, str]:
    return {
        "train": str(row["train_index"]),
        "class": names[row["label"]],
        "memorization": f"{row['memorization']:.3f}",
        "95% interval": _interval(row),
        "right with it": f"{row['correct_in']}/{row['num_in']}",
        "right without": f"{row['correct_out']}/{row['num_out']}",
    }


def _pair_row(row: dict[str, Any], names: list[str]) -> dict[str, str]:
    return {
        "train": str(row["train_index"]),
        "test": str(row["test_index"]),
        "influence": f"{row['influence']:.3f}",
        "95% interval": _interval(row),
        "memorization": f"{row['memorization']:.3f}",
        "train class": names[row["train_label"]],
        "test class": names[row["test_label"]],
    }


def _interval(row: dict[str, Any]) -> str:
    return f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"
