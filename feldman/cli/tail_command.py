"""`feldman tail`: how many examples are memorized, what they carry, and which test examples rest on one of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from feldman.cli.output import Output, chosen_plot, class_name, print_rows
from feldman.cli.progress import ProgressDisplay
from feldman.cli.study_output import open_study, show_study
from feldman.errors import QueryError
from feldman.estimates.selection import chosen_pairs
from feldman.results.queries import PairQuery, top_pairs
from feldman.results.sandbox import TableView
from feldman.results.tables import TableFacts, influence_schema, read_facts, read_table
from feldman.studies.carried import CarriedAccuracy
from feldman.studies.marginal_utility import MarginalUtility, PairGroup
from feldman.studies.tail import MemorizationTail, TailPlan
from feldman.studies.tail_report import TailReport, tail_of_tables, tail_of_trials, tail_table
from feldman.trials.rundir import RunPaths, run_paths
from feldman.trials.session import Progress

__all__ = ["TailOptions", "show_tail"]

_SHOWN = (0.1, 0.25, 0.5, 0.75, 0.9)
_MANY_PAIRS = 5
Section = tuple[list[dict[str, str]], str]


@dataclass(frozen=True, kw_only=True)
class TailOptions:
    """What `feldman tail` was asked for; ``top`` is how many classes are shown, None for all."""

    bins: int
    resamples: int
    seed: int
    min_influence: float | None
    min_memorization: float | None
    same_class: bool
    top: int | None
    plot: str | None


def show_tail(path: str, options: TailOptions, output: Output) -> None:
    """Print or write what is in the tail of a run, or of imported tables, and draw it."""
    plot = chosen_plot(options.plot)
    plan = TailPlan(num_bins=options.bins, num_resamples=options.resamples, seed=options.seed)
    paths = run_paths(path)
    of_tables = not paths.has_store and paths.influence.exists()
    report, facts = _of_tables(paths, plan, options) if of_tables else _of_trials(path, plan, options)
    sections = _sections(report, facts, options.top)
    if output.format == "table" or output.file is not None:
        for rows, title in sections[:-1]:
            print_rows(rows, title, sys.stdout)
            print()
    document = {
        "run": str(paths.root),
        "num_trials": facts.num_trials,
        "num_train": facts.num_train,
        "num_test": facts.num_test,
        "min_influence": report.selection.min_influence,
        "min_memorization": report.selection.min_memorization,
        "same_class": report.selection.same_class,
        "bins": options.bins,
        "resamples": None if of_tables else options.resamples,
        "seed": None if of_tables else options.seed,
        "pairs": report.pairs.as_json(),
        "not_known": list(report.not_known),
    }
    show_study(tail_table(report), document, output, shown=sections[-1][0], title=sections[-1][1])
    if output.format == "table" or output.file is not None:
        for text in report.not_known:
            print(f"not known: {text}")
    if plot is not None:
        from feldman.report.style import save_figure
        from feldman.report.tail_figure import tail_figure

        save_figure(tail_figure(report, facts.class_names), plot)
        print(f"{plot}: drawn", file=sys.stderr)


def _of_trials(path: str, plan: TailPlan, options: TailOptions) -> tuple[TailReport, TableFacts]:
    selection = chosen_pairs(
        min_influence=options.min_influence,
        min_memorization=options.min_memorization,
        same_class=options.same_class,
    )
    done: dict[str, int] = {}
    with ProgressDisplay() as display:
        study = open_study(path, display)

        def tell(stage: str, count: int) -> None:
            done[stage] = done.get(stage, 0) + count
            display(Progress(stage=stage, done=done[stage], total=study.store.num_train))

        report = tail_of_trials(study.bits, study.labels, plan, selection, tell)
    facts = TableFacts(
        num_trials=study.bits.num_trials,
        num_train=study.store.num_train,
        num_test=study.store.num_test,
        class_names=tuple(study.store.attributes["dataset"]["class_names"]),
    )
    return report, facts


def _of_tables(paths: RunPaths, plan: TailPlan, options: TailOptions) -> tuple[TailReport, TableFacts]:
    facts = read_facts(paths.influence, paths.root)
    selection = chosen_pairs(
        min_influence=facts.selection.min_influence if options.min_influence is None else options.min_influence,
        min_memorization=(
            facts.selection.min_memorization if options.min_memorization is None else options.min_memorization
        ),
        same_class=options.same_class or facts.selection.same_class,
        top_per_target=facts.selection.top_per_target,
        top_per_train=facts.selection.top_per_train,
    )
    query = PairQuery(
        min_influence=selection.min_influence,
        min_memorization=selection.min_memorization,
        same_class=options.same_class,
    )
    with TableView(paths.influence, "pairs") as view:
        batches = list(view.batches(top_pairs(view, facts, query)))
        every = list(view.batches(view.rows.limit(1)))
    if options.same_class and every and every[0].column("train_label").null_count:
        raise QueryError(
            f"which pairs are of one class is not known: {facts.source} has no labels; import it with --labels, or leave out "
            "--same-class"
        )
    pairs = pa.Table.from_batches(batches) if batches else influence_schema().empty_table()
    memorized, _ = read_table(paths.memorization, paths.root)
    return tail_of_tables(memorized, pairs, selection, facts, plan), facts


def _sections(report: TailReport, facts: TableFacts, top: int | None) -> list[Section]:
    """Return the tables for people with their titles; that of pairs is the last one."""
    sections: list[Section] = []
    tail, pairs = report.memorization, report.pairs
    if tail is not None:
        at = {*_SHOWN, report.selection.min_memorization}
        shown = [place for place, value in enumerate(tail.thresholds.tolist()) if value in at]
        made_from = facts.source if facts.num_trials is None else f"{facts.num_trials:,} trials"
        sections.append((_histogram_rows(tail), f"memorization, {made_from}"))
        title = "memorized by the estimates, and truly; the test accuracy that they carry"
        sections.append((_threshold_rows(tail, report.carried, shown), title))
        if len(tail.labels) > 1:
            by = tail.thresholds.tolist().index(report.selection.min_memorization)
            sections.append((_class_rows(tail, facts.class_names, (shown, by), top), _class_title(tail, by, top)))
    sections.append((_by_pairs_rows(pairs), "examples by their pairs"))
    title = f"pairs ({report.selection.in_words()})"
    if pairs.num_memorized is not None:
        title += f"; of {pairs.num_memorized:,} memorized examples {pairs.num_without_pair:,} have none"
    sections.append(([_group_row(group) for group in pairs.groups], title))
    return sections


def _histogram_rows(tail: MemorizationTail) -> list[dict[str, str]]:
    counts = tail.histogram
    rows = [
        (f"{low:.3g} to {high:.3g}", counts.count[0, place], _rounded(counts.stderr[0, place]))
        for place, (low, high) in enumerate(pairwise(tail.bin_edges.tolist()))
    ]
    rows = [("below 0", tail.num_negative[0], "-"), *rows, ("undefined", tail.num_undefined[0], "-")]
    return [{"memorization": name, "examples": f"{count:,}", "± error": error} for name, count, error in rows]


def _threshold_rows(
    tail: MemorizationTail, carried: tuple[CarriedAccuracy, ...], shown: list[int]
) -> list[dict[str, str]]:
    rows = []
    for place in shown:
        row = {
            "memorization": f">= {tail.thresholds[place]:g}",
            "examples": f"{tail.reaching.count[0, place]:,}",
            "in such runs": _interval(tail.reaching.ci_low[0, place], tail.reaching.ci_high[0, place]),
            "truly": _rounded(tail.true.count[place]),
            "95% interval": _interval(tail.true.ci_low[place], tail.true.ci_high[place]),
        }
        if carried:
            row["beyond others"] = _percent(carried[place].carried, carried[place].stderr)
            row["beyond random"] = _percent(carried[place].below_random, carried[place].below_random_stderr)
        rows.append(row)
    return rows


def _class_title(tail: MemorizationTail, by: int, top: int | None) -> str:
    num = len(tail.labels)
    return f"{min(num, top or num):,} of {num:,} classes, most memorized (>= {tail.thresholds[by]:g}) first"


def _class_rows(
    tail: MemorizationTail, names: tuple[str, ...], thresholds: tuple[list[int], int], top: int | None
) -> list[dict[str, str]]:
    """Return the classes with the largest shares of memorized examples. ``thresholds``: those shown, and the one to sort by."""
    shown, by = thresholds
    share = tail.reaching.count[1:, by] / tail.num_examples[1:]
    rows = []
    for place in np.argsort(-share, kind="stable")[:top].tolist():
        row = {"class": class_name(tail.labels[place], names), "examples": f"{tail.num_examples[1 + place]:,}"}
        for threshold in shown:
            count, error = (part[1 + place, threshold] for part in (tail.reaching.count, tail.reaching.stderr))
            row[f">= {tail.thresholds[threshold]:g}"] = f"{count:,}" + ("" if np.isnan(error) else f" ± {error:.1f}")
        rows.append(row)
    return rows


def _by_pairs_rows(pairs: MarginalUtility) -> list[dict[str, str]]:
    parts = {"training examples": pairs.train_examples_by_pairs, "test examples": pairs.test_examples_by_pairs}
    rows = []
    for num_pairs in range(1, _MANY_PAIRS + 1):
        most = float("inf") if num_pairs == _MANY_PAIRS else num_pairs
        counts = {
            name: f"{sum(count for k, count in counted if num_pairs <= k <= most):,}" for name, counted in parts.items()
        }
        rows.append({"in so many": f"{num_pairs}{' or more' if num_pairs < most else ''}"} | counts)
    return rows


def _group_row(group: PairGroup) -> dict[str, str]:
    return {
        "which": group.which,
        "pairs": f"{group.num_pairs:,}",
        "training examples": f"{group.num_train:,}",
        "test examples": f"{group.num_test:,}",
        "in exactly one pair": f"{group.num_test_in_one:,}",
        "share of the test set": "-" if group.share_decided is None else f"{100 * group.share_decided:.2f}%",
        "most of a test example": f"{group.most_of_a_test:,}",
        "of a training example": f"{group.most_of_a_train:,}",
    }


def _rounded(value: Any) -> str:
    return "-" if np.isnan(value) else f"{value:,.1f}"


def _interval(low: Any, high: Any) -> str:
    return "-" if np.isnan(low) else f"{low:,.0f} to {high:,.0f}"


def _percent(value: float, error: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}% ± {100 * error:.2f}%"
