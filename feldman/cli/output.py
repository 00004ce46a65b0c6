"""What commands print: one JSON document, or a table for people; and where rows go."""

from __future__ import annotations

import json
import math
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, get_args

from feldman.errors import QueryError, listed

__all__ = [
    "Format",
    "Output",
    "chosen_output",
    "chosen_plot",
    "class_name",
    "interval",
    "number",
    "output_stream",
    "print_json",
    "print_rows",
    "small_number",
]

Format = Literal["table", "json", "csv", "parquet"]


@dataclass(frozen=True, kw_only=True)
class Output:
    """How rows are written, and into which file; None is standard output."""

    format: Format = "table"
    file: Path | None = None


def chosen_output(name: Format | None, as_json: bool, file: str | None) -> Output:
    """Settle how rows are written from what was given, before anything is asked.

    Raises
    ------
    QueryError
        If the options contradict each other, the file is there already or tells no format, or a terminal would get Parquet.
    """
    if as_json and name not in (None, "json"):
        raise QueryError(f"--json is --format json; found --format {name} too: give one of them")
    name = "json" if as_json else name
    if file is None:
        if name == "parquet" and sys.stdout.isatty():
            raise QueryError("Parquet is not for a terminal; write it to a file with -o FILE, or into a pipe")
        return Output(format=name or "table")
    if os.path.lexists(file):
        raise QueryError(f"'{file}' exists, and nothing is overwritten: remove it, or choose another file")
    told = next((known for known in get_args(Format) if Path(file).suffix == f".{known}" and known != "table"), None)
    if name is not None and told is not None and name != told:
        raise QueryError(f"'{file}' tells {told}, and --format says {name}; say one of them")
    name = name or told
    if name is None:
        raise QueryError(
            f"'{file}' does not tell its format by .json, .csv or .parquet; name it so, or say --format "
            f"({listed(get_args(Format))})"
        )
    return Output(format=name, file=Path(file))


def chosen_plot(file: str | None) -> Path | None:
    """Settle where a figure goes, before anything is computed.

    Raises
    ------
    QueryError
        If the file is there already, lies in no folder, or does not tell a format of figures.
    """
    if file is None:
        return None
    path = Path(file)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise QueryError(f"a figure is a .png, .svg or .pdf file; found '{file}'")
    if os.path.lexists(path):
        raise QueryError(f"'{file}' exists, and nothing is overwritten: remove it, or choose another file")
    if not path.parent.is_dir():
        raise QueryError(f"'{path.parent}' is no folder to write '{path.name}' into; make it first")
    return path


@contextmanager
def output_stream(output: Output) -> Iterator[BinaryIO]:
    """Open what rows are written to. A file has a partial name until it is whole.

    Raises
    ------
    QueryError
        If no file can be made there.
    """
    if output.file is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    building = output.file.with_name(f".{output.file.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        stream = building.open("xb")
    except OSError as error:
        raise QueryError(f"cannot write '{output.file}': {error.strerror}; choose another file") from None
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.link(building, output.file)  # unlike a renaming, it replaces nothing that has come meanwhile
    except FileExistsError:
        raise QueryError(f"'{output.file}' has come into being meanwhile, and nothing is overwritten") from None
    except OSError:  # a file system without links
        building.rename(output.file)
    finally:
        building.unlink(missing_ok=True)


def print_json(document: Any) -> None:
    """Print one JSON document; NaN and infinity, which JSON lacks, become null."""
    print(json.dumps(_plain(document), indent=2, allow_nan=False))


def print_rows(rows: list[dict[str, str]], title: str, file: TextIO) -> None:
    """Print rows as a table. Off a terminal it is not cut to a width that is not there."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        print(title, file=file)
        return
    view = Table(
        title=Text(title), title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for column in rows[0]:
        view.add_column(column, justify="left" if "class" in column else "right", no_wrap=True)
    for row in rows:
        view.add_row(*(Text(value) for value in row.values()))  # a class may be called "[/b]"
    console = Console(highlight=False, file=file)
    if not console.is_terminal:
        console = Console(highlight=False, width=160, file=file)
    console.print(view)


def class_name(label: Any, names: tuple[str, ...]) -> str:
    """Return the name of a label, or its number; a dash where it is not known."""
    if label is None:
        return "-"
    return names[label] if 0 <= label < len(names) else str(label)


def number(value: float | None) -> str:
    """Return an estimate as tables for people have it; a dash where it is undefined."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def small_number(value: float | None) -> str:
    """Return a q-value: two digits, however small it is."""
    return "-" if value is None else "< 1e-9" if value < 1e-9 else f"{value:.2g}"


def interval(row: dict[str, Any]) -> str:
    """Return the interval of a row."""
    low, high = row["ci_low"], row["ci_high"]
    return "-" if low is None and high is None else f"{number(low)} to {number(high)}"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
