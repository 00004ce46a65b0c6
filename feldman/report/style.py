"""The one style of all figures, and how they are saved."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["COLOURS", "add_legend", "new_figure", "save_figure"]

COLOURS = ("#0b6e99", "#c8553d", "#588157", "#7d5ba6")
"""Of series, in their order; told apart in grey and by those who see no red and green."""

_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.hashsalt": "feldman",
}
_PANEL_INCHES = 2.9, 2.5
_NARROWEST_INCHES = 4.4
"""So that the legend of a single panel has room."""


def new_figure(titles: list[str], num_columns: int) -> tuple[Figure, list[Axes]]:
    """Make a figure with a panel for each title, row by row. It belongs to no window and no global state."""
    num_rows = -(-len(titles) // num_columns)
    with matplotlib.rc_context(_STYLE):
        width = max(_PANEL_INCHES[0] * num_columns, _NARROWEST_INCHES)
        figure = Figure(figsize=(width, _PANEL_INCHES[1] * num_rows), layout="constrained")
        axes = [figure.add_subplot(num_rows, num_columns, k + 1, title=title) for k, title in enumerate(titles)]
    return figure, axes


def add_legend(figure: Figure, num_columns: int = 2) -> None:
    """Say below the panels which series is which, by the first panel's."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=num_columns, frameon=False, fontsize=9)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all, in the format of the path's suffix; the same figure has the same bytes."""
    building = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix[1:])
    try:
        with matplotlib.rc_context(_STYLE):
            figure.savefig(building, dpi=200, metadata=metadata)
        building.replace(path)
    finally:
        building.unlink(missing_ok=True)
