"""The figure of `feldman tail`: memorization, counts above thresholds, classes, carried accuracy, pairs of an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from feldman.report.style import COLOURS, new_figure
from feldman.studies.carried import CarriedAccuracy
from feldman.studies.tail import MemorizationTail
from feldman.studies.tail_report import TailReport

__all__ = ["tail_figure"]

_MOST_NAMED_CLASSES = 20
_CLASS_THRESHOLDS = (0.25, 0.5, 0.9)
_MARKERS = ("o", "s", "^")
_COLUMNS = 3
_MOST_LINEAR = 10
_WIDE = 200
"""From this ratio on, an axis of counts has ticks at powers of ten alone."""
_LEGEND: Any = {"frameon": False, "fontsize": 8}


def tail_figure(report: TailReport, class_names: tuple[str, ...] = ()) -> Figure:
    """Draw what a report knows: a panel for each, intervals of 95% wherever there are any.

    Parameters
    ----------
    report
        As `feldman.studies.tail_report.tail_of_trials` returns it.
    class_names
        By label; empty where not known.
    """
    panels: list[tuple[str, Callable[[Axes], None]]] = []
    tail = report.memorization
    if tail is not None:
        panels.append(("training examples by memorization", lambda axes: _draw_histogram(axes, tail)))
        panels.append(("examples that reach a threshold", lambda axes: _draw_reaching(axes, tail)))
        if len(tail.labels) > 1:
            title = "share of a class that reaches"
            panels.append((title, lambda axes: _draw_classes(axes, tail, class_names)))
    if any(np.isfinite(row.carried) for row in report.carried):
        panels.append(("test accuracy that they carry", lambda axes: _draw_carried(axes, report.carried)))
    panels.append(("examples by their pairs", lambda axes: _draw_pairs(axes, report)))
    figure, drawn = new_figure([title for title, _ in panels], min(_COLUMNS, len(panels)))
    for axes, (_, draw) in zip(drawn, panels, strict=True):
        draw(axes)
    return figure


def _draw_histogram(axes: Axes, tail: MemorizationTail) -> None:
    counts, edges = tail.histogram, tail.bin_edges
    centres = (edges[:-1] + edges[1:]) / 2
    axes.stairs(counts.count[0], edges, baseline=0.5, fill=True, color=COLOURS[0], alpha=0.35)
    axes.stairs(counts.count[0], edges, baseline=0.5, color=COLOURS[0])
    if np.isfinite(counts.stderr[0]).all():
        reach = counts.count[0] - counts.ci_low[0], counts.ci_high[0] - counts.count[0]
        axes.errorbar(centres, counts.count[0], reach, fmt="none", ecolor="black", elinewidth=0.9, capsize=1.5)
    _log_counts(axes, counts.count[0])
    axes.set_xlabel("memorization")


def _draw_reaching(axes: Axes, tail: MemorizationTail) -> None:
    at, counts, true = tail.thresholds, tail.reaching, tail.true
    axes.plot(at, counts.count[0], color=COLOURS[0], label="by the estimates")
    if np.isfinite(counts.stderr[0]).all():
        axes.fill_between(at, counts.ci_low[0], counts.ci_high[0], color=COLOURS[0], alpha=0.3, linewidth=0)
    if np.isfinite(true.count).any():
        reach = true.count - true.ci_low, true.ci_high - true.count
        axes.errorbar(
            at, true.count, reach, fmt="o", markersize=3, capsize=1.5, elinewidth=0.9, color=COLOURS[1], label="truly"
        )
    _log_counts(axes, counts.count[0])
    axes.set_xlabel("threshold of memorization")
    axes.legend(**_LEGEND)


def _draw_classes(axes: Axes, tail: MemorizationTail, class_names: tuple[str, ...]) -> None:
    shown = [place for place, value in enumerate(tail.thresholds.tolist()) if value in _CLASS_THRESHOLDS] or [0]
    size = tail.num_examples[1:]
    order = np.argsort(-tail.reaching.count[1:, shown[0]] / size, kind="stable")
    place = np.arange(len(order))
    for threshold, colour, marker in zip(shown, COLOURS, _MARKERS, strict=False):
        count, low, high = (
            part[1:, threshold][order] / size[order]
            for part in (tail.reaching.count, tail.reaching.ci_low, tail.reaching.ci_high)
        )
        reach = np.nan_to_num([count - low, high - count])
        axes.errorbar(
            place,
            count,
            reach,
            fmt=marker,
            markersize=2.5,
            elinewidth=0.8,
            color=colour,
            label=f">= {tail.thresholds[threshold]:g}",
        )
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # room for the legend
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    if len(order) <= _MOST_NAMED_CLASSES:
        labels = tail.labels[order].tolist()
        names = [class_names[label] if 0 <= label < len(class_names) else str(label) for label in labels]
        axes.set_xticks(place, names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
        axes.grid(visible=False, axis="x")
    else:
        axes.set_xlabel(f"{len(order):,} classes, most memorized first")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(**_LEGEND, loc="upper right", ncols=len(_MARKERS), handletextpad=0.1, columnspacing=0.8)


def _draw_carried(axes: Axes, carried: tuple[CarriedAccuracy, ...]) -> None:
    at = np.array([row.min_memorization for row in carried])
    value, low, high, below = (
        100 * np.array([getattr(row, name) for row in carried])
        for name in ("carried", "ci_low", "ci_high", "below_random")
    )
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.plot(at, value, color=COLOURS[0], label="beyond as many others")
    axes.fill_between(at, low, high, color=COLOURS[0], alpha=0.25, linewidth=0)
    axes.plot(at, below, color=COLOURS[1], linestyle="--", label="below random removal")
    axes.set_xlabel("threshold of memorization")
    axes.set_ylabel("% of the test set")
    axes.legend(**_LEGEND)


def _draw_pairs(axes: Axes, report: TailReport) -> None:
    series = (
        ("test", report.pairs.test_examples_by_pairs, "o", 6, "-"),
        ("training", report.pairs.train_examples_by_pairs, "s", 4, "--"),
    )
    most = 1
    for (name, counts, marker, size, line), colour in zip(series, COLOURS, strict=False):
        num_pairs, num_examples = zip(*counts, strict=True) if counts else ((), ())
        most = max(most, *num_pairs) if num_pairs else most
        style: dict[str, Any] = {"marker": marker, "markersize": size, "linestyle": line, "color": colour}
        axes.plot(num_pairs, num_examples, label=f"{name} examples", **style)
    if most > _MOST_LINEAR:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xticks(range(1, max(most, 3) + 1))
        axes.set_xlim(0.5, max(most, 3) + 0.5)
    _log_counts(axes, np.ones(1))
    axes.set_xlabel(f"pairs that an example stands in\n({report.selection.in_words()})", fontsize=8)
    axes.legend(**_LEGEND)


def _log_counts(axes: Axes, counts: NDArray[Any]) -> None:
    """Let counts be read on a logarithmic axis, which begins below the smallest that is not 0."""
    bottom = max(0.7, np.min(counts, where=counts > 0, initial=counts.max()) / 3)
    top = max(1.3 * axes.get_ylim()[1], 10 * bottom)
    axes.set_ylim(bottom, top)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if top > _WIDE * bottom else (1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_axisbelow(True)
    axes.set_ylabel("examples")
