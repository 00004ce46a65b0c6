"""`feldman verify` and `feldman merge`: the commands that read every bit of runs."""

from __future__ import annotations

from feldman.cli.output import print_json
from feldman.cli.progress import ProgressDisplay
from feldman.errors import command, listed
from feldman.merge_job import MergeSummary, merge
from feldman.trials.integrity import find_damage, refuse_damage
from feldman.trials.rundir import run_paths
from feldman.trials.session import Progress
from feldman.trials.store import TrialStore

__all__ = ["merge_runs", "verify_run"]


def verify_run(path: str, as_json: bool) -> None:
    """Print what is wrong with a run; raise if anything is."""
    paths = run_paths(path)
    store = TrialStore.open(paths.store)
    blocks = store.committed_blocks()
    with ProgressDisplay() as display:
        damage = find_damage(store, lambda done, total: display(Progress(stage="checking", done=done, total=total)))
    num_damaged = len({found.block for found in damage if found.block is not None})
    if as_json:
        print_json(
            {
                "run": str(paths.root),
                "num_committed_blocks": len(blocks),
                "num_damaged_blocks": num_damaged,
                "damage": [found.as_json() for found in damage],
            }
        )
    else:
        for found in damage:
            print("labels" if found.block is None else f"block {found.block}", found.problem, sep=": ")
    refuse_damage(store, damage)
    if not as_json:
        subsets = "every subset as planned" if store.imported_from is None else "subsets imported"
        print(f"{paths.root}: {len(blocks)} committed blocks, every chunk as it was written, {subsets}")


def merge_runs(runs: list[str], path: str, as_json: bool) -> None:
    """Merge, and print what came out."""
    with ProgressDisplay() as display:
        summary = merge(runs, path, on_progress=display)
    if as_json:
        print_json(summary.as_json())
    else:
        _print_merge(summary)


def _print_merge(summary: MergeSummary) -> None:
    status, again = summary.status, command("resume", summary.status.run)
    print(
        f"{status.run}: {status.num_committed_trials:,} of {status.num_trials:,} trials, in blocks of {status.block_size}"
    )
    for source in summary.sources:
        print(f"  from {source.run}: {source.num_taken_trials:,} of its {source.num_committed_trials:,} trials")
    if summary.num_shared_trials:
        print(f"  {summary.num_shared_trials:,} trials are in more than one run, with equal bits; each counts once")
    if summary.num_left_out_trials:
        print(
            f"  {summary.num_left_out_trials:,} trials of a short last block do not fill a block of {status.block_size} and are "
            f"left out; `{again}` trains them again"
        )
    if summary.outputs_left_out:
        print(f"  {listed(summary.outputs_left_out)} are left out: not every run records them")
    print(f"  tables {summary.memorization_path}, {summary.influence_path}")
    next_steps = [command("memorized", status.run), command("pairs", status.run)]
    print("  next   " + "; ".join(next_steps if status.complete else [f"{again} trains the others", *next_steps]))
