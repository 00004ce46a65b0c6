"""The figure of `feldman stability`: agreement of halves against the number of trials."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from feldman.report.style import COLOURS, add_legend, new_figure
from feldman.studies.stability import stability_summary

__all__ = ["stability_figure"]

_FIGURES = (("jaccard", "Jaccard similarity"), ("mean_difference", "mean difference"), ("spearman", "rank correlation"))


def stability_figure(table: pa.Table) -> Figure:
    """Draw J, D and rank correlation of memorization (above) and influence (below), each beside its level of chance.

    Parameters
    ----------
    table
        As `feldman.studies.stability.measure_stability` returns it.
    """
    estimates = ("memorization", "influence")
    titles = [f"{title}, {estimate}" for estimate in estimates for _, title in _FIGURES]
    figure, axes = new_figure(titles, len(_FIGURES))
    panels = [(estimate, name) for estimate in estimates for name, _ in _FIGURES]
    sizes = [size for size, _, _ in stability_summary(table, "memorization", "halves", "jaccard")]
    for panel, (estimate, name) in zip(axes, panels, strict=True):
        for compared, colour in zip(("halves", "chance"), COLOURS, strict=False):
            _, means, spreads = np.array(stability_summary(table, estimate, compared, name)).T
            panel.errorbar(sizes, means, np.nan_to_num(spreads), color=colour, marker="o", capsize=2, label=compared)
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.set_xlabel("trials in each half")
        if name == "jaccard":
            panel.set_ylim(bottom=0)
    add_legend(figure)
    return figure
