"""`feldman compare RUN RUN...`: how far runs of several learners agree."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from feldman.cli.output import Output, chosen_plot, number
from feldman.cli.progress import ProgressDisplay
from feldman.cli.study_output import OpenStudy, open_study, show_study
from feldman.errors import QueryError, listed
from feldman.estimates.selection import DEFAULT_MIN_MEMORIZATION
from feldman.exchange.same_examples import check_same_data
from feldman.learner_sections import learner_in_words
from feldman.studies.comparison import (
    INFLUENCE_THRESHOLDS,
    MEMORIZATION_THRESHOLDS,
    ComparisonPlan,
    RunSummary,
    measure_comparison,
    summarize_run,
)
from feldman.studies.resampling import shared_subsets
from feldman.trials.rundir import run_paths
from feldman.trials.session import Progress
from feldman.trials.store import TrialStore

__all__ = ["CompareOptions", "check_one_run", "show_comparison"]

_SHOWN = {"memorization": (0.1, 0.25, 0.5, 0.75), "influence": (0.15, 0.25, 0.4)}
"""Thresholds that people are shown; the nearest of those that are measured."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What `feldman compare` was asked for, as typed; None is the default."""

    memorization_thresholds: str | None
    influence_thresholds: str | None
    min_memorization: float | None
    bootstrap: int | None
    repeats: int | None
    seed: int | None
    plot: str | None


def check_one_run(runs: list[str], options: Mapping[str, Any]) -> None:
    """Refuse what says nothing beside ``--with``, which compares one run with a file.

    Raises
    ------
    QueryError
        If there are more runs, or options of a comparison of runs.
    """
    if len(runs) != 1:
        raise QueryError(f"--with compares one run with a file; found {len(runs)} runs: {listed(runs)}")
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise QueryError(
            f"{listed(given)}: of runs that are compared with each other; leave it out, or leave out --with"
        )


def show_comparison(paths: list[str], options: CompareOptions, output: Output) -> None:
    """Compare all runs with the first; print or write what came out, and draw it."""
    plot = chosen_plot(options.plot)
    plan = _plan(options)
    if len(paths) < 2:
        raise QueryError(f"two runs or more are compared, or one with a file (--with FILE); found '{paths[0]}' alone")
    _check_different(paths)
    stores = [TrialStore.open(run_paths(path).store) for path in paths]
    for other in stores[1:]:
        check_same_data(stores[0], other)
    with ProgressDisplay() as display:
        studies = [open_study(path, display) for path in paths]
        summaries = [
            summarize_run(
                str(study.root),
                _learner(study),
                study.store.experiment.subsets.subset_ratio,
                study.bits,
                plan.min_memorization,
            )
            for study in studies
        ]
        table = measure_comparison(
            [(str(study.root), study.bits) for study in studies],
            plan,
            lambda done, total: display(Progress(stage="comparing runs", done=done, total=total)),
        )
    shared = [int(shared_subsets(studies[0].bits, study.bits).sum()) for study in studies[1:]]
    document = {
        "runs": [summary.as_json() for summary in summaries],
        "num_shared_subsets": shared,
        "min_memorization": plan.min_memorization,
        "num_resamples": plan.num_resamples,
        "num_repeats": plan.num_repeats,
        "seed": plan.seed,
    }
    views = [
        (_consistency_rows(table, summaries[0], other), _title(summaries[0], other, num_shared))
        for other, num_shared in zip(summaries[1:], shared, strict=True)
    ]
    views.insert(0, ([_summary_row(summary) for summary in summaries], _data(studies[0])))
    show_study(table, document, output, shown=views[-1][0], title=views[-1][1], before=views[:-1])
    if plot is not None:
        from feldman.report.comparison_figure import comparison_figure
        from feldman.report.style import save_figure

        save_figure(comparison_figure(table, summaries), plot)
        print(f"{plot}: drawn", file=sys.stderr)


