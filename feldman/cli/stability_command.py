"""`feldman stability`: how far a run agrees with itself."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pyarrow as pa

from feldman.cli.output import Output, chosen_plot, number
from feldman.cli.progress import ProgressDisplay
from feldman.cli.study_output import open_study, show_study, trial_counts
from feldman.estimates.selection import chosen_pairs
from feldman.studies.stability import StabilityPlan, default_sizes, measure_stability, stability_summary
from feldman.trials.session import Progress

__all__ = ["StabilityOptions", "show_stability"]


@dataclass(frozen=True, kw_only=True)
class StabilityOptions:
    """What `feldman stability` was asked for, as typed."""

    sizes: str | None
    repeats: int
    seed: int
    min_influence: float | None
    min_memorization: float | None
    same_class: bool
    plot: str | None


def show_stability(path: str, options: StabilityOptions, output: Output) -> None:
    """Compare random halves of a run's trials; print or write what came out, and draw it."""
    plot = chosen_plot(options.plot)
    sizes = None if options.sizes is None else trial_counts(options.sizes)
    selection = chosen_pairs(
        min_influence=options.min_influence,
        min_memorization=options.min_memorization,
        same_class=options.same_class,
    )
    with ProgressDisplay() as display:
        study = open_study(path, display)
        plan = StabilityPlan(
            sizes=sizes or default_sizes(study.bits.num_trials),
            num_repeats=options.repeats,
            seed=options.seed,
            selection=selection,
        )
        table = measure_stability(
            study.bits,
            study.labels,
            plan,
            lambda done, total: display(Progress(stage="comparing halves", done=done, total=total)),
        )
    document = {
        "run": str(study.root),
        "num_trials": study.bits.num_trials,
        "min_influence": selection.min_influence,
        "min_memorization": selection.min_memorization,
        "same_class": selection.same_class,
        "seed": plan.seed,
    }
    title = (
        f"halves of {study.bits.num_trials:,} trials, {plan.num_repeats} random splits ({selection.in_words()}): mean "
        "Jaccard similarity J, average difference D, rank correlation ρ"
    )
    show_study(table, document, output, shown=_rows(table), title=title)
    if plot is not None:
        from feldman.report.stability_figure import stability_figure
        from feldman.report.style import save_figure

        save_figure(stability_figure(table), plot)
        print(f"{plot}: drawn", file=sys.stderr)


def _rows(table: pa.Table) -> list[dict[str, str]]:
    columns = {}
    for estimate, short in (("memorization", "mem"), ("influence", "infl")):
        for name, symbol in (("jaccard", "J"), ("mean_difference", "D"), ("spearman", "ρ")):
            columns[f"{symbol} {short}"] = stability_summary(table, estimate, "halves", name)
        columns[f"by chance: J {short}"] = stability_summary(table, estimate, "chance", "jaccard")
    columns["pairs"] = stability_summary(table, "influence", "halves", "num_first")
    return [
        {"trials each": f"{size:,}"}
        | {
            name: f"{values[place][1]:,.0f}" if name == "pairs" else number(values[place][1])
            for name, values in columns.items()
        }
        for place, (size, _, _) in enumerate(columns["pairs"])
    ]
