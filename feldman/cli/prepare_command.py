"""`feldman prepare`."""

from __future__ import annotations

from pathlib import Path

from feldman.cli.output import print_json
from feldman.cli.progress import ProgressDisplay
from feldman.data.preparing import PrepareOptions, PrepareSummary, prepare_images
from feldman.errors import DatasetError, InterruptedRunError
from feldman.trials.session import Progress

__all__ = ["prepare_source"]


def prepare_source(source: str, output: str, options: PrepareOptions, as_json: bool) -> None:
    """Prepare, and print what came of it."""
    try:
        with ProgressDisplay() as display:
            summary = prepare_images(
                _path(source, "SOURCE"),
                _path(output, "-o"),
                options,
                lambda done, total: display(Progress(stage="preparing", done=done, total=total)),
            )
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted; what is prepared is safe, and the same command goes on") from None
    if as_json:
        print_json(summary.as_json())
    else:
        _print_summary(summary)


def _print_summary(summary: PrepareSummary) -> None:
    print(
        f"{summary.folder}: {summary.num_train:,} training and {summary.num_test:,} test images (of {summary.held_out}/) of "
        f"{summary.num_classes:,} classes, {summary.size} x {summary.size}"
    )
    for file, problem in summary.skipped.items():
        print(f"  left out  {file}: {problem}")
    if summary.num_ignored:
        print(f"  ignored   {summary.num_ignored:,} files that are no images by their names")
    print(f'  next      [dataset] name = "image-folder", path = "{summary.folder}"')


def _path(text: str, option: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # '~name' of nobody
        raise DatasetError(f"{option} '{text}': {error}") from None
