"""`feldman plan`: how many trials a wanted precision needs, and their cost."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from feldman.cli.output import number, print_json, print_rows
from feldman.cli.progress import ProgressDisplay
from feldman.cli.study_output import OpenStudy, open_study
from feldman.errors import QueryError, command
from feldman.estimates.selection import PairSelection, chosen_pairs
from feldman.studies.planning import Cost, Need, cost_of, jaccard_needs, stderr_needs
from feldman.studies.stability import StabilityPlan, default_sizes, measure_stability
from feldman.trials.executor import usable_cores
from feldman.trials.session import Progress

__all__ = ["PlanOptions", "show_plan"]


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What `feldman plan` was asked for, as given."""

    target_stderr: float | None
    target_jaccard: float | None
    workers: int | None
    min_influence: float | None
    min_memorization: float | None
    seed: int


def show_plan(path: str, options: PlanOptions, as_json: bool) -> None:
    """Print how many trials the target needs, and what they cost."""
    if (options.target_stderr is None) == (options.target_jaccard is None):
        raise QueryError("a plan has one target: give --target-stderr or --target-jaccard")
    selection = chosen_pairs(min_influence=options.min_influence, min_memorization=options.min_memorization)
    with ProgressDisplay() as display:
        study = open_study(path, display)
        needs = _needs(study, selection, options, display)
    costs = [None if need.num_trials is None else _cost(study, need.num_trials, options.workers) for need in needs]
    if as_json:
        document = {"run": str(study.root), "num_trials": study.bits.num_trials, "selection": selection.in_words()}
        each = [
            need.as_json() | {"cost": None if cost is None else cost.as_json()}
            for need, cost in zip(needs, costs, strict=True)
        ]
        print_json({**document, "needs": each})
        return
    target = (
        f"standard error {options.target_stderr:g}"
        if options.target_stderr is not None
        else f"Jaccard similarity {options.target_jaccard:g}"
    )
    title = f"{study.root}: {study.bits.num_trials:,} trials; {target} ({selection.in_words()})"
    print_rows([_row(need, cost) for need, cost in zip(needs, costs, strict=True)], title, sys.stdout)
    _print_advice(study, needs, costs)


def _needs(study: OpenStudy, selection: PairSelection, options: PlanOptions, display: ProgressDisplay) -> list[Need]:
    if options.target_stderr is not None:
        ratio = study.store.experiment.subsets.subset_ratio
        return stderr_needs(study.bits, study.labels, selection, target=options.target_stderr, subset_ratio=ratio)
    plan = StabilityPlan(sizes=default_sizes(study.bits.num_trials), seed=options.seed, selection=selection)
    table = measure_stability(
        study.bits,
        study.labels,
        plan,
        lambda done, total: display(Progress(stage="comparing halves", done=done, total=total)),
    )
    return jaccard_needs(table, target=options.target_jaccard or 0.0)


def _cost(study: OpenStudy, num_trials: int, workers: int | None) -> Cost:
    store, execution = study.store, study.store.experiment.execution
    seconds = np.concatenate([store.read("train_seconds", block) for block in store.committed_blocks()])
    return cost_of(
        num_trials,
        num_trained=study.bits.num_trials,
        trial_seconds=float(seconds.astype(np.float64).mean()),
        block_size=store.experiment.subsets.block_size,
        per_block=(execution.cpus_per_block, execution.gpus_per_block),
        num_workers=workers or execution.num_workers or max(usable_cores() // execution.cpus_per_block, 1),
    )


def _row(need: Need, cost: Cost | None) -> dict[str, str]:
    high = "?" if need.high is None else f"{need.high:,}"
    between = "" if need.low is None else f" ({need.low:,} to {high})"
    return {
        "what": need.what,
        "now": number(need.now),
        "trials needed": "-" if need.num_trials is None else f"{need.num_trials:,}{between}",
        "how": need.how,
        "more": "-" if cost is None else f"{cost.num_more:,}",
        "core-hours": "-" if cost is None else f"{cost.core_hours:,.1f}",
        "GPU-hours": "-" if cost is None else f"{cost.gpu_hours:,.1f}",
        "hours": "-" if cost is None else f"{cost.wall_hours:,.1f}",
    }


def _print_advice(study: OpenStudy, needs: list[Need], costs: list[Cost | None]) -> None:
    asked = [(need, cost) for need, cost in zip(needs, costs, strict=True) if need.how != "bound"]
    for need, cost in asked:
        if cost is None:
            print(f"  {need.what}: this run is too short to tell; ask again when it has more trials")
    known = [cost for _, cost in asked if cost is not None]
    if not known:
        return
    largest = max(known, key=lambda cost: cost.num_trials)
    print(f"  {largest.trial_seconds:.3g} s a trial; hours are on {largest.num_workers:,} workers")
    if largest.num_more:
        print(f"  to train them: {command('resume', study.root, '--num-trials', largest.num_trials)}")
