"""`feldman verify` and `feldman estimate`: the commands that read every bit of a run."""

from __future__ import annotations

from feldman.cli.output import print_json
from feldman.cli.progress import ProgressDisplay
from feldman.estimates.selection import PairSelection
from feldman.results.estimation import write_estimates
from feldman.results.tables import read_table
from feldman.trials.integrity import find_damage, refuse_damage
from feldman.trials.rundir import run_paths
from feldman.trials.session import Progress
from feldman.trials.store import TrialStore

__all__ = ["estimate_run", "verify_run"]


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


def estimate_run(path: str, min_influence: float, min_memorization: float, as_json: bool) -> None:
    """Write the tables anew."""
    paths = run_paths(path)
    store = TrialStore.open(paths.store)
    with ProgressDisplay() as display:
        facts = write_estimates(
            paths,
            selection=PairSelection(min_influence=min_influence, min_memorization=min_memorization),
            tell=display,
        )
    num_pairs = read_table(paths.influence, paths.root)[0].num_rows
    if as_json:
        document = {"run": str(paths.root), "num_pairs": num_pairs, **facts.as_json()}
        print_json({**document, "memorization_path": str(paths.memorization), "influence_path": str(paths.influence)})
        return
    trials = f"{facts.num_trials:,} of {store.experiment.subsets.num_trials:,} trials"
    print(f"{paths.memorization}: {store.num_train:,} examples, from {trials}")
    print(
        f"{paths.influence}: {num_pairs:,} pairs (influence >= {min_influence:g}, memorization >= {min_memorization:g})"
    )
