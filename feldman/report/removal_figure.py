"""The figure of `feldman removal`: test accuracy after examples were removed, in the form of the paper's figure 2."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feldman.report.style import COLOURS, add_legend, new_figure

__all__ = ["removal_figure"]

_TITLES = {
    "memorized": "memorized examples",
    "influential": "those of high influence",
    "uninfluential": "those of no high influence",
}
_SERIES = {
    "removal": ("memorized removed", "o", "-"),
    "random": ("as many at random", "s", "--"),
    "class": ("as many of each class", "^", ":"),
}


def removal_figure(table: pa.Table) -> Figure:
    """Draw accuracy against the threshold of removal, above what share of the training set remains.

    Shaded is one standard deviation over repeats, as in the paper; the grey line is the whole training set.

    Parameters
    ----------
    table
        As `feldman.studies.removal.removal_table` returns it: a column of panels for each way of removing.
    """
    kinds = [kind for kind in _TITLES if kind in table["removed"].to_pylist()]
    titles = [_TITLES[kind] for kind in kinds] + [""] * len(kinds)
    figure, axes = new_figure(titles, len(kinds))
    whole = table.filter(pc.equal(table["removed"], "nothing"))["removal_accuracy"].to_pylist()
    for column, kind in enumerate(kinds):
        rows = table.filter(pc.equal(table["removed"], kind))
        thresholds = rows["threshold"].to_numpy()
        above, below = axes[column], axes[len(kinds) + column]
        for (series, (label, marker, line)), colour in zip(_SERIES.items(), COLOURS, strict=False):
            _draw_series(above, rows, series, label=label, style=(colour, marker, line))
        if whole and whole[0] is not None:
            above.axhline(whole[0], color="#777777", linewidth=0.8, label="nothing removed")
        below.bar(thresholds, rows["share_kept"].to_numpy(), width=0.6 * _gap(thresholds), color="#999999")
        below.set_ylim(0, 1)
        below.set_xlabel("removed: memorization of at least")
        below.set_xlim(above.get_xlim())
    axes[0].set_ylabel("test accuracy")
    axes[len(kinds)].set_ylabel("share of training set left")
    for panel in axes[1 : len(kinds)]:
        panel.sharey(axes[0])
    add_legend(figure)
    return figure


def _draw_series(panel: Axes, rows: pa.Table, series: str, *, label: str, style: tuple[str, str, str]) -> None:
    colour, marker, line = style
    thresholds = rows["threshold"].to_numpy()
    mean, spread = (
        np.array(rows[f"{series}_{name}"].to_pylist(), np.float64)  # null becomes NaN
        for name in ("accuracy", "std")
    )
    if np.isnan(mean).all():
        return
    panel.plot(thresholds, mean, label=label, color=colour, marker=marker, linestyle=line)
    panel.fill_between(thresholds, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)


def _gap(thresholds: np.ndarray) -> float:
    return float(np.diff(thresholds).min()) if len(thresholds) > 1 else 0.1