def _check_different(paths: list[str]) -> None:
    roots = [str(root.resolve() if isinstance(root, Path) else root) for root in (run_paths(p).root for p in paths)]
    again = next((path for place, path in enumerate(paths) if roots[place] in roots[:place]), None)
    if again is not None:
        raise QueryError(f"every run is named once; found '{again}' again, which agrees with itself")


def _plan(options: CompareOptions) -> ComparisonPlan:
    return ComparisonPlan(
        memorization=_grid(options.memorization_thresholds, MEMORIZATION_THRESHOLDS, "--memorization-thresholds"),
        influence=_grid(options.influence_thresholds, INFLUENCE_THRESHOLDS, "--influence-thresholds"),
        min_memorization=DEFAULT_MIN_MEMORIZATION if options.min_memorization is None else options.min_memorization,
        num_resamples=100 if options.bootstrap is None else options.bootstrap,
        num_repeats=options.repeats or 5,
        seed=options.seed or 0,
    )


def _grid(text: str | None, default: tuple[float, ...], option: str) -> tuple[float, ...]:
    if text is None:
        return default
    try:
        return tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        raise QueryError(f"{option} lists numbers, as in 0.1,0.25,0.5; found '{text}'") from None


def _learner(study: OpenStudy) -> str:
    data = study.store.attributes["dataset"]
    on_features = f" on {data['name']}" if data.get("source") else ""
    return learner_in_words(study.store.experiment.learner) + on_features


def _data(study: OpenStudy) -> str:
    data = study.store.attributes["dataset"]
    name = (data.get("source") or data)["name"]
    sizes = f"{study.store.num_train:,} training and {study.store.num_test:,} test examples"
    return f"runs on '{name}', {sizes}; the first is the reference"


def _summary_row(summary: RunSummary) -> dict[str, str]:
    return {
        "run": summary.run,
        "learner": summary.learner,
        "trials": f"{summary.num_trials:,}",
        "subset ratio": f"{summary.subset_ratio:g}",
        f"memorized >= {summary.min_memorization:g}": f"{summary.num_memorized:,}",
        f"pairs >= {summary.min_influence:g}": f"{summary.num_pairs:,}",
        "test accuracy": f"{100 * summary.mean_test_accuracy:.2f}%",
        "± deviation": f"{100 * summary.std_test_accuracy:.2f}%",
    }


def _title(first: RunSummary, other: RunSummary, num_shared: int) -> str:
    title = f"{other.run}, {other.num_trials:,} trials, against {first.run}, {first.num_trials:,}"
    title += f"; halves have {other.num_trials // 2:,} and {first.num_trials // 2:,} a side, and agree less for it"
    return f"{title}; on the same subsets: {num_shared:,}" if num_shared else title


def _consistency_rows(table: pa.Table, first: RunSummary, other: RunSummary) -> list[dict[str, str]]:
    found = {
        (row["first"], row["second"], row["compared"], row["estimate"], row["threshold"]): row
        for row in table.to_pylist()
    }
    rows = []
    for estimate, wanted in _SHOWN.items():
        grid = np.array(sorted({key[4] for key in found if key[3] == estimate}))
        for threshold in sorted({float(grid[np.abs(grid - value).argmin()]) for value in wanted}):
            runs, chance = (
                found[first.run, other.run, compared, estimate, threshold] for compared in ("runs", "chance")
            )
            halves = [found[run.run, run.run, "halves", estimate, threshold] for run in (other, first)]
            rows.append(
                {
                    "": estimate,
                    "at least": f"{threshold:g}",
                    "J": number(runs["jaccard"]),
                    "95% band of J": _band(runs, "jaccard"),
                    "its halves": number(halves[0]["jaccard"]),
                    "the reference's": number(halves[1]["jaccard"]),
                    "by chance": number(chance["jaccard"]),
                    "D": number(runs["mean_difference"]),
                    "95% band of D": _band(runs, "mean_difference"),
                    "it selects": f"{runs['num_second']:,.0f}",
                    "the reference": f"{runs['num_first']:,.0f}",
                    "both": f"{runs['num_both']:,.0f}",
                }
            )
    return rows


def _band(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "-" if np.isnan(low) else f"{number(low)} to {number(high)}"
