"""The file that a page is written to: there whole or not at all, and never in place of anything that feldman did not make."""

from __future__ import annotations

import os
from pathlib import Path

from feldman.errors import QueryError
from feldman.report.page import GENERATOR
from feldman.results.local_copies import building_file
from feldman.trials.locations import Location
from feldman.trials.storage import storage_errors

__all__ = ["check_page_file", "write_page"]

_MARK = f'<meta name="generator" content="{GENERATOR} '.encode()
_HEAD_BYTES = 1024
"""The mark stands in the first lines."""


def check_page_file(location: Location) -> None:
    """Refuse a place where no page can be written, or which is taken by something else.

    Raises
    ------
    QueryError
        If it lies in no folder, or holds anything but an earlier page.
    """
    if isinstance(location, Path) and not location.parent.is_dir():
        raise QueryError(f"'{location.parent}' is no folder to write '{location.name}' into; make it first")
    if not _is_ours(location):
        raise QueryError(
            f"'{location}' was not made by `feldman report`, and nothing else is overwritten: remove it, or choose another file "
            "with -o"
        )


def write_page(page: str, location: Location) -> None:
    """Write a page; an earlier one is replaced as a whole.

    Raises
    ------
    QueryError
        As `check_page_file`: something may have come meanwhile.
    StorageError
        If the storage refuses.
    """
    with storage_errors(location), building_file(location) as building:
        building.write_text(page, encoding="utf-8")
        check_page_file(location)


def _is_ours(location: Location) -> bool:
    """Tell whether a place is free, or holds a page."""
    if not isinstance(location, Path):
        return not location.exists() or _MARK in location.read_bytes()[:_HEAD_BYTES]
    if not os.path.lexists(location):
        return True
    try:
        if not location.is_file():  # a pipe would be waited for
            return False
        with location.open("rb") as file:
            return _MARK in file.read(_HEAD_BYTES)
    except OSError:
        return False
