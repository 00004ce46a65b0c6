"""What commands print: one JSON document, or a table for people."""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_json", "print_rows", "rows_of"]


def print_json(document: Any) -> None:
    """Print one JSON document; NaN and infinity, which JSON lacks, become null."""
    print(json.dumps(_plain(document), indent=2, allow_nan=False))


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return a table as objects whose keys are its columns."""
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def print_rows(rows: list[dict[str, str]], title: str) -> None:
    """Print rows as a table. Off a terminal it is not cut to a width that is not there."""
    if not rows:
        print(title)
        return
    view = Table(
        title=Text(title), title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for column in rows[0]:
        view.add_column(column, justify="left" if "class" in column else "right", no_wrap=True)
    for row in rows:
        view.add_row(*(Text(value) for value in row.values()))  # a class may be called "[/b]"
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    console.print(view)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
