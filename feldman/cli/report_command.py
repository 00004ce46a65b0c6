"""`feldman report`: the page of a run, in one file."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from feldman.cli.output import print_json
from feldman.cli.progress import ProgressDisplay
from feldman.importing import see_current_folder
from feldman.report.page_file import check_page_file, write_page
from feldman.report.run_report import make_report
from feldman.report.selection import PageLimits
from feldman.trials.rundir import run_paths
from feldman.trials.session import Progress

__all__ = ["write_report"]


def write_report(path: str, output: str | None, limits: PageLimits, *, pictures: bool, as_json: bool) -> None:
    """Write the page of a run, and say what it holds."""
    paths = run_paths(path)
    location = paths.report if output is None else Path(output)
    if paths.memorization.exists():  # else the run says what is wrong with it
        check_page_file(location)
    see_current_folder()
    with ProgressDisplay() as display, contextlib.redirect_stdout(sys.stderr):  # a user's own data set may print
        tell = lambda stage: display(Progress(stage=stage))  # noqa: E731
        document, page = make_report(paths, limits, pictures=pictures, tell=tell)
        write_page(page, location)
    megabytes = len(page.encode()) / 1e6
    held = {
        "num_train": len(document.train.index),
        "num_test": len(document.test.index),
        "num_pairs": len(document.pairs.train),
        "num_pictures": document.num_pictures,
    }
    if as_json:
        print_json({"run": str(paths.root), "report": str(location), "megabytes": round(megabytes, 6), **held})
        return
    print(
        f"{location}: {megabytes:.1f} MB, {held['num_train']:,} training and {held['num_test']:,} test examples, "
        f"{held['num_pairs']:,} pairs, {held['num_pictures']:,} pictures"
    )
    for note in document.notes:
        print(f"  {note}")
    print(f"  open it        {location.absolute().as_uri() if isinstance(location, Path) else location}")
