"""The figure of `feldman lds`: how well held-out trials are predicted, against the number of trials."""

from __future__ import annotations

import pyarrow as pa
from matplotlib.figure import Figure

from feldman.report.style import COLOURS, add_legend, new_figure

__all__ = ["lds_figure"]


def lds_figure(table: pa.Table) -> Figure:
    """Draw the linear datamodeling score of each estimator, and its level of chance.

    Parameters
    ----------
    table
        As `feldman.studies.lds.measure_lds` returns it.
    """
    rows = table.to_pylist()
    estimators = list(dict.fromkeys(row["estimator"] for row in rows))
    figure, (axes,) = new_figure(["linear datamodeling score"], 1)
    for estimator, colour in zip(estimators, COLOURS, strict=False):
        own = [row for row in rows if row["estimator"] == estimator]
        sizes, scores, errors, chance = (
            [row[name] for row in own] for name in ("num_trials", "lds", "stderr", "lds_chance")
        )
        axes.errorbar(sizes, scores, errors, color=colour, marker="o", capsize=2, label=estimator)
        axes.errorbar(sizes, chance, color=colour, linestyle=":", label=f"{estimator}, chance")
    sizes = sorted({row["num_trials"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.set_xlabel("trials to estimate from")
    add_legend(figure)
    return figure
