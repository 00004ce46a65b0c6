"""`feldman estimate`: the command that turns bits into tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from feldman.cli.output import print_json
from feldman.cli.progress import ProgressDisplay
from feldman.estimates.counting import Counting
from feldman.estimates.selection import Targets, chosen_pairs
from feldman.results.all_pairs import Extras
from feldman.results.estimation import write_estimates
from feldman.results.matrix import MatrixPrecision
from feldman.trials.rundir import run_paths
from feldman.trials.store import TrialStore

__all__ = ["EstimateOptions", "estimate_run"]


@dataclass(frozen=True, kw_only=True)
class EstimateOptions:
    """What `feldman estimate` was asked for, as given."""

    min_influence: float | None = None
    min_memorization: float | None = None
    top_per_target: int | None = None
    top_per_train: int | None = None
    same_class: bool = False
    targets: str = "test"
    matrix: str | None = None
    keep_counts: bool = False
    address: str | None = None
    device: str = "cpu"


def estimate_run(path: str, options: EstimateOptions, as_json: bool) -> None:
    """Write the tables anew."""
    paths = run_paths(path)
    selection = chosen_pairs(
        min_influence=options.min_influence,
        min_memorization=options.min_memorization,
        top_per_target=options.top_per_target,
        top_per_train=options.top_per_train,
        same_class=options.same_class,
        targets=cast("Targets", options.targets),  # looked at when the selection is made
    )
    extras = Extras(matrix=cast("MatrixPrecision | None", options.matrix), keep_counts=options.keep_counts)
    counting = Counting(address=options.address, device=options.device)
    store = TrialStore.open(paths.store)
    with ProgressDisplay() as display:
        made = write_estimates(paths, selection=selection, counting=counting, extras=extras, tell=display)
    pairs_path = paths.influence if selection.targets == "test" else paths.influence_on_train
    others = {
        name: written
        for name, written, asked in (
            ("matrix", paths.matrix, extras.matrix),
            ("counts", paths.counts, extras.keep_counts),
        )
        if asked
    }
    if as_json:
        written = {"memorization_path": str(paths.memorization), "influence_path": str(pairs_path)}
        written |= {f"{name}_path": str(other) for name, other in others.items()}
        print_json({"run": str(paths.root), "num_pairs": made.num_pairs, **made.facts.as_json(), **written})
        return
    trials = f"{made.facts.num_trials:,} of {store.experiment.subsets.num_trials:,} trials"
    print(f"{paths.memorization}: {store.num_train:,} examples, from {trials}")
    print(
        f"{pairs_path}: {made.num_pairs:,} pairs ({selection.in_words()}) of {made.facts.num_pairs_tested or 0:,} looked at"
    )
    for other in others.values():
        print(f"{other}: {store.num_train:,} x {store.num_test:,}")
