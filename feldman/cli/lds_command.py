"""`feldman lds`: how well influence adds up to predictions."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import cast

from feldman.cli.output import Output, chosen_plot, number
from feldman.cli.progress import ProgressDisplay
from feldman.cli.study_output import open_study, show_study, trial_counts
from feldman.studies.lds import Estimator, LdsPlan, default_train_sizes, measure_lds
from feldman.trials.session import Progress

__all__ = ["LdsOptions", "show_lds"]


@dataclass(frozen=True, kw_only=True)
class LdsOptions:
    """What `feldman lds` was asked for, as typed."""

    sizes: str | None
    held_out: int | None
    num_tests: int
    estimators: str
    seed: int
    plot: str | None


def show_lds(path: str, options: LdsOptions, output: Output) -> None:
    """Predict held-out trials; print or write the scores, and draw them."""
    plot = chosen_plot(options.plot)
    sizes = None if options.sizes is None else trial_counts(options.sizes)
    with ProgressDisplay() as display:
        study = open_study(path, display)
        num_held_out = options.held_out or max(study.bits.num_trials // 5, 1)
        plan = LdsPlan(
            sizes=sizes or default_train_sizes(study.bits.num_trials - num_held_out),
            num_held_out=num_held_out,
            num_test=options.num_tests,
            estimators=cast("tuple[Estimator, ...]", tuple(options.estimators.split(","))),  # looked at by the plan
            seed=options.seed,
        )
        table = measure_lds(
            study.bits,
            plan,
            lambda done, total: display(Progress(stage="fitting datamodels", done=done, total=total)),
        )
    shown = [
        {
            "trials": f"{row['num_trials']:,}",
            "estimator": row["estimator"],
            "LDS": number(row["lds"]),
            "± error": number(row["stderr"]),
            "by chance": number(row["lds_chance"]),
            "test examples": f"{row['num_test']:,}",
        }
        for row in table.to_pylist()
    ]
    title = f"linear datamodeling score on {num_held_out:,} held-out trials of {study.bits.num_trials:,}"
    document = {"run": str(study.root), "num_trials": study.bits.num_trials, "num_held_out": num_held_out}
    show_study(table, {**document, "seed": plan.seed}, output, shown=shown, title=title)
    if plot is not None:
        from feldman.report.lds_figure import lds_figure
        from feldman.report.style import save_figure

        save_figure(lds_figure(table), plot)
        print(f"{plot}: drawn", file=sys.stderr)
