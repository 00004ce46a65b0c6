"""`feldman status` and `feldman presets`: what there is."""

from __future__ import annotations

from feldman.cli.output import print_json
from feldman.errors import ExperimentError, command, listed, suggestion
from feldman.experiment_files import preset_names, preset_text
from feldman.results.run import RunStatus, open_run
from feldman.results.tables_status import TablesStatus, tables_status
from feldman.trials.rundir import run_paths

__all__ = ["show_presets", "show_status"]


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
    first, end = status.trials
    planned = " planned" if status.has_range else ""
    within = f", the range {first}:{end} of {status.num_trials:,} planned" if status.has_range else ""
    print(f"  trials         {status.num_committed_in_range:,} of {end - first:,} committed{within}")
    print(
        f"  blocks         {status.num_committed_blocks:,} of {status.num_blocks:,}{planned}, {status.block_size} trials each"
    )
    print(f"  data set       {status.dataset}, {status.num_train:,} training and {status.num_test:,} test examples")
    if status.imported_from is not None:
        print(f"  imported from  {status.imported_from}, on {_subsets(status)}")
    else:
        print(f"  learner        {status.learner}, on {_subsets(status)}")
    if status.outputs:
        print(f"  records        {listed(status.outputs)}")
    if status.stopping is not None:
        print(f"  stops by       {status.stopping.in_words()}")
    if status.mean_test_accuracy is not None:
        print(f"  test accuracy  {100 * status.mean_test_accuracy:.2f}%")
    if status.mean_train_seconds is not None:
        print(f"  training       {status.mean_train_seconds:.3g} s a trial")
    if status.num_arms is None:
        print(f"  tables         {_tables(status)}")
    else:
        print(f"  results        {command('removal', status.run)}")
    if status.writer is None and not status.complete and status.imported_from is None:
        print(f"  go on with     {command('resume', status.run)}")


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
    sizes = [f"{size:,}" if size is not None else "?" for size in (status.num_train, status.num_test)]
    print(f"{status.run}: {source}, tables only")
    print(f"  data set       {sizes[0]} training and {sizes[1]} test examples")
    print(f"  memorization   {status.num_memorization:,} training examples")
    print(
        f"  pairs          {status.num_pairs:,} (influence >= {status.min_influence:g}, memorization >= "
        f"{status.min_memorization:g}{', of one class' if status.same_class else ''})"
    )


def _subsets(status: RunStatus) -> str:
    if status.subset_size is None:
        return f"subsets of the {status.num_arms} arms of a removal study"
    return f"subsets of {status.subset_size:,}"


def _state(status: RunStatus) -> str:
    if status.writer is not None:
        return f"being written by process {status.writer.get('pid', '?')} on {status.writer.get('host', '?')}"
    if status.complete and status.stopping is not None and status.stopping.outcome == "met":
        return "complete, stopped by its rule"
    return "complete" if status.complete else "not finished"


def _tables(status: RunStatus) -> str:
    there = [
        name
        for name, present in (("memorization", status.has_memorization), ("influence", status.has_influence))
        if present
    ]
    return " and ".join(there) or f"none yet; `{command('estimate', status.run)}` makes them"
