"""The figure of `feldman compare`: consistency of several runs with the first, as figure 7 of the paper has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feldman.report.style import COLOURS, add_legend, new_figure
from feldman.studies.comparison import RunSummary

__all__ = ["comparison_figure"]

_FIGURES = (("mean_difference", "average difference D"), ("jaccard", "Jaccard similarity J"))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""As many as colours share no factor with, so that 28 runs look different, in grey too."""

_WIDTH_INCHES, _LINE_INCHES = 7.2, 0.17
_THIN = 0.9
_RUN: Any = {"linewidth": 1.4, "markersize": 4}
_HALVES: Any = {"linestyle": (0, (4, 2)), "linewidth": _THIN}
_CHANCE: Any = {"linestyle": (0, (1, 1.5)), "linewidth": _THIN}


def comparison_figure(table: pa.Table, summaries: Sequence[RunSummary]) -> Figure:
    """Draw D and J of memorization (above) and influence (below) against the threshold, a line with its band for each run.

    Dashed lines are halves of one run, black for the reference; dotted lines are chance. The legend has each run's number of
    high-influence pairs and its mean test accuracy.

    Parameters
    ----------
    table
        As `feldman.studies.comparison.measure_comparison` returns it.
    summaries
        Of its runs, in their order.
    """
    estimates = ("memorization", "influence")
    figure, axes = new_figure(
        [f"{title}, {estimate}" for estimate in estimates for _, title in _FIGURES], len(_FIGURES)
    )
    rows = table.to_pylist()
    first, others = summaries[0], summaries[1:]
    panels = [(estimate, figure_name) for estimate in estimates for figure_name, _ in _FIGURES]
    for panel, (estimate, name) in zip(axes, panels, strict=True):
        seen: list[float] = []
        for place, other in enumerate(others):
            colour, marker = COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)]
            found, chance, halves = (
                _series(rows, name, estimate, compared, (one, other.run))
                for compared, one in (("runs", first.run), ("chance", first.run), ("halves", other.run))
            )
            panel.fill_between(found["threshold"], found["low"], found["high"], color=colour, alpha=0.2, linewidth=0)
            panel.plot(
                found["threshold"], found["value"], color=colour, marker=marker, label=_legend(other, summaries), **_RUN
            )
            panel.plot(halves["threshold"], halves["value"], color=colour, **_HALVES)
            seen += [*found["value"], *halves["value"]]
            panel.plot(chance["threshold"], chance["value"], color=colour, **_CHANCE)
        own = _series(rows, name, estimate, "halves", (first.run, first.run))
        label = f"reference: {_legend(first, summaries)}, its halves"
        panel.plot(own["threshold"], own["value"], color="black", label=label, **_HALVES)
        _finish(panel, name, estimate, seen)
    trials = sorted({f"{summary.num_trials // 2:,}" for summary in summaries})
    axes[0].plot([], [], color="grey", label=f"halves of a run ({' or '.join(trials)} trials a side)", **_HALVES)
    axes[0].plot([], [], color="grey", label="by chance", **_CHANCE)
    figure.set_size_inches(_WIDTH_INCHES, figure.get_figheight() + _LINE_INCHES * (len(others) + 3))
    add_legend(figure, num_columns=1)
    return figure


def _series(
    rows: list[dict[str, Any]], name: str, estimate: str, compared: str, runs: tuple[str, str]
) -> dict[str, list[float]]:
    mine = [
        row
        for row in rows
        if (row["estimate"], row["compared"], row["first"], row["second"]) == (estimate, compared, *runs)
    ]
    columns = {"threshold": "threshold", "value": name, "low": f"{name}_low", "high": f"{name}_high"}
    return {short: [row[column] for row in mine] for short, column in columns.items()}


def _finish(panel: Axes, name: str, estimate: str, seen: list[float]) -> None:
    """Set the axes. Chance, whose D is many times that of the runs, may lie beyond: it must not flatten them."""
    panel.set_xlabel(f"threshold of {estimate}")
    highest = max((value for value in seen if not math.isnan(value)), default=0.0)
    panel.set_ylim(0, 1.03 if name == "jaccard" else 2 * highest or 1.0)


def _legend(summary: RunSummary, summaries: Sequence[RunSummary]) -> str:
    alike = [other for other in summaries if other.learner == summary.learner]
    name = summary.learner if len(alike) == 1 else f"{summary.learner}, {summary.run}"
    return f"{name} ({summary.num_pairs:,} pairs, {100 * summary.mean_test_accuracy:.1f}%)"
