"""`feldman removal`: train without the memorized examples, and say what it costs."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from feldman.cli.job_commands import read_runtime_env
from feldman.cli.output import Output, chosen_plot
from feldman.cli.progress import ProgressDisplay
from feldman.cli.study_output import numbers, show_study
from feldman.errors import QueryError, command
from feldman.importing import see_current_folder
from feldman.removal_job import RemovalResult, removal, removal_result
from feldman.studies.removal import DEFAULT_THRESHOLDS, RemovalPlan
from feldman.trials.rundir import run_paths
from feldman.trials.store import TrialStore

__all__ = ["RemovalOptions", "show_removal"]


@dataclass(frozen=True, kw_only=True)
class RemovalOptions:
    """What `feldman removal` was asked for, as typed."""

    thresholds: str | None
    repeats: int | None
    by_class: bool
    by_influence: bool
    study: str | None
    overrides: tuple[str, ...]
    address: str | None
    runtime_env: str | None
    speculate: bool
    plot: str | None

    @property
    def trains(self) -> tuple[str, ...]:
        """The options that say what is trained, and how, as typed."""
        given = {
            "--thresholds": self.thresholds,
            "--repeats": self.repeats,
            "--by-class": self.by_class,
            "--by-influence": self.by_influence,
            "--study": self.study,
            "--set": self.overrides,
            "--address": self.address,
            "--runtime-env": self.runtime_env,
            "--speculate": self.speculate,
        }
        return tuple(name for name, value in given.items() if value)


def show_removal(path: str, options: RemovalOptions, output: Output) -> None:
    """Train the study of a run, or take one that there is; print or write what came out, and draw it."""
    plot = chosen_plot(options.plot)
    result = _existing(path, options)
    if result is None:
        result = _trained(path, options)
    document = {name: value for name, value in result.as_json().items() if name != "rows"}
    show_study(result.table, document, output, shown=_rows(result.table), title=_title(result))
    if not result.status.complete and result.status.writer is None:
        print(f"not finished; go on with: {command('resume', result.status.run)}", file=sys.stderr)
    if plot is not None:
        from feldman.report.removal_figure import removal_figure
        from feldman.report.style import save_figure

        save_figure(removal_figure(result.table), plot)
        print(f"{plot}: drawn", file=sys.stderr)


def _existing(path: str, options: RemovalOptions) -> RemovalResult | None:
    """Return what came out of a study, where ``path`` is one."""
    if TrialStore.open(run_paths(path).store).experiment.subsets.design is None:
        return None
    if options.trains:
        raise QueryError(
            f"'{path}' is a removal study, of which this shows the results: leave out {', '.join(options.trains)}, or name the "
            f"run that it is about; `{command('resume', path)}` goes on with it"
        )
    return removal_result(path)


def _trained(path: str, options: RemovalOptions) -> RemovalResult:
    see_current_folder()
    plan = RemovalPlan(
        thresholds=DEFAULT_THRESHOLDS if options.thresholds is None else numbers(options.thresholds, "--thresholds"),
        repeats=20 if options.repeats is None else options.repeats,
        by_class=options.by_class,
        by_influence=options.by_influence,
    )
    runtime_env = read_runtime_env(options.runtime_env)
    with ProgressDisplay() as display, contextlib.redirect_stdout(sys.stderr):
        return removal(
            path,
            options.study or f"{path.rstrip('/')}-removal",
            plan,
            overrides=options.overrides,
            address=options.address,
            runtime_env=runtime_env,
            speculate=options.speculate,
            on_progress=display,
        )


def _title(result: RemovalResult) -> str:
    status = result.status
    return (
        f"{status.run}: {status.dataset}, {status.learner}, {status.num_committed_trials:,} of {status.num_trials:,} trials; "
        "test accuracy in % (standard deviation), and what the removal costs beyond as many random examples (95% interval)"
    )


def _rows(table: pa.Table) -> list[dict[str, str]]:
    by_class = any(repeats for repeats in table["class_repeats"].to_pylist())
    others = {"random": "random"} | ({"class": "by class"} if by_class else {})
    shown = []
    for row in table.to_pylist():
        columns = {
            "removed": row["removed"],
            "memorization >=": "-" if row["threshold"] is None else f"{row['threshold']:g}",
            "examples": f"{row['num_removed']:,}",
            "left": f"{100 * row['share_kept']:.1f}%",
            "repeats": str(row["removal_repeats"]),
            "accuracy": _accuracy(row, "removal"),
        }
        for series, name in others.items():
            columns[name] = _accuracy(row, series)
            columns[f"cost to {name}"] = _cost(row, series)
        shown.append(columns)
    return shown


def _accuracy(row: dict[str, Any], series: str) -> str:
    mean, deviation = row[f"{series}_accuracy"], row[f"{series}_std"]
    if mean is None:
        return "-"
    return f"{100 * mean:.2f}" if deviation is None else f"{100 * mean:.2f} ({100 * deviation:.2f})"


def _cost(row: dict[str, Any], series: str) -> str:
    cost, low, high = (row[f"{name}_{series}"] for name in ("less_than", "ci_low", "ci_high"))
    if cost is None:
        return "-"
    return f"{100 * cost:.2f}" if low is None else f"{100 * cost:.2f} ({100 * low:.2f} to {100 * high:.2f})"
